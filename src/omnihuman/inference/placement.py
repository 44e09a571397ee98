"""Where a video is computed. This machine's choice and never a parameter: it changes a result by rounding alone."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from omnihuman.encoders.wan_vae import WanVae
from omnihuman.errors import UserError
from omnihuman.model.memory import compile_blocks
from omnihuman.model.omnihuman import OmniHumanTransformer

DEVICE = "OMNIHUMAN_RENDER_DEVICE"
COMPILE = "OMNIHUMAN_RENDER_COMPILE"
OFFLOAD = "OMNIHUMAN_RENDER_OFFLOAD"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """Of one model and its encoders."""

    device: torch.device | None = None
    """None: the model where it is, its encoders on the processor."""
    compiled: bool = False
    offload: bool = False
    """Weights are on the device while they are used, and wait in the processor's memory; text and sound stay there."""
    _kept: dict[str, OmniHumanTransformer] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def from_environment(cls) -> "Placement":
        """The first GPU if there is one, or what the environment asks for.

        Raises:
            UserError: it asks for a device that is not here, or for neither 0 nor 1.
        """
        named = os.environ.get(DEVICE, "") or ("cuda:0" if torch.cuda.is_available() else "cpu")
        known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        if (name := "cuda:0" if named == "cuda" else named) not in known:
            raise UserError(f"{DEVICE} is {named}: this machine has {', '.join(known)}; set one of these, or nothing")
        return cls(torch.device(name), _switch(COMPILE), _switch(OFFLOAD))

    @property
    def codec_device(self) -> str:
        """Of the video codec while it works."""
        return str(self.device or "cpu")

    @property
    def encoder_device(self) -> str:
        """Of the text's and the sound's encoders."""
        return "cpu" if self.offload else self.codec_device

    @contextmanager
    def denoising(self, model: OmniHumanTransformer, precision: str) -> Iterator[OmniHumanTransformer]:
        """The model on the device, with weights of `sampling.precision`.

        In bfloat16 it is a copy, so that another job may ask for float32 again; sums and norms are as autocast has
        them, the state between the steps stays float32.
        """
        network = self._network(model, precision)
        device = self.device or next(network.parameters()).device
        with torch.inference_mode(False):  # weights that were moved in it could never be trained again
            network.to(device)
        try:
            with torch.autocast(device.type, _DTYPES[precision], enabled=precision != "float32"):
                yield network
        finally:
            if self.offload:
                _to_processor(network)

    def _network(self, model: OmniHumanTransformer, precision: str) -> OmniHumanTransformer:
        if precision not in self._kept:
            self._kept.clear()
            network = model
            if precision != "float32":
                if self.device:
                    _to_processor(model)
                network = _copy(model, _DTYPES[precision])
            if self.compiled:
                compile_blocks(network)
            self._kept[precision] = network
        return self._kept[precision]


class OffloadedVae:
    """A published VAE whose weights are on the device only while it works. A stream's cache stays there."""

    def __init__(self, vae: WanVae, device: str) -> None:
        self.name, self.num_channels = vae.name, vae.num_channels
        self._vae, self._device = vae, device

    def encode(self, video: Tensor) -> Tensor:
        """As `VideoCodec.encode`."""
        with self._working():
            return self._vae.encode(video)

    def decode(self, latents: Tensor) -> Tensor:
        """As `VideoCodec.decode`."""
        with self._working():
            return self._vae.decode(latents)

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `VideoCodec.encode_stream`."""
        return self._one_by_one(self._vae.encode_stream(chunks))

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """As `VideoCodec.decode_stream`."""
        return self._one_by_one(self._vae.decode_stream(latents))

    def _one_by_one(self, stream: Iterator[Tensor]) -> Iterator[Tensor]:
        """Between two parts the caller may denoise, so the weights leave."""
        while True:
            with self._working():
                part = next(stream, None)
            if part is None:
                return
            yield part

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._vae.move(self._device)
        try:
            yield
        finally:
            self._vae.move("cpu")


def _copy(model: OmniHumanTransformer, dtype: torch.dtype) -> OmniHumanTransformer:
    """With other weights of the same values; buffers, which hold measured statistics, keep their type."""
    with torch.inference_mode(False), torch.no_grad():
        with torch.device("meta"):
            copy = OmniHumanTransformer(model.config, model.widths)
        weights = {name: weight.to(dtype) for name, weight in model.named_parameters()}
        copy.load_state_dict({**model.state_dict(), **weights}, assign=True)
        return copy.requires_grad_(False).eval()


def _to_processor(model: OmniHumanTransformer) -> None:
    with torch.inference_mode(False):
        model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _switch(name: str) -> bool:
    value = os.environ.get(name, "") or "0"
    if value not in ("0", "1"):
        raise UserError(f"{name} is {value}: set it to 1 or 0")
    return value == "1"
