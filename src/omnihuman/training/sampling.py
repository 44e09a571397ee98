"""Which clips a training step draws: a pure function of seed, stage and step."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from omnihuman.config.schema.stage import Mix
from omnihuman.keyed_random import generator

_FITTING_ROUNDS = 200


def draw_weights(audio_eligible: np.ndarray, pose_eligible: np.ndarray, mix: Mix) -> np.ndarray:
    """Probability of each clip such that the shares of draws equal the mix.

    Both shares are met at once by iterative proportional fitting, starting from equal weights; a share whose pool (or
    whose complement) is empty cannot be met and is left out.

    Args:
        audio_eligible, pose_eligible: bool [clips]

    Returns:
        float64 [clips], summing to one.
    """
    weights = np.full(len(audio_eligible), 1.0 / len(audio_eligible))
    wanted = [(audio_eligible, mix.audio_eligible), (pose_eligible, mix.pose_eligible)]
    binding = [(pool, share) for pool, share in wanted if share is not None and pool.any() and not pool.all()]
    for _ in range(_FITTING_ROUNDS):
        for pool, share in binding:
            inside, outside = weights[pool].sum(), weights[~pool].sum()
            if inside > 0 and outside > 0:  # a share of 0 or 1 empties one side for good
                weights = np.where(pool, weights * share / inside, weights * (1 - share) / outside)
    return weights / weights.sum()


@dataclass(frozen=True)
class Draw:
    """One sample of one step."""

    row: int  # of the sample table
    index: int  # global sample index, the key of all its random numbers


class SampleOrder:
    """Batches of clips of one size, drawn by weight."""

    def __init__(self, samples: pd.DataFrame, mix: Mix, batch_size: int, seed: int, stage: str) -> None:
        weights = draw_weights(samples["audio_eligible"].to_numpy(bool), samples["pose_eligible"].to_numpy(bool), mix)
        sizes = list(zip(samples["width"], samples["height"], strict=True))
        self._key = (seed, stage)
        self._batch_size = batch_size
        self._pools: list[tuple[np.ndarray, np.ndarray]] = []
        for size in sorted(set(sizes)):
            rows = np.array([row for row, other in enumerate(sizes) if other == size])
            self._pools.append((rows, weights[rows]))

    def batch(self, step: int) -> list[Draw]:
        """The samples of a step: first a size by its weight, then clips of that size by theirs."""
        random = generator(*self._key, step, "draw")
        totals = np.array([weights.sum() for _, weights in self._pools])
        rows, weights = self._pools[random.choice(len(totals), p=totals / totals.sum())]
        chosen = random.choice(rows, size=self._batch_size, p=weights / weights.sum())
        return [Draw(int(row), step * self._batch_size + place) for place, row in enumerate(chosen)]
