"""The straight path of flow matching: sigma = 1 is noise, sigma = 0 is data."""

from torch import Tensor


def noisy_latents(data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_sigma = (1 - sigma) x0 + sigma eps, for data and noise [B, ...] and sigma [B]."""
    level = sigma.reshape(-1, *[1] * (data.dim() - 1)).to(data)
    return (1 - level) * data + level * noise


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """The target v = eps - x0, constant along the path."""
    return noise - data
