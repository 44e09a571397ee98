"""Solving the flow from noise to data."""

from collections.abc import Callable

import torch
from torch import Tensor

StepVelocity = Callable[[Tensor, Tensor, int], Tensor]
"""Noisy latents, sigma [B] and the step's number to velocity."""


def euler(velocity: StepVelocity, noise: Tensor, schedule: Tensor) -> Tensor:
    """First-order solution of dx / dsigma = v along `schedule`.

    Args:
        noise: [B, ...], the state at schedule[0].
        schedule: float64 [num_steps + 1], descending.

    Returns:
        The state at schedule[-1].
    """
    x = noise
    for step, (sigma, following) in enumerate(zip(schedule[:-1].tolist(), schedule[1:].tolist(), strict=True)):
        level = torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)
        x = x + (following - sigma) * velocity(x, level, step)
    return x
