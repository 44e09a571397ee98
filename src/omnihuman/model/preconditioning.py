"""Scaling between what the network sees and says and the flow's velocity.

With x = (1 - sigma) x0 + sigma eps and data of standard deviation s per channel, the best linear guess of v = eps - x0
is known in closed form. The network adds only what that guess cannot know, at unit variance in and out (after EDM,
sec. 5, carried over to the straight path). A channel that carries little, such as a high frequency, then costs the
network nothing, which is what lets a narrow model learn many channels.

    D = (1 - sigma)^2 s^2 + sigma^2
    input  = x / sqrt(D)
    v      = (sigma - (1 - sigma) s^2) / D x  -  s / sqrt(D) F
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Preconditioning:
    """The three factors, each [B, C, 1, 1, 1]."""

    input: Tensor
    skip: Tensor
    output: Tensor


def preconditioning(sigma: Tensor, std: Tensor) -> Preconditioning:
    """Factors for noise levels [B] and the data's standard deviation per channel [C]."""
    level = sigma[:, None].float()
    variance = std[None].float() ** 2
    total = (1 - level) ** 2 * variance + level**2
    factors = (torch.rsqrt(total), (level - (1 - level) * variance) / total, -std[None] * torch.rsqrt(total))
    return Preconditioning(*(factor[..., None, None, None] for factor in factors))
