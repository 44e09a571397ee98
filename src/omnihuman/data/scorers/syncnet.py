"""Lip sync by the published SyncNet, where its weights are configured.

Crops follow joonson/syncnet_python from the box of the face on; the box is the project's, not S3FD's, and is one face,
so figures near, not equal to, the published pipeline's are to be expected.
"""

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scipy.signal import medfilt

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable
from omnihuman.data.scorers.face import FaceTrack
from omnihuman.encoders.weights import check_file

if TYPE_CHECKING:
    from omnihuman.encoders.syncnet import SyncNet

NAMES = ("syncnet_confidence", "syncnet_distance", "syncnet_offset_frames")
LICENCE = "MIT (code and weights of joonson/syncnet_python; its training data VoxCeleb, as published)"
MIN_FRAMES = 100
MIN_FACE_PIXELS = 100
MEDIAN_FRAMES = 13
CROP_SCALE = 0.4
PAD_VALUE = 110
SIDE, FPS, SAMPLE_RATE = 224, 25, 16000
BOX_CENTRE_BELOW_EYES = 0.1
"""Of the face's height."""


def syncnet_scorer(weights: str = "", sha256: str = "") -> Scorer:
    """The scorer with weights from a file, or one that answers `na`."""
    measure = partial(measure_syncnet, weights, sha256)
    if not weights:
        return Scorer(NAMES, measure, "1", LICENCE, "published")
    check = partial(check_file, "score.syncnet_weights", Path(weights), sha256)
    return Scorer(NAMES, measure, "1", LICENCE, "published", sha256, check)


def measure_syncnet(weights: str, sha256: str, content: ClipContent) -> tuple[Measurement, ...]:
    """Sync-C, Sync-D and offset (positive: the sound leads), each with the number of windows behind it.

    Raises:
        UserError: the weights are missing or not the pinned ones.
    """
    if not weights:
        return not_applicable(NAMES, "no weights are configured: set score.syncnet_weights and score.syncnet_sha256")
    if reason := hindrance(content):
        return not_applicable(NAMES, reason)
    from omnihuman.encoders.syncnet import measure_sync  # torch is loaded only where it is needed

    assert content.sound is not None
    crops = face_crops(content.frames.pixels, content.face)
    sync = measure_sync(_network(weights, sha256), crops, content.sound.samples)
    values = (sync.confidence, sync.distance, sync.offset_frames)
    return tuple(measured(name, value, sync.num_windows) for name, value in zip(NAMES, values, strict=True))


def face_crops(pixels: np.ndarray, face: FaceTrack) -> np.ndarray:
    """What SyncNet sees of each frame, uint8 [F, 224, 224, 3]: with s half the face's side, y -s..+1.8s, x +-1.4s."""
    half = _smooth(face.height / 2)
    x, y = (_smooth(face.eyes[:, axis]) for axis in (0, 1))
    y = y + BOX_CENTRE_BELOW_EYES * 2 * half
    return np.stack([_crop(*each) for each in zip(pixels, x, y, half, strict=True)])


def _crop(picture: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    margin = int(half * (1 + 2 * CROP_SCALE))
    constant = ((margin, margin), (margin, margin), (0, 0))
    padded = np.pad(picture, constant, constant_values=PAD_VALUE)
    x, y = x + margin, y + margin
    top, bottom = int(y - half), int(y + half * (1 + 2 * CROP_SCALE))
    left, right = int(x - half * (1 + CROP_SCALE)), int(x + half * (1 + CROP_SCALE))
    return cv2.resize(padded[max(0, top) : bottom, max(0, left) : right], (SIDE, SIDE))


def _smooth(values: np.ndarray) -> np.ndarray:
    return medfilt(values, MEDIAN_FRAMES)


def hindrance(content: ClipContent) -> str:
    """Why SyncNet says nothing of this clip, empty where it does."""
    if content.sound is None or not len(content.sound.samples):
        return "there is no sound track"
    if content.fps != FPS or content.sound.sample_rate != SAMPLE_RATE:
        return f"SyncNet needs {FPS} frames a second and sound at {SAMPLE_RATE} Hz"
    if not content.face.found.all():
        return "no face was found throughout the clip"
    if len(content.grey) < MIN_FRAMES:
        return f"SyncNet's pipeline needs {MIN_FRAMES} frames, this clip has {len(content.grey)}"
    if (side := content.face.height.mean()) <= MIN_FACE_PIXELS:
        return f"the face is {side:.0f} pixels wide, SyncNet needs {MIN_FACE_PIXELS}: raise score.short_side_pixels"
    return ""


@cache
def _network(weights: str, sha256: str) -> "SyncNet":
    from omnihuman.encoders.syncnet import load_syncnet

    return load_syncnet(Path(weights), sha256)
