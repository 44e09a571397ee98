"""Which clips a training step draws: a pure function of seed, stage and step, whatever the ranks, workers and resumes.

Setting up costs time and memory in the number of clips; a step only a binary search for each draw.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from omnihuman.config.schema.stage import Mix, Phase, Stage
from omnihuman.data.manifest import rows_within
from omnihuman.encoders.video_codec import num_latent_frames
from omnihuman.errors import UserError
from omnihuman.keyed_random import generator, uniform

_FITTING_ROUNDS = 200


def draw_weights(audio_eligible: np.ndarray, pose_eligible: np.ndarray, mix: Mix) -> np.ndarray:
    """Probability of each clip such that the shares of draws equal the mix.

    Both shares are met at once by iterative proportional fitting, starting from equal weights; a share whose pool (or
    whose complement) is empty cannot be met and is left out. Clips that are eligible for the same have one weight.

    Args:
        audio_eligible, pose_eligible: bool [clips]

    Returns:
        float64 [clips], summing to one.
    """
    kind = 2 * audio_eligible.astype(np.int8) + pose_eligible.astype(np.int8)
    counts = np.bincount(kind, minlength=4)
    totals = counts / counts.sum()
    wanted = [(np.array([0, 0, 1, 1], bool), mix.audio_eligible), (np.array([0, 1, 0, 1], bool), mix.pose_eligible)]
    binding = [
        (pool, share) for pool, share in wanted if share is not None and counts[pool].any() and counts[~pool].any()
    ]
    if not binding:
        return np.full(len(kind), 1.0 / len(kind))
    for _ in range(_FITTING_ROUNDS):
        for pool, share in binding:
            inside, outside = totals[pool].sum(), totals[~pool].sum()
            if inside > 0 and outside > 0:  # a share of 0 or 1 empties one side for good
                totals = np.where(pool, totals * share / inside, totals * (1 - share) / outside)
    return (totals / totals.sum() / np.maximum(counts, 1))[kind]


@dataclass(frozen=True)
class Draw:
    """One sample of one step."""

    row: int  # of the sample table
    index: int  # global sample index, the key of all its random numbers
    text_only: bool = False
    num_latents: int | None = None  # to which the window is cut; 1: a single picture; None: it stays whole

    @property
    def is_picture(self) -> bool:
        """Whether it is a single frame, which has no motion frames, sound or pose."""
        return self.num_latents == 1


class _Pool:
    """Clips that are drawn by weight."""

    def __init__(self, rows: np.ndarray, weights: np.ndarray) -> None:
        self.rows, self._ends = rows, _ends(weights)

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Rows [count] of the sample table, with replacement."""
        return self.rows[self._ends.searchsorted(random.random(count), side="right")]


def _ends(weights: np.ndarray) -> np.ndarray:
    """Where each one's part of [0, 1) ends: what `Generator.choice` computes anew for each draw."""
    ends = np.cumsum(weights / weights.sum())
    return ends / ends[-1]


class _PhaseDraws:
    """The clips of one phase, each at one of its sizes, in pools, of one size each or of all sizes."""

    def __init__(self, samples: pd.DataFrame, stage: Stage, phase: Phase, where: str) -> None:
        rows = rows_within(samples, phase.area_pixels)
        if not len(rows):
            raise UserError(
                f"{where}.area_pixels is {phase.area_pixels}: no clip is encoded so small, the smallest at"
                f" {samples['area_pixels'].min()}; raise it, or add to encode.resolutions and run `dvc repro encode`"
            )
        width, height = samples["width"].to_numpy(np.int64), samples["height"].to_numpy(np.int64)
        audio, pose = (samples[name].to_numpy(bool)[rows] for name in ("audio_eligible", "pose_eligible"))
        weights, text_only = draw_weights(audio, pose, stage.mix), stage.data.text_only_fraction
        combined = weights if not text_only else (1 - text_only) * weights + text_only / len(rows)
        self.probabilities = np.zeros(len(samples))
        """Of each row; in a phase one row of a clip is drawn, or none where all are too large."""
        self.probabilities[rows] = combined
        self.num_latents = num_latent_frames(phase.num_frames) if phase.num_frames else None
        self._text_only_weight = text_only / len(rows)
        if stage.batching.sizes == "native":
            self._pools = [_Pool(rows, combined)]
            self._sizes = np.ones(1)
            return
        of_size = (width << 32 | height)[rows]
        order = np.argsort(of_size, kind="stable")
        begins = np.flatnonzero(np.diff(of_size[order], prepend=-1))
        groups = [group for group in np.split(order, begins[1:]) if combined[group].any()]
        self._pools = [_Pool(rows[group], combined[group]) for group in groups]
        self._sizes = _ends(np.array([combined[group].sum() for group in groups]))

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Rows [count]: first a size by its weight, where there are several pools, then clips by theirs."""
        pool = self._pools[int(self._sizes.searchsorted(random.random(), side="right"))]
        return pool.draw(random, count)

    def text_only_share(self, row: int) -> float:
        """Share of the draws of a row that train text alone, such that those come from all clips alike."""
        return self._text_only_weight / self.probabilities[row]


class SampleOrder:
    """The draws of every step of a stage.

    Args:
        samples: columns `area_pixels`, `larger_area_pixels`, `width`, `height`, `audio_eligible` and `pose_eligible`,
            as in samples.parquet.
        batch_size: draws of a step, over all ranks.
        name: of the stage.

    Raises:
        UserError: a phase has no clip.
    """

    def __init__(self, samples: pd.DataFrame, stage: Stage, batch_size: int, seed: int, name: str) -> None:
        self.batch_size = batch_size
        self._key, self._stage = (seed, name), stage
        phases = stage.phases or {"whole": Phase()}
        self._draws = [
            _PhaseDraws(samples, stage, phase, f"stages.{name}.phases.{key}") for key, phase in phases.items()
        ]
        shares = np.cumsum([phase.share for phase in phases.values()])
        self._ends = np.round(shares / shares[-1] * stage.steps).astype(int)
        """Step at which each phase ends."""

    def phase(self, step: int) -> int:
        """Number of the phase that a step lies in; the last one goes on for ever."""
        return int(min(np.searchsorted(self._ends, step, side="right"), len(self._ends) - 1))

    def batch(self, step: int) -> list[Draw]:
        """The samples of a step, for all ranks together."""
        draws = self._draws[self.phase(step)]
        rows = draws.draw(generator(*self._key, step, "draw"), self.batch_size)
        first = step * self.batch_size
        return [self._sample(int(row), first + place, draws) for place, row in enumerate(rows)]

    def expected_draws(self) -> np.ndarray:
        """float64 [rows]: how often each row is drawn over the whole stage."""
        steps = np.diff(self._ends, prepend=0)
        parts = zip(steps, self._draws, strict=True)
        return self.batch_size * sum(count * draws.probabilities for count, draws in parts)  # pyright: ignore

    def _sample(self, row: int, index: int, draws: _PhaseDraws) -> Draw:
        data = self._stage.data
        text_only = data.text_only_fraction > 0 and uniform(*self._key, index, "text_only") < draws.text_only_share(row)
        picture = data.pictures_share > 0 and uniform(*self._key, index, "picture") < data.pictures_share
        return Draw(row, index, text_only, 1 if picture else draws.num_latents)
