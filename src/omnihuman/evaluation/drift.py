"""How a face changes while a video lasts: identity, colour, sharpness and noise of a window of frames.

Pictures are float32 in 0..1. Identity is a stand-in, named as such: the correlation of the face's brightness with the
reference's.
"""

import cv2
import numpy as np

from omnihuman.evaluation.metrics.frames import noise_levels
from omnihuman.evaluation.mouth import MouthRegion
from omnihuman.evaluation.statistics import correlation

WINDOW_SECONDS = 3.0
MEASURES = {
    "identity": "identity (stand-in): correlation of the face with the reference",
    "colour": "colour: distance of the channels' means from the reference, of 255",
    "sharpness": "sharpness: variance of the Laplacian over the reference's",
    "noise": "noise: standard deviation of the finest detail, of 255",
}
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Box = tuple[slice, slice]
"""Rows and columns."""


def face_around(mouth: MouthRegion, height: int, width: int) -> Box:
    """The face that belongs to a mouth, from brows to chin."""
    reach = mouth.right - mouth.left
    return (
        slice(max(0, mouth.top - reach), min(height, mouth.bottom + reach // 4)),
        slice(max(0, mouth.left - reach // 4), min(width, mouth.right + reach // 4)),
    )


def measure_window(frames: np.ndarray, reference: np.ndarray, face: Box | None) -> dict[str, float]:
    """Each of `MEASURES` for a window; no identity without a face.

    Args:
        frames: float32 [n, H, W, 3].
        reference: float32 [H, W, 3].
    """
    identity = {} if face is None else {"identity": likeness(frames, reference, face)}
    return identity | {
        "colour": float(255 * np.abs(frames.mean((0, 1, 2)) - reference.mean((0, 1))).mean()),
        "sharpness": _detail(frames) / max(_detail(reference[None]), 1e-9),
        "noise": float(np.mean([noise_levels(255 * frame) for frame in frames])),
    }


def likeness(frames: np.ndarray, reference: np.ndarray, face: Box) -> float:
    """Mean correlation of the face's brightness with that of the reference at the same place."""
    wanted = (reference[face] @ LUMA).ravel()
    return float(np.mean([correlation((frame[face] @ LUMA).ravel(), wanted) for frame in frames]))


def slope_a_minute(values: np.ndarray, window_seconds: float = WINDOW_SECONDS) -> float:
    """Of a straight line through the values [W] of windows that follow each other."""
    minutes = np.arange(len(values)) * window_seconds / 60
    return float(np.polyfit(minutes, values, 1)[0])


def _detail(frames: np.ndarray) -> float:
    return float(np.mean([cv2.Laplacian(np.ascontiguousarray(frame @ LUMA), cv2.CV_32F).var() for frame in frames]))
