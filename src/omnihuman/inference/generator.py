"""A trained model with its encoders, which makes one segment at a time: from noise to latents under conditions."""

from collections.abc import Sequence
from dataclasses import dataclass
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

    def codec(self) -> VideoCodec:
        """The codec of the model's latents."""
        made = self.encoders
        choice = Choice(made.video_codec, made.video_weights, made.video_weights_sha256)
        return factory.video_codec(choice, made.video_tile_pixels, made.video_tile_stride_pixels)

    def speech_encoder(self) -> SpeechEncoder:
        """The encoder of the model's sounds."""
        made = self.encoders
        return factory.speech_encoder(Choice(made.speech_encoder, made.speech_weights, made.speech_weights_sha256))

    def text_encoder(self) -> TextEncoder:
        """The encoder of the model's prompts."""
        return factory.text_encoder(self._text_choice(), self.encoders.max_text_tokens)

    def empty_text(self) -> np.ndarray:
        """float32 [L, text width]: text that is off."""
        return factory.empty_text(self._text_choice(), self.encoders.max_text_tokens)

    def _text_choice(self) -> Choice:
        made = self.encoders
        return Choice(made.text_encoder, made.text_weights, made.text_weights_sha256)

    @torch.inference_mode()
    def segment(self, conditions: Conditions, num_latents: int, noise_keys: Sequence[tuple[int | str, ...]]) -> Tensor:
        """Latents [B, C, T, h, w].

        Args:
            conditions: of a batch of B segments of one size, on any device; its motion frames appear unchanged in the
                result, which is on the model's.
            num_latents: T.
            noise_keys: one key a segment; equal keys give equal noise, in whatever batch the segment is.
        """
        device = next(self.model.parameters()).device
        conditions = Conditions(**{name: value.to(device) for name, value in vars(conditions).items()})
        channels, height, width = conditions.reference.shape[1:]
        shape = (channels, num_latents, height, width)
        drawn = [generator(*key).standard_normal(shape, dtype=np.float32) for key in noise_keys]
        noise = torch.from_numpy(np.stack(drawn)).to(conditions.reference)
        empty_text = torch.from_numpy(self.empty_text()).to(conditions.text)
        sampling = self.sampling

        def velocity(x: Tensor, sigma: Tensor, step: int) -> Tensor:
            asked = branches(conditions, empty_text, *scales(sampling, step))
            return guided_velocity(self.model, x, sigma, asked, sampling.guidance_batched)

        num_tokens = height * width // self.model.config.patch_size**2
        shift = shift_by_tokens(num_tokens) if sampling.shift_by_tokens else sampling.shift
        latents = SOLVERS[sampling.solver](velocity, noise, sampling_schedule(sampling.num_steps, shift))
        return put_back(latents, conditions.motion, motion_mask(conditions.motion_on, num_latents))


@dataclass(frozen=True)
class LoadedGenerator(Generator):
    """A generator that knows which weights it holds and what they were trained on."""

    modalities: tuple[str, ...]
    sha256: str
    """Of the file of weights."""


def load_generator(folder: Path, sampling: Sampling) -> LoadedGenerator:
    """Loads a trained model once, for any number of renderings.

    Raises:
        UserError: the folder holds no model, or one that does not fit its description.
    """
    network, description = load_model(folder)
    sha256 = file_sha256(folder / WEIGHTS)
    return LoadedGenerator(network, description.encoders, sampling, description.modalities, sha256)
