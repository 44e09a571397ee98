"""Classifier-free guidance on text and audio, annealed over the steps (OmniHuman-1, sec. 3.4)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from omnihuman.batch import Conditions
from omnihuman.conditions.assembly import join_conditions
from omnihuman.config.schema.evaluate import Sampling

Velocity = Callable[[Tensor, Tensor, Conditions], Tensor]
"""A model: noisy [B, C, T, h, w], sigma [B] and conditions to velocity."""


_FALLS: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 0.0,
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}
"""From the share of the annealing that is past to the share of the way down, by `sampling.guidance_annealing`."""


def scales(sampling: Sampling, step: int) -> tuple[float, float]:
    """Those of text and audio at a step of the solver; they never increase (`config.checks` sees to it)."""
    annealing_steps = sampling.guidance_annealing_steps or sampling.num_steps
    fallen = _FALLS[sampling.guidance_annealing](min(step / max(annealing_steps - 1, 1), 1.0))
    text, audio = (
        first + (sampling.guidance_end - first) * fallen for first in (sampling.guidance_text, sampling.guidance_audio)
    )
    text_is_over = 0 < sampling.guidance_text_steps <= step
    return (1.0 if text_is_over else text), audio


def branches(conditions: Conditions, empty_text: Tensor, text: float, audio: float) -> list[tuple[Conditions, float]]:
    """What the model is asked, and the weight of each answer; without branches of weight zero. Weights add up to one.

    Args:
        empty_text: [L0, text width], the embedding of the empty prompt.
        text, audio: the two scales.
    """
    audio_off = replace(conditions, audio_on=torch.zeros_like(conditions.audio_on))
    without_text = _without_text(audio_off, empty_text)
    if bool(conditions.audio_on.any()):
        weighted = [(conditions, audio), (audio_off, text - audio), (without_text, 1.0 - text)]
    else:
        weighted = [(conditions, text), (without_text, 1.0 - text)]
    return [(branch, weight) for branch, weight in weighted if weight != 0.0]


def guided_velocity(
    model: Velocity, noisy: Tensor, sigma: Tensor, asked: Sequence[tuple[Conditions, float]], batched: bool = True
) -> Tensor:
    """v(none) + s_text (v(text) - v(none)) + s_audio (v(text, audio) - v(text)).

    Reference, motion and pose are in every branch. Equal scales are one joint scale: v(none) + s (v(text, audio) -
    v(none)); the branch between has weight zero then. Scales of one are no guidance: one forward.

    Args:
        asked: of `branches`.
        batched: all branches as one batch; otherwise one after another, in the memory of one.
    """
    if batched:
        repeats = len(asked)
        given, weights = zip(*asked, strict=True)
        output = model(torch.cat([noisy] * repeats), torch.cat([sigma] * repeats), join_conditions(given))
        # A product of matrices would be taken in bfloat16 where the network computes in it.
        parts = zip(output.float().chunk(repeats), weights, strict=True)
        return sum((weight * part for part, weight in parts), torch.zeros_like(noisy))
    guided = torch.zeros_like(noisy)
    for branch, weight in asked:
        guided += weight * model(noisy, sigma, branch)
    return guided


def _without_text(conditions: Conditions, empty_text: Tensor) -> Conditions:
    text = torch.zeros_like(conditions.text)
    mask = torch.zeros_like(conditions.text_mask)
    text[:, : len(empty_text)] = empty_text.to(text)
    mask[:, : len(empty_text)] = True
    return replace(conditions, text=text, text_mask=mask)
