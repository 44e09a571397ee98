"""Intervals and nulls over clips."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over clips with its bootstrap interval."""

    value: float
    low: float
    high: float
    num_clips: int


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson correlation of two tracks [F]; 0 where one of them does not vary, because it then follows nothing."""
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 1e-9 else 0.0


def bootstrap_mean(values: np.ndarray, confidence: float, num_resamples: int, seed: int) -> Estimate:
    """Percentile bootstrap of the mean over clips [n]."""
    if len(values) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    random = np.random.default_rng(seed)
    means = values[random.integers(len(values), size=(num_resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def shuffled_null(table: np.ndarray, confidence: float, num_shuffles: int, seed: int) -> Estimate:
    """Distribution of the mean correlation when every clip is paired with another clip's sound.

    Args:
        table: [n, n], correlation of video i with sound j; the diagonal is never used.
    """
    count = len(table)
    if count < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), count)
    random = np.random.default_rng(seed)
    means = np.empty(num_shuffles)
    for shuffle in range(num_shuffles):
        cycle = random.permutation(count)  # one cycle through all clips is a pairing without fixed points
        means[shuffle] = table[cycle, np.roll(cycle, 1)].mean()
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(float(means.mean()), float(low), float(high), count)
