"""Identity against the reference, and how a video changes while it lasts: slopes of measures of its windows."""

from collections.abc import Callable
from functools import partial

import numpy as np

from omnihuman.evaluation import drift
from omnihuman.evaluation.extractors.faces import FOUND_BY, face_of
from omnihuman.evaluation.extractors.part import STAND_IN, evenly
from omnihuman.evaluation.metrics.items import ItemMetric
from omnihuman.evaluation.metrics.measure import Extractor, Shown
from omnihuman.evaluation.metrics.parts import Parts

FEWEST_WINDOWS = 3
"""Of a line with a slope that means something."""
Windows = Callable[[Shown], list[dict[str, float]] | None]
UNITS = {"colour": "levels of 255 a minute", "noise": "levels of 255 a minute"}
BETTER = {"identity": "higher", "colour": "lower", "sharpness": "", "noise": "lower"}
BRIGHTNESS = "stand-in: correlation of the face's brightness with the reference's, uncalibrated"


def identity(parts: Parts) -> ItemMetric:
    """Likeness to the reference picture: ArcFace's cosine, or the correlation of brightness."""
    if part := parts.faces:
        return ItemMetric("identity", part.of, part.extractor, "higher", "cosine")
    extractor = Extractor(BRIGHTNESS, f"face by {FOUND_BY}, at the reference's place")
    return ItemMetric("identity" + STAND_IN, _likeness, extractor, "higher")


def drift_of(measure: str, parts: Parts) -> ItemMetric:
    """Slope a minute of one of `drift.MEASURES` over windows of 3 s; what is kept are the windows, for curves."""
    windows = f"windows of {drift.WINDOW_SECONDS:g} s, slope a minute by least squares; face by {FOUND_BY}"
    stand_in = measure == "identity"
    return ItemMetric(
        f"drift_{measure}" + (STAND_IN if stand_in else ""),
        partial(_of_windows, parts.once(_windows), measure),
        Extractor(BRIGHTNESS if stand_in else drift.MEASURES[measure], windows),
        BETTER[measure],
        UNITS.get(measure, "a minute"),
        drift.slope_a_minute,
    )


def _likeness(shown: Shown) -> float | None:
    face = None if shown.reference is None else face_of(shown)
    if face is None or shown.reference is None:
        return None
    return drift.likeness(_unit(evenly(shown.frames)), _unit(shown.reference), face)


def _of_windows(windows: Windows, measure: str, shown: Shown) -> np.ndarray | None:
    found = windows(shown)
    return None if found is None or measure not in found[0] else np.array([window[measure] for window in found])


def _windows(shown: Shown) -> list[dict[str, float]] | None:
    size = round(drift.WINDOW_SECONDS * shown.fps)
    if shown.reference is None or len(shown.frames) < FEWEST_WINDOWS * size:
        return None
    reference, face = _unit(shown.reference), face_of(shown)
    starts = range(0, len(shown.frames) - size + 1, size)
    return [drift.measure_window(_unit(shown.frames[start : start + size]), reference, face) for start in starts]


def _unit(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255
