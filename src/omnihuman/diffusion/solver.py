"""Solving the flow dx / dsigma = v from noise to data."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

StepVelocity = Callable[[Tensor, Tensor, int], Tensor]
"""Noisy latents, sigma [B] and the step's number to velocity."""
Solver = Callable[[StepVelocity, Tensor, Tensor], Tensor]
"""Velocity, the state [B, ...] at the schedule's first level, and the schedule, float64 [num_steps + 1] descending, to
the state at its last level."""


def euler(velocity: StepVelocity, noise: Tensor, schedule: Tensor) -> Tensor:
    """First order; one evaluation a step."""
    x = noise
    for step, (sigma, following) in enumerate(_steps(schedule)):
        x = x + (following - sigma) * velocity(x, _level(x, sigma), step)
    return x


def heun(velocity: StepVelocity, noise: Tensor, schedule: Tensor) -> Tensor:
    """Second order by the trapezoidal rule (EDM, arXiv 2206.00364, algorithm 1): two evaluations a step.

    The last step is Euler's, as there: at sigma 0 no model was trained. One such step does not lower the order. Both
    evaluations have the step's number, so that guidance is the same within a step.
    """
    x = noise
    for step, (sigma, following) in enumerate(_steps(schedule)):
        slope = velocity(x, _level(x, sigma), step)
        if following > 0:
            ahead = x + (following - sigma) * slope
            slope = (slope + velocity(ahead, _level(x, following), step)) / 2
        x = x + (following - sigma) * slope
    return x


def adams_bashforth(velocity: StepVelocity, noise: Tensor, schedule: Tensor) -> Tensor:
    """Second order by the velocity of the step before; one evaluation a step.

    The two-step Adams-Bashforth rule for steps of unequal length (Hairer, Norsett, Wanner: Solving Ordinary
    Differential Equations I, section III.5). The first step is Euler's.
    """
    x, earlier, length = noise, None, 0.0
    for step, (sigma, following) in enumerate(_steps(schedule)):
        slope = velocity(x, _level(x, sigma), step)
        change = 0.0 if earlier is None else (slope - earlier) * ((following - sigma) / length / 2)
        x = x + (following - sigma) * (slope + change)
        earlier, length = slope, following - sigma
    return x


SOLVERS: dict[str, Solver] = {"euler": euler, "heun": heun, "adams_bashforth": adams_bashforth}
"""By the names of `sampling.solver`."""


def _steps(schedule: Tensor) -> Iterator[tuple[float, float]]:
    """From one level to the next."""
    return pairwise(schedule.tolist())


def _level(x: Tensor, sigma: float) -> Tensor:
    return torch.full((len(x),), sigma, dtype=x.dtype, device=x.device)
