"""From videos, one after another, to the figures of all metrics."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from omnihuman.evaluation.metrics.measure import Figure, Kept, Metric, Shown
from omnihuman.evaluation.video_sets import Pair

WINDOW_SECONDS = 3.0
DRIFT = "drift_"
"""How the names of metrics begin that keep a value for each window of a video."""


@dataclass(frozen=True)
class Scores:
    """What the metrics say of a set."""

    figures: tuple[Figure, ...]
    curves: dict[str, dict[str, list[float]]]
    """By metric and item, the value in each window of a video, where a metric keeps several."""


def score(metrics: Sequence[Metric], pairs: Iterable[Pair], confidence: float, seed: int) -> Scores:
    """The figure of each metric; of every video only what its metrics keep stays in memory."""
    generated: dict[str, list[Kept]] = {metric.name: [] for metric in metrics}
    real: dict[str, list[Kept]] = {metric.name: [] for metric in metrics}
    for pair in pairs:
        for metric in metrics:
            generated[metric.name] += _kept(metric, pair.generated)
            real[metric.name] += _kept(metric, pair.real)
    figures = [metric.figure(generated[metric.name], real[metric.name], confidence, seed) for metric in metrics]
    curves = {
        metric.name: {kept.item: kept.values.tolist() for kept in generated[metric.name]}
        for metric in metrics
        if metric.name.startswith(DRIFT)
    }
    return Scores(tuple(figures), curves)


def _kept(metric: Metric, shown: Shown | None) -> list[Kept]:
    values = None if shown is None else metric.keep(shown)
    return [] if shown is None or values is None else [Kept(shown.item, shown.person, values)]
