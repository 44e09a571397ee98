"""Metrics that give each video a number of its own; the figure is their mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omnihuman.evaluation.metrics.checks import check_kept, check_shown
from omnihuman.evaluation.metrics.measure import Extractor, Figure, Kept, Shown
from omnihuman.evaluation.statistics import Estimate, bootstrap_mean

NUM_RESAMPLES = 2000


def first(values: np.ndarray) -> float:
    """The one number that was kept."""
    return float(values[0])


@dataclass(frozen=True)
class ItemMetric:
    """The mean over videos, with a bootstrap over people.

    It has no floor: what real videos reach, by the same instrument, stands in the note.
    """

    name: str
    measure: Callable[[Shown], np.ndarray | float | None]
    """What is kept: a number, or several that `reduce` makes one of; None where the metric does not apply."""
    extractor: Extractor
    better: str
    unit: str = ""
    reduce: Callable[[np.ndarray], float] = first
    min_videos: int = 2

    def keep(self, shown: Shown) -> np.ndarray | None:
        """See `Metric.keep`; errors as for `check_shown`."""
        check_shown(shown)
        found = self.measure(shown)
        return None if found is None else np.atleast_1d(np.asarray(found, np.float64))

    def figure(self, generated: Sequence[Kept], real: Sequence[Kept], confidence: float, seed: int) -> Figure:
        """See `Metric.figure`; errors as for `check_kept`."""
        check_kept(self.name, generated)
        check_kept(self.name, real)
        items = {kept.item: self.reduce(kept.values) for kept in generated}
        of_real = [self.reduce(kept.values) for kept in real]
        notes = [f"real videos: {np.mean(of_real):.4g} (n = {len(of_real)})"] if of_real else []
        people = [kept.person for kept in generated]
        estimate = bootstrap_mean(np.array(list(items.values())), people, confidence, NUM_RESAMPLES, seed)
        if len(items) < self.min_videos:
            estimate = unknown(generated)
            notes = [too_few(self.min_videos, len(items)), *notes]
        return Figure(self.name, estimate, self.extractor, self.better, self.unit, note="; ".join(notes), items=items)


def unknown(kept: Sequence[Kept]) -> Estimate:
    """No figure of a set from which none can be made."""
    nothing = float("nan")
    return Estimate(nothing, nothing, nothing, len(kept), len({each.person for each in kept}))


def too_few(needed: int, found: int, which: str = "videos") -> str:
    """Why there is no figure."""
    return f"needs {needed} {which} on which it can be measured, there are {found}"
