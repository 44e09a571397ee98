"""Noise levels: how they are drawn in training and spaced in sampling."""

import torch
from torch import Tensor

from omnihuman.config.schema.diffusion import Diffusion


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """s sigma / (1 + (s - 1) sigma): moves levels towards noise for s > 1 (SD3, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigma_from_normal(normal: Tensor, config: Diffusion) -> Tensor:
    """Logit-normal noise levels from standard normal draws of any shape, then shifted (SD3, sec. 3.1)."""
    return shifted(torch.sigmoid(config.logit_normal_mean + config.logit_normal_std * normal), config.shift)


def sampling_schedule(num_steps: int, shift: float) -> Tensor:
    """float64 [num_steps + 1], from 1 down to 0."""
    return shifted(torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64), shift)
