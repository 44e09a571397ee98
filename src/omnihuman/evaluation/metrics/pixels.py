"""Metrics that need no weights, or whose stand-ins need none: quality, flicker, motion, noise, blocks, consistency."""

from collections.abc import Callable

import numpy as np

from omnihuman.data.scorers.content import ClipContent, Measurement
from omnihuman.data.scorers.movement import measure_motion
from omnihuman.data.scorers.picture import measure_aesthetics, measure_image_quality
from omnihuman.evaluation.extractors.faces import content_of
from omnihuman.evaluation.extractors.part import FRAMES, STAND_IN, evenly
from omnihuman.evaluation.metrics.frames import blockiness, consistency, flicker, noise_levels
from omnihuman.evaluation.metrics.items import ItemMetric
from omnihuman.evaluation.metrics.measure import Extractor, Shown
from omnihuman.evaluation.metrics.parts import Parts

PIXELS = "every frame as it is"
SOME = f"{FRAMES} evenly spaced frames as they are"


def flicker_metric(_: Parts) -> ItemMetric:
    """VBench's temporal flickering; no weights are published for it, because it needs none."""
    extractor = Extractor("pixels: 1 - MAE / 255 of neighbouring frames", PIXELS, calibrated=True)
    return ItemMetric("flicker", flicker, extractor, "higher")


def motion(parts: Parts) -> ItemMetric:
    """Speed of what moves, without the camera."""
    extractor = Extractor("DIS optical flow less a similarity transform", "6 pairs 0.12 s apart, 80 pixels")
    return ItemMetric("motion", by_scorer(parts, measure_motion), extractor, "", "picture diagonals a second")


def noise(_: Parts) -> ItemMetric:
    """Grain of the finest detail."""
    extractor = Extractor("median of the finest diagonal Haar wavelet / 0.6745", SOME)
    return ItemMetric("noise", lambda shown: _mean(noise_levels, shown), extractor, "lower", "grey levels of 255")


def blocks(_: Parts) -> ItemMetric:
    """Edges of blocks of 8 pixels, such as coarse quantisation leaves."""
    extractor = Extractor("steps across a grid of 8 x 8 pixels over other steps", SOME)
    return ItemMetric("blocks", lambda shown: _mean(blockiness, shown), extractor, "lower", "share of the mean step")


def iqa(parts: Parts) -> ItemMetric:
    """Q-Align's quality, or acutance less noise."""
    if part := parts.rater("quality"):
        return ItemMetric("iqa", part.of, part.extractor, "higher", "1 to 5")
    extractor = Extractor("stand-in: acutance lowered by noise, uncalibrated", "5 frames as they are")
    return ItemMetric("iqa" + STAND_IN, by_scorer(parts, measure_image_quality), extractor, "higher")


def ase(parts: Parts) -> ItemMetric:
    """Q-Align's aesthetics, or colourfulness and contrast."""
    if part := parts.rater("aesthetic"):
        return ItemMetric("ase", part.of, part.extractor, "higher", "1 to 5")
    extractor = Extractor("stand-in: colourfulness and contrast, uncalibrated", "5 frames as they are")
    return ItemMetric("ase" + STAND_IN, by_scorer(parts, measure_aesthetics), extractor, "higher")


def subject_consistency(parts: Parts) -> ItemMetric:
    """VBench's, by DINO, or by the grid."""
    part = parts.subjects
    name = "subject_consistency" + part.suffix
    return ItemMetric(name, lambda shown: consistency(part.of(shown)), part.extractor, "higher")


def by_scorer(
    parts: Parts, scorer: Callable[[ClipContent], tuple[Measurement, ...]]
) -> Callable[[Shown], float | None]:
    """The first measurement of a scorer of clips; None where it does not apply."""
    content = parts.once(content_of)

    def measure(shown: Shown) -> float | None:
        found = scorer(content(shown))[0]
        return found.value if found.status == "ok" else None

    return measure


def _mean(function: Callable[[np.ndarray], float], shown: Shown) -> float:
    return float(np.mean([function(frame) for frame in evenly(shown.frames)]))
