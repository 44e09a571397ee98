"""Noise levels: how they are drawn in training and spaced in sampling."""

import math

import torch
from torch import Tensor

from omnihuman.config.schema.diffusion import Diffusion

_FEW_TOKENS, _FEW_SHIFT = 256, 0.5
_MANY_TOKENS, _MANY_SHIFT = 4096, 1.15


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """s sigma / (1 + (s - 1) sigma): moves levels towards noise for s > 1 (SD3, eq. 23)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigma_from_normal(normal: Tensor, config: Diffusion) -> Tensor:
    """Logit-normal noise levels from standard normal draws of any shape, then shifted (SD3, sec. 3.1)."""
    return shifted(torch.sigmoid(config.logit_normal_mean + config.logit_normal_std * normal), config.shift)


def sampling_schedule(num_steps: int, shift: float) -> Tensor:
    """float64 [num_steps + 1], from 1 down to 0."""
    return shifted(torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64), shift)


def shift_by_tokens(num_tokens: int) -> float:
    """s = e^mu, mu linear in the tokens of a picture: 256 have 0.5, 4096 have 1.15 (FLUX's reading of SD3, sec. 5.3.2).

    More pixels need more noise before what they show is lost. The line ends at 4096, up to where it was fitted: at the
    36,864 tokens of a picture of 4096 x 2304 it would give 810, and the last of 16 steps would begin at sigma 0.98.

    Args:
        num_tokens: of one latent frame. Counting a whole segment's would leave the line with the first second.
    """
    slope = (_MANY_SHIFT - _FEW_SHIFT) / (_MANY_TOKENS - _FEW_TOKENS)
    return math.exp(_FEW_SHIFT + slope * (min(num_tokens, _MANY_TOKENS) - _FEW_TOKENS))
