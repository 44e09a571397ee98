"""A trained model with its encoders, which makes one segment at a time: from noise to latents under conditions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from omnihuman.batch import Conditions
from omnihuman.conditions.motion_frames import motion_mask, put_back
from omnihuman.config.schema.evaluate import Sampling
from omnihuman.data.shards import Encoders
from omnihuman.diffusion.guidance import branches, guided_velocity, scales
from omnihuman.diffusion.solver import SOLVERS
from omnihuman.diffusion.timesteps import sampling_schedule, shift_by_tokens
from omnihuman.encoders import factory
from omnihuman.encoders.factory import Choice
from omnihuman.encoders.speech import SpeechEncoder
from omnihuman.encoders.text import TextEncoder
from omnihuman.encoders.video_codec import VideoCodec
from omnihuman.encoders.wan_vae import WanVae
from omnihuman.inference.placement import OffloadedVae, Placement
from omnihuman.keyed_random import generator
from omnihuman.model.checkpoint import WEIGHTS, load_model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.storage.files import file_sha256


@dataclass(frozen=True)
class Generator:
    """A trained model with the frozen encoders that it was trained with."""

    model: OmniHumanTransformer
    encoders: Encoders
    sampling: Sampling
    placement: Placement = field(default_factory=Placement, kw_only=True)
    before_step: Callable[[], None] | None = field(default=None, kw_only=True)
    """Called before each evaluation of the network; what it raises ends the segment."""

    def codec(self) -> VideoCodec:
        """The codec of the model's latents; it takes and gives tensors of the processor's memory."""
        made, place = self.encoders, self.placement
        choice = Choice(made.video_codec, made.video_weights, made.video_weights_sha256)
        tile, stride = made.video_tile_pixels, made.video_tile_stride_pixels
        if self.sampling.vae_tile_pixels:
            tile, stride = self.sampling.vae_tile_pixels, self.sampling.vae_tile_pixels // 4 * 3
        codec = factory.video_codec(choice, tile, stride, "cpu" if place.offload else place.codec_device)
        return OffloadedVae(codec, place.codec_device) if place.offload and isinstance(codec, WanVae) else codec

    def speech_encoder(self) -> SpeechEncoder:
        """The encoder of the model's sounds."""
        made = self.encoders
        choice = Choice(made.speech_encoder, made.speech_weights, made.speech_weights_sha256)
        return factory.speech_encoder(choice, self.placement.encoder_device)

    def text_encoder(self) -> TextEncoder:
        """The encoder of the model's prompts."""
        return factory.text_encoder(self._text_choice(), self.encoders.max_text_tokens, self.placement.encoder_device)

    def empty_text(self) -> np.ndarray:
        """float32 [L, text width]: text that is off."""
        return factory.empty_text(self._text_choice(), self.encoders.max_text_tokens, self.placement.encoder_device)

    def _text_choice(self) -> Choice:
        made = self.encoders
        return Choice(made.text_encoder, made.text_weights, made.text_weights_sha256)

    @torch.inference_mode()
    def segment(self, conditions: Conditions, num_latents: int, noise_keys: Sequence[tuple[int | str, ...]]) -> Tensor:
        """Latents float32 [B, C, T, h, w] in the processor's memory.

        Args:
            conditions: of a batch of B segments of one size, on any device; its motion frames appear unchanged in the
                result.
            num_latents: T.
            noise_keys: one key a segment; equal keys give equal noise, in whatever batch the segment is.
        """
        channels, height, width = conditions.reference.shape[1:]
        shape = (channels, num_latents, height, width)
        drawn = [generator(*key).standard_normal(shape, dtype=np.float32) for key in noise_keys]
        with self.placement.denoising(self.model, self.sampling.precision) as network:
            device = next(network.parameters()).device
            placed = Conditions(**{name: value.to(device) for name, value in vars(conditions).items()})
            with network.pose_condition.remembering():
                latents = self._denoised(network, torch.from_numpy(np.stack(drawn)).to(device), placed)
        latents = latents.float().cpu()
        return put_back(latents, conditions.motion.to(latents), motion_mask(conditions.motion_on.cpu(), num_latents))

    def _denoised(self, network: OmniHumanTransformer, noise: Tensor, conditions: Conditions) -> Tensor:
        sampling = self.sampling
        empty_text = torch.from_numpy(self.empty_text()).to(conditions.text)

        def velocity(x: Tensor, sigma: Tensor, step: int) -> Tensor:
            if self.before_step:
                self.before_step()
            asked = branches(conditions, empty_text, *scales(sampling, step))
            return guided_velocity(network, x, sigma, asked, sampling.guidance_batched).to(x)

        num_tokens = noise.shape[3] * noise.shape[4] // network.config.patch_size**2
        shift = shift_by_tokens(num_tokens) if sampling.shift_by_tokens else sampling.shift
        return SOLVERS[sampling.solver](velocity, noise, sampling_schedule(sampling.num_steps, shift))


@dataclass(frozen=True)
class LoadedGenerator(Generator):
    """A generator that knows which weights it holds and what they were trained on."""

    modalities: tuple[str, ...]
    sha256: str
    """Of the file of weights."""
    continues_streams: bool = False
    """Whether it was trained on samples in mid-stream."""


def load_generator(folder: Path | str, sampling: Sampling | None = None) -> LoadedGenerator:
    """Loads a trained model once, for any number of renderings, where the environment asks for it.

    Args:
        sampling: how the flow is solved; by default the schema's way.

    Raises:
        UserError: the folder holds no model, or one that does not fit its description; the device is not here.
    """
    folder, placement = Path(folder), Placement.from_environment()
    network, description = load_model(folder)
    sha256 = file_sha256(folder / WEIGHTS)
    return LoadedGenerator(
        network,
        description.encoders,
        sampling or Sampling(),
        description.modalities,
        sha256,
        description.midstream_share > 0,
        placement=placement,
    )
