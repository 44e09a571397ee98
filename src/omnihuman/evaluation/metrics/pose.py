"""The metrics of hands and pose, by DWPose where its weights are named, else by hands found in drawn people."""

from collections.abc import Callable

from omnihuman.evaluation.metrics import keypoints
from omnihuman.evaluation.metrics.items import ItemMetric
from omnihuman.evaluation.metrics.keypoints import Found
from omnihuman.evaluation.metrics.measure import Extractor, Shown
from omnihuman.evaluation.metrics.parts import Parts

RULE = f"confident from {keypoints.CONFIDENT} on; pixels at a height of {keypoints.HEIGHT}"


def hkc(parts: Parts) -> ItemMetric:
    """Mean confidence of hand keypoints."""
    return _of_found("hkc", lambda found, _: keypoints.hand_confidence(found), "higher", "0 to 1", parts)


def hkv(parts: Parts) -> ItemMetric:
    """Variance of hand keypoints in pixels."""
    return _of_found("hkv", lambda found, shown: keypoints.hand_variance(found, *_size(shown)), "", "pixels^2", parts)


def hkv_in_shoulders(parts: Parts) -> ItemMetric:
    """The same in shoulder widths."""
    measure = keypoints.hand_variance_in_shoulders
    unit = "shoulder widths^2"
    return _of_found("hkv_in_shoulders", lambda found, shown: measure(found, *_size(shown)), "", unit, parts)


def akd(parts: Parts) -> ItemMetric:
    """Mean distance to the driving pose."""

    def measure(found: Found, shown: Shown) -> float | None:
        if shown.driving is None:
            return None
        return keypoints.keypoint_distance(found, shown.driving, *_size(shown))

    return _of_found("akd", measure, "lower", "pixels", parts)


def _of_found(
    name: str, function: Callable[[Found, Shown], float | None], better: str, unit: str, parts: Parts
) -> ItemMetric:
    part = parts.keypoints
    told = part.extractor
    extractor = Extractor(told.name, f"{told.preprocessing}; {RULE}", told.sha256, told.calibrated)

    def measure(shown: Shown) -> float | None:
        found = part.of(shown)
        return None if found is None else function(found, shown)

    return ItemMetric(name + part.suffix, measure, extractor, better, unit)


def _size(shown: Shown) -> tuple[int, int]:
    height, width = shown.frames.shape[1:3]
    return height, width
