"""From videos, one after another, to the figures of all metrics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from omnihuman.evaluation.metrics.checks import check_pair
from omnihuman.evaluation.metrics.measure import Figure, Kept, Metric, Shown

DRIFT = "drift_"
"""How the names of metrics begin that keep a value for each window of a video."""


@dataclass(frozen=True)
class Pair:
    """A video to be measured, and the real one of its item, of one length and size."""

    generated: Shown
    real: Shown | None


@dataclass(frozen=True)
class Scores:
    """What the metrics say of a set."""

    figures: tuple[Figure, ...]
    curves: dict[str, dict[str, list[float]]]
    """By metric and item, the value in each window of a video, where a metric keeps several."""
    people: dict[str, str]
    """Who is shown, by item."""


def score(metrics: Sequence[Metric], pairs: Iterable[Pair], confidence: float, seed: int) -> Scores:
    """The figure of each metric; of every video only what its metrics keep stays in memory.

    Raises:
        UserError: a video is not of its real one's length, size and rate, or a metric refuses it.
    """
    generated: dict[str, list[Kept]] = {metric.name: [] for metric in metrics}
    real: dict[str, list[Kept]] = {metric.name: [] for metric in metrics}
    people = {}
    for pair in pairs:
        if pair.real is not None:
            check_pair(pair.generated, pair.real)
        people[pair.generated.item] = pair.generated.person
        for metric in metrics:
            generated[metric.name] += _kept(metric, pair.generated)
            real[metric.name] += _kept(metric, pair.real)
    figures = [metric.figure(generated[metric.name], real[metric.name], confidence, seed) for metric in metrics]
    curves = {
        metric.name: {kept.item: kept.values.tolist() for kept in generated[metric.name]}
        for metric in metrics
        if metric.name.startswith(DRIFT)
    }
    return Scores(tuple(figures), curves, people)


def _kept(metric: Metric, shown: Shown | None) -> list[Kept]:
    values = None if shown is None else metric.keep(shown)
    return [] if shown is None or values is None else [Kept(shown.item, shown.person, values)]
