"""Features of pictures and videos without weights: a stand-in for Inception and I3D, uncalibrated.

Means of colour and of slopes in the cells of a grid, and how both change in time. They see layout, colour, blur and
movement; they know nothing of what is shown, and their distances have no scale in common with the published ones.
"""

import cv2
import numpy as np

from omnihuman.evaluation.extractors.part import CLIPS as MOST_CLIPS
from omnihuman.evaluation.extractors.part import FRAMES, STAND_IN, Part, clips_of, evenly
from omnihuman.evaluation.metrics.measure import Extractor, Shown

CELLS = 4
"""Of each side of the grid."""
NAME = "stand-in: grid of colours and slopes, uncalibrated"


def picture_features(frames: np.ndarray) -> np.ndarray:
    """float32 [F, 80] of uint8 [F, H, W, 3]: three colours, fine and coarse slopes of 4 x 4 cells."""
    return np.stack([_of_picture(frame) for frame in frames])


def video_features(frames: np.ndarray) -> np.ndarray:
    """float32 [240] of uint8 [F, H, W, 3], F at least 3: mean over time, deviation over time, mean change a frame."""
    each = picture_features(frames)
    return np.concatenate([each.mean(axis=0), each.std(axis=0), np.abs(np.diff(each, axis=0)).mean(axis=0)])


def _of_picture(frame: np.ndarray) -> np.ndarray:
    picture = frame.astype(np.float32) / 255
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    coarse = cv2.GaussianBlur(grey, (0, 0), 2)
    maps = picture, _slopes(grey - coarse), _slopes(coarse)
    return np.concatenate([cv2.resize(each, (CELLS, CELLS), interpolation=cv2.INTER_AREA).ravel() for each in maps])


def _slopes(grey: np.ndarray) -> np.ndarray:
    """Logarithms, so that half the detail counts as much where there is little; about as far apart as colours are."""
    steep = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.log(steep / 8 + 0.002) / 2


def _features_of_clips(shown: Shown) -> np.ndarray | None:
    clips = clips_of(shown.frames)
    return np.stack([video_features(clip) for clip in clips]) if clips else None


PICTURES = Part(
    lambda shown: picture_features(evenly(shown.frames)),
    Extractor(NAME, f"{FRAMES} evenly spaced frames of each video"),
    STAND_IN,
)
CLIPS = Part(
    _features_of_clips, Extractor(NAME, f"up to {MOST_CLIPS} clips of {FRAMES} frames on end of each video"), STAND_IN
)
EVERY_PICTURE = Part(lambda shown: picture_features(shown.frames), Extractor(NAME, "every frame"), STAND_IN)
