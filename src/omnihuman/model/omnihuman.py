"""The omni-condition MMDiT: an open base with reference tokens, sound, stacked pose and motion frames (sec. 3.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.batch import Conditions, ModelInput, Widths
from omnihuman.conditions.audio import AudioCondition, AudioCrossAttention, AudioStream, Sound
from omnihuman.conditions.motion_frames import condition_channels, motion_mask, put_back
from omnihuman.conditions.pose import PoseCondition
from omnihuman.conditions.reference import reference_channels
from omnihuman.conditions.text import pack_text
from omnihuman.config.schema.model import Model
from omnihuman.model.base_input import unpatchify
from omnihuman.model.check_input import check_input
from omnihuman.model.mmdit import MMDiT, Packed
from omnihuman.model.prediction import Departure, Prediction, Velocity
from omnihuman.model.rope import Rotation, grid_rotation, no_rotation, rotation
from omnihuman.packed import Joint, Runs


@dataclass(frozen=True)
class _Part:
    """Embedded samples of one size."""

    noisy: Tensor  # [B, C, T, h, w], as it came
    sigma: Tensor  # [B]
    reference: Tensor  # [B, C, 1, h, w], scaled; zeros where off
    x: Tensor  # [n, D]
    x_lengths: list[int]
    x_rotation: Rotation
    is_clean: Tensor  # bool [n]
    is_video: Tensor  # bool [n]
    hears: Tensor  # bool [n]
    text: Tensor  # [m, text width]
    text_lengths: list[int]
    sound: Tensor  # [b, T, A', audio width] of the samples with audio on
    sound_lengths: list[int]  # sound tokens of each sample
    num_frame_tokens: int  # video tokens of one latent frame


class OmniHumanTransformer(nn.Module):
    """Predicts the velocity v = eps - x0 of noisy latents under any subset of conditions (OmniHuman-1, sec. 3)."""

    def __init__(self, config: Model, widths: Widths) -> None:
        super().__init__()
        self.config, self.widths = config, widths
        self.base = MMDiT(config, widths.latent_channels, widths.text_width)
        self.prediction: Prediction = (
            Departure(widths.latent_channels) if config.prediction == "departure" else Velocity()
        )
        self.pose_condition = PoseCondition(config.pose_channels, widths.num_keypoints)
        # The weights that the base's patch embedding has for the channels of the driving and the reference's pose: one
        # convolution over stacked channels is the sum of two. Zero, so that a pose says nothing until it was trained.
        patch = (1, config.patch_size, config.patch_size)
        self.pose_embedder = nn.Conv3d(2 * config.pose_channels, config.width, patch, stride=patch, bias=False)
        nn.init.zeros_(self.pose_embedder.weight)
        self.audio_condition = AudioCondition(
            widths.speech_layers, widths.speech_width, config.audio_width, config.audio_tokens
        )
        joint = config.audio_fusion == "joint_attention"
        self.audio_stream = AudioStream(config.width, config.audio_width) if joint else None
        listeners = 0 if joint else self.base.num_blocks
        self.audio_attention = nn.ModuleList(
            AudioCrossAttention(config.width, config.num_heads, config.audio_width) for _ in range(listeners)
        )

    def forward(self, noisy: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Velocity of samples of one size.

        Args:
            noisy: [B, C, T, h, w]; frames given as motion frames are replaced by the clean ones.
            sigma: [B], 1 is noise.
            conditions: see `Conditions`; sizes follow `noisy`.

        Returns:
            [B, C, T, h, w]; without meaning at motion frames.

        Raises:
            ValueError: a size, length or type does not fit; the message says what came and what was expected.
        """
        (velocity,) = self.forward_packed([ModelInput(noisy, sigma, conditions)])
        return velocity

    def forward_packed(self, inputs: Sequence[ModelInput]) -> list[Tensor]:
        """Velocities of samples of any sizes, which go through the network as one sequence without padding.

        In training, sound and pose are computed, with nothing, also where no sample has them: all weights get a
        gradient, if of zero, and in one order, on which ranks that add gradients up must agree.

        Args:
            inputs: each holds samples of one size.

        Raises:
            ValueError: as `forward`.
        """
        if not inputs:
            raise ValueError("the pack is empty: expected at least one ModelInput")
        for one in inputs:
            check_input(one, self.config, self.widths)
        parts = [self._embed(one) for one in inputs]
        sound = _pack_sound(parts, idle=self.training) if self.audio_stream is None else None
        attention = self.audio_attention

        def listen(number: int, tokens: Tensor, x_places: Tensor | None) -> Tensor:
            if sound is None:
                return tokens
            places = sound.heard_by if x_places is None else x_places[sound.heard_by]
            return attention[number](tokens, sound, places)

        packed = self._pack(parts)
        output = self.base(packed, listen)
        of_parts = output.split([len(part.x) for part in parts])
        return [self._velocity(part, tokens) for part, tokens in zip(parts, of_parts, strict=True)]

    def _embed(self, given: ModelInput) -> _Part:
        noisy, sigma, conditions = given.noisy, given.sigma, given.conditions
        prediction = self.prediction
        is_motion = motion_mask(conditions.motion_on, noisy.shape[2])
        latents = put_back(prediction.scaled_noisy(noisy, sigma), prediction.scaled(conditions.motion), is_motion)
        reference_on = conditions.reference_on
        reference = prediction.scaled(conditions.reference[:, :, None])
        reference = torch.where(_per_sample(reference_on), reference, torch.zeros_like(reference))
        height, width = latents.shape[3:]
        pose = self.pose_condition(conditions.keypoints, conditions.pose_on, height, width)
        left_on = conditions.pose_on & reference_on
        left = self.pose_condition(conditions.reference_keypoints[:, None], left_on, height, width)
        shown = condition_channels(latents, is_motion, prediction.shown(reference[:, :, 0]))
        video = self._tokens(torch.cat([latents, shown], dim=1), torch.cat([pose, left.expand_as(pose)], dim=1))
        pictures = self._tokens(reference_channels(reference), torch.cat([left, left], dim=1))

        batch, num_video, num_reference = len(noisy), video.shape[1], pictures.shape[1]
        present = torch.cat(
            [reference_on[:, None].expand(-1, num_reference), is_motion.new_ones(batch, num_video)], dim=1
        )
        is_video = torch.zeros_like(present)
        is_video[:, num_reference:] = True
        is_clean = torch.cat(
            [
                is_motion.new_ones(batch, num_reference),
                is_motion.repeat_interleave(num_video // noisy.shape[2], dim=1),
            ],
            dim=1,
        )
        text, text_lengths = pack_text(conditions.text, conditions.text_mask)
        audio_on = conditions.audio_on
        sound = self.audio_condition(conditions.speech[audio_on], conditions.speech_mask[audio_on])
        return _Part(
            noisy=noisy,
            sigma=sigma,
            reference=reference,
            x=torch.cat([pictures, video], dim=1)[present],
            x_lengths=present.sum(dim=1).tolist(),
            x_rotation=self._rotation(noisy.shape, present),
            is_clean=is_clean[present],
            is_video=is_video[present],
            hears=(is_video & audio_on[:, None])[present],
            text=text,
            text_lengths=text_lengths,
            sound=sound,
            sound_lengths=[sound.shape[1] * sound.shape[2] * on for on in audio_on.tolist()],
            num_frame_tokens=num_video // noisy.shape[2],
        )

    def _tokens(self, channels: Tensor, pose: Tensor) -> Tensor:
        """Channels [B, 2 C + 1, T, h, w] and pose [B, 2 P, T, h, w] to tokens [B, n, D]."""
        return (self.base.x_embedder(channels) + self.pose_embedder(pose)).flatten(2).transpose(1, 2)

    def _rotation(self, shape: torch.Size, present: Tensor) -> Rotation:
        """Angles of the tokens that are present; the temporal part of the reference's is zero (sec. 3.2)."""
        patch, axes, theta = self.config.patch_size, self.config.rope_axes, self.config.rope_theta
        num_latents, height, width = shape[2], shape[3] // patch, shape[4] // patch
        video = grid_rotation(num_latents, height, width, axes, theta, present.device)
        still = Rotation(*(angles[: height * width] for angles in video))  # the frame at time zero
        both = (torch.cat(pair).expand(len(present), -1, -1) for pair in zip(still, video, strict=True))
        return Rotation(*(angles[present] for angles in both))

    def _pack(self, parts: list[_Part]) -> Packed:
        device = parts[0].x.device
        y = self.base.text_embedder(torch.cat([part.text for part in parts]))
        text_runs = Runs.of([length for part in parts for length in part.text_lengths], device)
        x_rotation = Rotation(*(torch.cat(angles) for angles in zip(*(part.x_rotation for part in parts), strict=True)))
        is_clean = torch.cat([part.is_clean for part in parts])
        packed = Packed(
            x=torch.cat([part.x for part in parts]),
            y=y,
            x_runs=Runs.of([length for part in parts for length in part.x_lengths], device),
            y_runs=text_runs,
            x_rotation=x_rotation,
            y_rotation=None,
            text_places=None,
            text_runs=text_runs,
            is_clean=is_clean if is_clean.any() else None,
            sigma=torch.cat([part.sigma for part in parts]),
        )
        if self.audio_stream is None or not (self.training or any(len(part.sound) for part in parts)):
            return packed
        return _with_sound_stream(packed, parts, self.audio_stream, self.config)

    def _velocity(self, part: _Part, tokens: Tensor) -> Tensor:
        """From the network's values [n, C patch^2] of a part's tokens."""
        patch = self.config.patch_size
        batch, _, num_latents, height, width = part.noisy.shape
        grid = (num_latents, height // patch, width // patch)
        output = unpatchify(tokens[part.is_video].unflatten(0, (batch, -1)), grid, patch)
        return self.prediction.velocity(output, part.noisy, part.sigma, part.reference)


def _per_sample(values: Tensor) -> Tensor:
    """[B] to [B, 1, 1, 1, 1]."""
    return values[:, None, None, None, None]


def _pack_sound(parts: list[_Part], *, idle: bool) -> Sound | None:
    """Who hears what; None where no sample has its audio on, unless that is to be computed too."""
    if not idle and not any(len(part.sound) for part in parts):
        return None
    hears = torch.cat([part.hears for part in parts])
    num_tokens = [part.sound.shape[2] for part in parts for _ in range(part.sound.shape[0] * part.sound.shape[1])]
    listeners = [part.num_frame_tokens for part in parts for _ in range(part.sound.shape[0] * part.sound.shape[1])]
    return Sound(
        tokens=torch.cat([part.sound.flatten(0, 2) for part in parts]),
        frames=Runs.of(num_tokens, hears.device),
        heard_by=hears.nonzero()[:, 0],
        listeners=Runs.of(listeners, hears.device),
    )


def _with_sound_stream(packed: Packed, parts: list[_Part], stream: AudioStream, config: Model) -> Packed:
    """Puts each sample's sound tokens after its text, turned by the time of their latent frame alone."""
    sound_runs = Runs.of([length for part in parts for length in part.sound_lengths], packed.x.device)
    streams = Joint.of(packed.text_runs, sound_runs)
    sound = stream(torch.cat([part.sound.flatten(0, 2) for part in parts]))
    positions = torch.cat([_times(part.sound) for part in parts])
    of_text = no_rotation(len(packed.y), packed.x_rotation)
    of_sound = rotation(positions, config.rope_axes, config.rope_theta)
    text_places = torch.arange(len(packed.y), device=sound.device) if streams.x_places is None else streams.x_places
    return replace(
        packed,
        y=streams.join(packed.y, sound),
        y_runs=streams.both,
        y_rotation=Rotation(*(streams.join(*pair) for pair in zip(of_text, of_sound, strict=True))),
        text_places=text_places,
    )


def _times(sound: Tensor) -> Tensor:
    """Positions [b T A', 3] (time, 0, 0) of sound tokens [b, T, A', audio width]."""
    batch, num_latents, num_tokens = sound.shape[:3]
    times = torch.arange(num_latents, device=sound.device).repeat_interleave(num_tokens).repeat(batch)
    return functional.pad(times[:, None], (0, 2))
