"""What a scorer may see of a clip, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from omnihuman.batch import Frames, Keypoints, Sound
from omnihuman.data.scorers.face import FaceTrack, track_face

FEW_FRAMES = 5
"""Frames looked at by scorers of what changes little within a clip."""


@dataclass(frozen=True)
class ClipContent:
    """One decoded clip. Scorers see this and nothing else, so that no ground truth can reach a score."""

    frames: Frames
    sound: Sound | None  # of the same span; None without a sound track
    keypoints: Keypoints | None  # of the whole source, as declared; times as in `frames`
    duration_seconds: float
    fps: float  # of the grid on which frames were taken; slower sources repeat their pictures

    @cached_property
    def grey(self) -> np.ndarray:
        """Luma, uint8 [F, H, W]."""
        num_frames, height, width, _ = self.frames.pixels.shape
        # One tall picture: a call per frame costs more than the conversion.
        tall = cv2.cvtColor(self.frames.pixels.reshape(num_frames * height, width, 3), cv2.COLOR_RGB2GRAY)
        return tall.reshape(num_frames, height, width)

    @cached_property
    def few(self) -> np.ndarray:
        """Indices of at most `FEW_FRAMES` frames, evenly spread."""
        return np.unique(np.linspace(0, len(self.grey) - 1, FEW_FRAMES).round().astype(int))

    @cached_property
    def distinct(self) -> np.ndarray:
        """Indices of frames with a presentation time of their own; the others repeat a picture of a slower source."""
        return np.flatnonzero(np.diff(self.frames.seconds, prepend=-np.inf) > 0)

    @cached_property
    def points(self) -> np.ndarray | None:
        """The declared pose nearest in time to each frame, float32 [F, K, 3] as in `Keypoints`."""
        if self.keypoints is None or not len(self.keypoints.seconds):
            return None
        distance = np.abs(self.keypoints.seconds[None] - self.frames.seconds[:, None])
        return self.keypoints.points[distance.argmin(axis=1)]

    @cached_property
    def face(self) -> FaceTrack:
        """The face in every frame, found once for all scorers."""
        return track_face(self.grey, self.points)


@dataclass(frozen=True)
class Measurement:
    """One row of the score table."""

    scorer: str
    value: float  # NaN unless status is ok
    status: str  # ok | na | error | timeout
    error: str  # why there is no value, one sentence for people
    num_samples: int  # frames, windows or faces behind the value


@dataclass(frozen=True)
class Scorer:
    """A family of measurements taken together, with what has to be known to trust them."""

    names: tuple[str, ...]
    measure: Callable[[ClipContent], tuple[Measurement, ...]]
    version: str  # raised whenever a value may change
    licence: str = "Apache-2.0"
    implementation: str = "fallback"  # published | fallback | trained; a fallback is a stand-in without weights
    weights_sha256: str = ""
    check: Callable[[], None] = lambda: None
    """Raises `UserError` where the weights are missing or not the pinned ones; asked once, before any clip."""


def measured(scorer: str, value: float, num_samples: int) -> Measurement:
    """A measurement that worked."""
    return Measurement(scorer, float(value), "ok", "", num_samples)


def not_applicable(names: tuple[str, ...], reason: str) -> tuple[Measurement, ...]:
    """The answer of a scorer that this clip gives nothing to measure."""
    return failed(names, "na", reason)


def failed(names: tuple[str, ...], status: str, reason: str) -> tuple[Measurement, ...]:
    """Measurements without a value."""
    return tuple(Measurement(name, float("nan"), status, reason, 0) for name in names)
