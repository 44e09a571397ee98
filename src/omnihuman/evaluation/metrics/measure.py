"""What every metric takes and gives: of each video a few numbers are kept, and those of a set become a figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from omnihuman.evaluation.statistics import Estimate

SAMPLE_RATE = 16000
"""Of every sound that a metric hears."""


@dataclass(frozen=True)
class Shown:
    """One video as a metric sees it, a generated or a real one."""

    item: str
    """Which picture, sound and pose of the protocol; the same in a generated set and in its real one."""
    person: str
    """Who is shown: videos of one person are not independent."""
    fps: float
    frames: np.ndarray  # uint8 [F, H, W, 3]
    sound: np.ndarray | None = None  # float32 [samples] at SAMPLE_RATE; None where nothing is heard
    reference: np.ndarray | None = None  # uint8 [H, W, 3], the person's picture, of the video's size
    driving: np.ndarray | None = None  # float32 [F, K, 3], the pose that drives: shares of width, of height, confidence
    reference_points: np.ndarray | None = (
        None  # float32 [K, 3], keypoints of the reference picture, where they are known
    )


@dataclass(frozen=True)
class Extractor:
    """What turned pictures or sound into numbers."""

    name: str
    preprocessing: str
    sha256: str = ""
    """Of its weights; empty where it has none."""
    calibrated: bool = False
    """Whether it is the published one. A figure of any other never stands beside a published value."""


@dataclass(frozen=True)
class Figure:
    """One metric of one set of videos."""

    metric: str
    estimate: Estimate  # value NaN where the set is too small or nothing could be seen; `note` then says why
    extractor: Extractor
    better: str  # "higher", "lower", or "" where neither is
    unit: str = ""
    floor: float | None = None
    """The same metric of one half of the real videos against the other half; None where it has none."""
    note: str = ""
    items: dict[str, float] | None = None
    """The value of each video, where it has one of its own: what paired comparisons use."""


class Metric(Protocol):
    """One metric; its object holds its extractor and nothing of the videos."""

    @property
    def name(self) -> str:
        """As in tables; of a stand-in it ends in `_stand_in`."""
        ...

    @property
    def min_videos(self) -> int:
        """With fewer there is no figure, but a note that says how many it needs."""
        ...

    def keep(self, shown: Shown) -> np.ndarray | None:
        """What the figure needs of one video, small; None where it does not apply (no sound, no face, no pose)."""
        ...

    def figure(self, generated: Sequence["Kept"], real: Sequence["Kept"], confidence: float, seed: int) -> Figure:
        """From what was kept of a set, and of the real set where there is one (it may be empty)."""
        ...


@dataclass(frozen=True)
class Kept:
    """What a metric kept of one video."""

    item: str
    person: str
    values: np.ndarray
