"""The omni-condition MMDiT: text stream, packed reference tokens, audio cross-attention, stacked pose and motion."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.batch import Conditions, Widths
from omnihuman.conditions.audio import AudioCondition
from omnihuman.conditions.motion_frames import condition_channels, motion_mask, put_back
from omnihuman.conditions.pose import PoseCondition
from omnihuman.conditions.reference import reference_channels, reference_positions
from omnihuman.conditions.text import TextCondition
from omnihuman.config.schema.model import Model
from omnihuman.model.blocks import BlockInputs, DualBlock, SingleBlock, modulate
from omnihuman.model.rope import rotation, video_positions

_NUM_FREQUENCIES = 128
_MIN_SIGMA = 0.05


class SigmaEmbedding(nn.Module):
    """Sinusoids of t = 1000 sigma, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(2 * _NUM_FREQUENCIES, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, sigma: Tensor) -> Tensor:
        """[B] to [B, D]."""
        exponent = torch.arange(_NUM_FREQUENCIES, device=sigma.device) / _NUM_FREQUENCIES
        angle = 1000.0 * sigma[:, None] * torch.exp(-math.log(1e4) * exponent)
        sinusoids = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(functional.silu(self.linear_1(sinusoids)))


class OmniHumanTransformer(nn.Module):
    """Predicts the velocity v = eps - x0 of noisy latents under any subset of conditions (OmniHuman-1, sec. 3).

    The network itself says how the clean latent differs from the reference picture (from nothing, where there is none),
    because neither noise nor content of many channels passes through a narrow model; the velocity is (x - x0) / sigma.
    """

    def __init__(self, config: Model, widths: Widths) -> None:
        super().__init__()
        self.config, self.widths = config, widths
        width = config.width
        shape = (width, config.num_heads, config.mlp_ratio, config.audio_width)
        channels = 2 * widths.latent_channels + 1 + 2 * config.pose_channels
        patch = (1, config.patch_size, config.patch_size)
        self.latent_std = nn.Buffer(torch.ones(widths.latent_channels))
        """Standard deviation of the data per latent channel, measured once, before the first stage."""
        self.x_embedder = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)
        # A pose says nothing until it has been trained, so that the stage before is not disturbed.
        nn.init.zeros_(self.x_embedder.weight[:, -2 * config.pose_channels :])
        self.sigma_embedding = SigmaEmbedding(width)
        self.text_condition = TextCondition(widths.text_width, width)
        self.audio_condition = AudioCondition(widths.speech_width, config.audio_width)
        self.pose_condition = PoseCondition(config.pose_channels)
        dual_blocks = [DualBlock(*shape) for _ in range(config.num_dual_blocks)]
        single_blocks = [SingleBlock(*shape) for _ in range(config.num_single_blocks)]
        for block in [*dual_blocks, *single_blocks]:
            block.qkv.start_local(config.rope_axes[0])
        self.dual_blocks, self.single_blocks = nn.ModuleList(dual_blocks), nn.ModuleList(single_blocks)
        self.norm_out = nn.Linear(width, 2 * width)
        self.proj_out = nn.Linear(width, widths.latent_channels * config.patch_size**2)
        for layer in (self.norm_out, self.proj_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, noisy: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Velocity of `noisy` at `sigma`.

        Args:
            noisy: [B, C, T, h, w]; frames given as motion frames are replaced by the clean ones.
            sigma: [B], 1 is noise.
            conditions: see `Conditions`; sizes follow `noisy`.

        Returns:
            [B, C, T, h, w]; without meaning at motion frames.
        """
        given = motion_mask(conditions.motion_on, noisy.shape[2])
        std = self.latent_std[:, None, None, None]
        level = sigma[:, None, None, None, None]
        unit = torch.rsqrt(((1 - level) * std) ** 2 + level**2)
        latents = put_back(unit * noisy, conditions.motion / std, given)
        reference = conditions.reference_on[:, None, None, None] * conditions.reference / self.latent_std[:, None, None]
        x, num_reference = self._embed(latents, given, reference, conditions)
        y = self.text_condition(conditions.text)
        inputs = self._block_inputs(x, latents, sigma, given, num_reference, conditions)
        for block in [*self.dual_blocks, *self.single_blocks]:
            x, y = block(x, y, inputs)
        scale, shift = self.norm_out(functional.silu(inputs.noisy))[:, None].chunk(2, dim=-1)
        output = self._unpatchify(self.proj_out(modulate(x[:, num_reference:], shift, scale)), latents.shape)
        return self._velocity(noisy, sigma, std * (reference[:, :, None] + output))

    def _embed(self, latents: Tensor, given: Tensor, reference: Tensor, conditions: Conditions) -> tuple[Tensor, int]:
        """Reference and video tokens [B, N, D], and how many of them are the reference's."""
        height, width = latents.shape[3:]
        pose = self.pose_condition(conditions.keypoints, conditions.pose_on, height, width)
        left = self.pose_condition(conditions.reference_keypoints[:, None], conditions.pose_on, height, width)
        shown = condition_channels(latents, given, reference)
        video = self.x_embedder(torch.cat([latents, shown, pose, left.expand_as(pose)], dim=1))
        tokens = video.flatten(2).transpose(1, 2)
        if not conditions.reference_on.any():
            return tokens, 0
        reference_tokens = self.x_embedder(reference_channels(reference, left))
        reference_tokens = reference_tokens.flatten(2).transpose(1, 2)
        return torch.cat([reference_tokens, tokens], dim=1), reference_tokens.shape[1]

    def _block_inputs(
        self, x: Tensor, latents: Tensor, sigma: Tensor, given: Tensor, num_reference: int, conditions: Conditions
    ) -> BlockInputs:
        patch = self.config.patch_size
        num_latents, height, width = latents.shape[2], latents.shape[3] // patch, latents.shape[4] // patch
        positions = video_positions(num_latents, height, width, x.device)
        if num_reference:
            positions = torch.cat([reference_positions(height, width, x.device), positions])
        video_clean = given.repeat_interleave(height * width, dim=1)
        reference_clean = given.new_ones(len(x), num_reference)
        audio_in_use = bool(conditions.audio_on.any())
        return BlockInputs(
            noisy=self.sigma_embedding(sigma),
            clean=self.sigma_embedding(torch.zeros_like(sigma)),
            is_clean=torch.cat([reference_clean, video_clean], dim=1)[..., None],
            rotation=rotation(positions, self.config.rope_axes, self.config.rope_theta),
            key_mask=_key_mask(x.shape[1], num_reference, conditions),
            num_reference=num_reference,
            audio=self.audio_condition(conditions.speech, conditions.speech_mask) if audio_in_use else None,
            audio_on=conditions.audio_on,
        )

    def _velocity(self, noisy: Tensor, sigma: Tensor, output: Tensor) -> Tensor:
        level = sigma[:, None, None, None, None].clamp(min=_MIN_SIGMA)
        return (noisy - output) / level

    def _unpatchify(self, tokens: Tensor, shape: torch.Size) -> Tensor:
        patch = self.config.patch_size
        batch, channels, num_latents, height, width = shape
        grid = tokens.reshape(batch, num_latents, height // patch, width // patch, channels, patch, patch)
        return grid.permute(0, 4, 1, 2, 5, 3, 6).reshape(shape)


def _key_mask(num_tokens: int, num_reference: int, conditions: Conditions) -> Tensor | None:
    """bool [B, 1, 1, N + L]: hides absent reference tokens and text padding; None where nothing is hidden."""
    text = conditions.text_mask
    reference = conditions.reference_on[:, None].expand(-1, num_reference)
    video = text.new_ones(len(text), num_tokens - num_reference)
    mask = torch.cat([reference, video, text], dim=1)
    return None if bool(mask.all()) else mask[:, None, None]
