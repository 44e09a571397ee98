"""Metrics that compare the features of a generated set with those of a real one: FID, FVD, KVD."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import numpy as np

from omnihuman.evaluation.metrics.checks import check_kept, check_shown
from omnihuman.evaluation.metrics.frechet import frechet_of_features
from omnihuman.evaluation.metrics.items import too_few, unknown
from omnihuman.evaluation.metrics.kernel import weighted_polynomial_mmd
from omnihuman.evaluation.metrics.measure import Extractor, Figure, Kept, Shown
from omnihuman.evaluation.statistics import Estimate

Weighted = Callable[[np.ndarray, np.ndarray], float]
"""A distance of two sets as a function of how often each of their rows counts."""
MOST_RESAMPLES, FEWEST_RESAMPLES = 200, 20
OPERATIONS = 2e11
"""That all resamples together may take: a singular value decomposition grows with the third power of its side."""
NUM_SPLITS = 4
"""Of the real set into halves, for the floor."""


def weighted_frechet(a: np.ndarray, b: np.ndarray) -> Weighted:
    """The Frechet distance of features [n, d] and [m, d]."""
    return partial(frechet_of_features, a, b)


DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], Weighted]] = {
    "frechet": weighted_frechet,
    "polynomial_mmd": weighted_polynomial_mmd,
}


@dataclass(frozen=True)
class SetMetric:
    """A distance between sets of features, of which every video gives some rows."""

    name: str
    embed: Callable[[Shown], np.ndarray | None]  # [n, d] of one video; None where it is too short
    extractor: Extractor
    distance: str  # a key of `DISTANCES`
    min_videos: int = 10
    better: str = "lower"
    unit: str = ""

    def keep(self, shown: Shown) -> np.ndarray | None:
        """See `Metric.keep`: float32 [n, d]; errors as for `check_shown`."""
        check_shown(shown)
        found = self.embed(shown)
        return None if found is None else found.astype(np.float32)

    def figure(self, generated: Sequence[Kept], real: Sequence[Kept], confidence: float, seed: int) -> Figure:
        """See `Metric.figure`.

        The interval is normal, from resamples of people in both sets at once. Resampled people count several times,
        which by itself lengthens a Frechet distance: the resamples' spread is used, and not where they lie.

        Raises:
            UserError: see `check_kept`.
        """
        check_kept(self.name, generated, real)
        fewest = min(len(generated), len(real))
        if fewest < self.min_videos:
            which = "generated" if len(generated) == fewest else "real"
            note = too_few(self.min_videos, fewest, f"{which} videos")
            return Figure(self.name, unknown(generated), self.extractor, self.better, self.unit, note=note)
        rows, rows_real = _rows(generated), _rows(real)
        weighted = DISTANCES[self.distance](rows, rows_real)
        value = weighted(np.ones(len(rows)), np.ones(len(rows_real)))
        random = np.random.default_rng(seed)
        spread = np.std(_resamples(weighted, _people(generated), _people(real), rows.shape[1], random), ddof=1)
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * float(spread)
        people = len({kept.person for kept in generated})
        low = value - reach if self.distance != "frechet" else max(0.0, value - reach)
        return Figure(
            self.name,
            Estimate(value, low, value + reach, len(generated), people),
            self.extractor,
            self.better,
            self.unit,
            floor=self._floor(real, random),
            note=_few_rows(len(rows), len(rows_real), rows.shape[1]) if self.distance == "frechet" else "",
        )

    def _floor(self, real: Sequence[Kept], random: np.random.Generator) -> float | None:
        """Mean distance between halves of the real set that share nobody; None with fewer than four people."""
        names = sorted({kept.person for kept in real})
        if len(names) < 4:
            return None
        found = []
        for _ in range(NUM_SPLITS):
            half = set(random.permutation(names)[: len(names) // 2])
            a = _rows([kept for kept in real if kept.person in half])
            b = _rows([kept for kept in real if kept.person not in half])
            found.append(DISTANCES[self.distance](a, b)(np.ones(len(a)), np.ones(len(b))))
        return float(np.mean(found))


def _rows(kept: Sequence[Kept]) -> np.ndarray:
    return np.concatenate([each.values for each in kept])


def _people(kept: Sequence[Kept]) -> np.ndarray:
    """Who each row shows, [n]."""
    return np.repeat([each.person for each in kept], [len(each.values) for each in kept])


def _resamples(
    weighted: Weighted, people: np.ndarray, people_real: np.ndarray, width: int, random: np.random.Generator
) -> list[float]:
    """Distances where people are drawn anew; whoever is in both sets counts equally often in both."""
    names, place = np.unique(np.concatenate([people, people_real]), return_inverse=True)
    here, there = place[: len(people)], place[len(people) :]
    count = int(np.clip(OPERATIONS / min(len(here), len(there), width) ** 3, FEWEST_RESAMPLES, MOST_RESAMPLES))
    found: list[float] = []
    while len(found) < count:
        drawn = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names)).astype(float)
        if min(np.count_nonzero(drawn[here]), np.count_nonzero(drawn[there])) >= 2:
            found.append(weighted(drawn[here], drawn[there]))
    return found


def _few_rows(count: int, count_real: int, width: int) -> str:
    """What a reader has to know of a covariance that was estimated from few rows."""
    if min(count, count_real) > width:
        return ""
    return (
        f"covariances of {width} numbers from {count} and {count_real} rows, {width + 1} would give full rank: sets of"
        " one distribution are then far apart, so compare with the floor, and with sets of this size alone"
    )
