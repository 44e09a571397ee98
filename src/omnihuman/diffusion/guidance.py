"""Classifier-free guidance on text and audio, annealed over the steps (OmniHuman-1, sec. 3.4)."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from omnihuman.batch import Conditions
from omnihuman.conditions.assembly import join_conditions

Velocity = Callable[[Tensor, Tensor, Conditions], Tensor]
"""A model: noisy [B, C, T, h, w], sigma [B] and conditions to velocity."""


def annealed(first: float, last: float, step: int, num_steps: int) -> float:
    """Linear from `first` at step 0 to `last` at the last step."""
    return first + (last - first) * step / max(num_steps - 1, 1)


def guided_velocity(
    model: Velocity, noisy: Tensor, sigma: Tensor, conditions: Conditions, empty_text: Tensor, text: float, audio: float
) -> Tensor:
    """v(none) + s_text (v(text) - v(none)) + s_audio (v(text, audio) - v(text)).

    Reference, motion and pose are in every branch. Branches with weight zero are left out; the others go through the
    model as one batch.

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
    branches, weights = zip(*[(branch, weight) for branch, weight in weighted if weight != 0.0], strict=True)
    repeats = len(branches)
    output = model(torch.cat([noisy] * repeats), torch.cat([sigma] * repeats), join_conditions(branches))
    return torch.einsum("rb...,r->b...", output.unflatten(0, (repeats, -1)), torch.tensor(weights).to(output))


def _without_text(conditions: Conditions, empty_text: Tensor) -> Conditions:
    text = torch.zeros_like(conditions.text)
    mask = torch.zeros_like(conditions.text_mask)
    text[:, : len(empty_text)] = empty_text.to(text)
    mask[:, : len(empty_text)] = True
    return replace(conditions, text=text, text_mask=mask)
