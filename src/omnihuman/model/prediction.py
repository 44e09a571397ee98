"""What the network's numbers mean: the velocity itself, or how the clean latent departs from the reference."""

from typing import Protocol

import torch
from torch import Tensor, nn

_MIN_SIGMA = 0.05


class Prediction(Protocol):
    """Between latents and what the network takes and gives. All but sigma [B] are [B, C, T, h, w], T perhaps 1."""

    def scaled(self, clean: Tensor) -> Tensor:
        """Clean latents as the network sees them."""
        ...

    def scaled_noisy(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Noisy latents as the network sees them."""
        ...

    def shown(self, reference: Tensor) -> Tensor:
        """What a frame that is not given shows in the condition channels; `reference` is scaled, 0 where off."""
        ...

    def velocity(self, output: Tensor, noisy: Tensor, sigma: Tensor, reference: Tensor) -> Tensor:
        """The velocity v = eps - x0 from the network's output."""
        ...


class Velocity(nn.Module):
    """The network's output is the velocity, as in every published flow-matching base."""

    def scaled(self, clean: Tensor) -> Tensor:
        """The codec's latents have unit variance already."""
        return clean

    def scaled_noisy(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Unchanged."""
        return noisy

    def shown(self, reference: Tensor) -> Tensor:
        """Zeros, as the base has learned it."""
        return torch.zeros_like(reference)

    def velocity(self, output: Tensor, noisy: Tensor, sigma: Tensor, reference: Tensor) -> Tensor:
        """Unchanged."""
        return output


class Departure(nn.Module):
    """The output is how the clean latent differs from the reference picture, from nothing where there is none.

    Neither noise nor content of many channels passes through a narrow model; the velocity is (x - x0) / sigma.
    """

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.latent_std = nn.Buffer(torch.ones(latent_channels))
        """Standard deviation of the data per latent channel, measured once, before the first stage."""

    def scaled(self, clean: Tensor) -> Tensor:
        """To unit variance per channel."""
        return clean / self._std

    def scaled_noisy(self, noisy: Tensor, sigma: Tensor) -> Tensor:
        """To unit variance per channel at every sigma."""
        level = sigma[:, None, None, None, None]
        return (noisy * torch.rsqrt(((1 - level) * self._std) ** 2 + level**2)).to(noisy.dtype)

    def shown(self, reference: Tensor) -> Tensor:
        """The reference: the frame from which a frame departs."""
        return reference

    def velocity(self, output: Tensor, noisy: Tensor, sigma: Tensor, reference: Tensor) -> Tensor:
        """(x - x0) / sigma; small sigmas are held at 0.05."""
        clean = self._std * (reference + output)
        return ((noisy - clean) / sigma[:, None, None, None, None].clamp(min=_MIN_SIGMA)).to(noisy.dtype)

    @property
    def _std(self) -> Tensor:
        return self.latent_std[:, None, None, None]
