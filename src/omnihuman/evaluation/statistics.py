"""Intervals and nulls over clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over clips with its bootstrap interval."""

    value: float
    low: float
    high: float
    num_clips: int
    num_people: int


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two tracks [F]; 0 where one of them does not vary, because it then follows nothing."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 1e-9 else 0.0


def bootstrap_mean(
    values: np.ndarray, groups: Sequence[str], confidence: float, num_resamples: int, seed: int
) -> Estimate:
    """Percentile bootstrap of the mean over clips [n], resampling groups.

    Args:
        values: [n], one per clip.
        groups: [n], who is shown; clips of one person are not independent.
    """
    names = sorted(set(groups))
    if not names:
        return Estimate(float("nan"), float("nan"), float("nan"), 0, 0)
    membership = np.array([[group == name for group in groups] for name in names], dtype=float)
    sums, counts = membership @ values, membership.sum(axis=1)
    drawn = np.random.default_rng(seed).integers(len(names), size=(num_resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(values.mean()), float(low), float(high), len(values), len(names))


def shuffled_null(
    table: np.ndarray, groups: Sequence[str], confidence: float, num_shuffles: int, seed: int
) -> Estimate:
    """Distribution of the mean correlation when every clip is paired with another clip's sound.

    Args:
        table: [n, n], correlation of video i with sound j; the diagonal is never used.
        groups: [n], who is shown.
    """
    count, people = len(table), len(set(groups))
    if count < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), count, people)
    random = np.random.default_rng(seed)
    means = np.empty(num_shuffles)
    for shuffle in range(num_shuffles):
        cycle = random.permutation(count)  # one cycle through all clips is a pairing without fixed points
        means[shuffle] = table[cycle, np.roll(cycle, 1)].mean()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(means.mean()), float(low), float(high), count, people)
