"""What an extractor is to the metrics that rest on it, and which frames of a video it sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from omnihuman.errors import UserError
from omnihuman.evaluation.metrics.measure import Extractor, Shown

T = TypeVar("T")
STAND_IN = "_stand_in"
FRAMES = 16
"""Of a video that are looked at one by one, evenly spaced; and, on end, of a clip."""
CLIPS = 4
"""Of a video at most, evenly spaced; they do not overlap."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """A function of a video, and what it is."""

    of: Callable[[Shown], T]
    extractor: Extractor
    suffix: str = ""
    """Of the names of metrics that rest on it: `STAND_IN`, or nothing."""


def evenly(frames: np.ndarray) -> np.ndarray:
    """At most `FRAMES` of [F, ...], evenly spaced."""
    return frames[np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))]


def clips_of(frames: np.ndarray) -> list[np.ndarray]:
    """Clips [16, ...] of [F, ...]; none of a video that is shorter than one."""
    count = min(CLIPS, len(frames) // FRAMES)
    starts = np.linspace(0, len(frames) - FRAMES, count).astype(int) if count else []
    return [frames[start : start + FRAMES] for start in starts]


def require_licence(allowed: bool, option: str, licence: str) -> None:
    """Raises `UserError` for weights that may not be used commercially, where nobody allowed that."""
    if not allowed:
        raise UserError(
            f"{option}: these weights may not be used commercially (licence: {licence}): leave the key empty for the"
            " stand-in, or set evaluate.extractors.allow_non_commercial=true where your use is allowed"
        )
