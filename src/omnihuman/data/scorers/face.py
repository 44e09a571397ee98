"""Where the face is, from declared keypoints or else from the Haar cascade that OpenCV carries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from omnihuman.batch import KEYPOINTS

NOSE, LEFT_EYE, RIGHT_EYE = (KEYPOINTS.index(name) for name in ("nose", "left_eye", "right_eye"))
CONFIDENT = 0.3
"""Keypoints below this confidence count as not seen."""
FACE_HEIGHT_IN_EYE_DISTANCES = 2.9
"""Hairline to chin; the cascade's box is about this high as well."""
MOUTH_BELOW_EYES_IN_EYE_DISTANCES = 1.05
MIN_FACE_SHARE = 0.12
"""Smallest face that the cascade looks for, of the picture's shorter side."""
FRAMES_PER_LOOK = 4
"""The cascade sees every fourth frame; the box is interpolated between them."""
MAX_SEARCHES = 4
"""Searches of whole pictures per clip; each takes about 10 ms."""


@dataclass(frozen=True)
class FaceTrack:
    """One face over time, in pixels."""

    found: np.ndarray  # bool [F], where the face was seen (or lies between two frames in which it was)
    num_looked_at: int  # frames that were searched
    num_found: int  # of these, frames with a face
    eyes: np.ndarray  # float64 [F, 2], the point between the eyes
    eye_distance: np.ndarray  # float64 [F]
    roll: np.ndarray  # float64 [F], radians, clockwise

    @property
    def height(self) -> np.ndarray:
        """Height of the face, float64 [F]."""
        return FACE_HEIGHT_IN_EYE_DISTANCES * self.eye_distance

    @property
    def mouth(self) -> np.ndarray:
        """Middle of the mouth at rest, float64 [F, 2]."""
        down = np.stack([-np.sin(self.roll), np.cos(self.roll)], axis=1)
        return self.eyes + MOUTH_BELOW_EYES_IN_EYE_DISTANCES * self.eye_distance[:, None] * down


def upright_patch(picture: np.ndarray, turn: np.ndarray, middle: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A patch of width and height `size` around `middle`; `turn` [2, 2] carries steps in it to steps in the picture."""
    corner = middle - turn @ ((np.array(size) - 1) / 2)
    return cv2.warpAffine(
        picture,
        np.column_stack([turn, corner]),
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def track_face(grey: np.ndarray, points: np.ndarray | None) -> FaceTrack:
    """Follows the largest face.

    Args:
        grey: uint8 [F, H, W].
        points: declared keypoints at the frames, float32 [F, K, 3], or None.
    """
    return _from_keypoints(grey, points) if points is not None else _from_cascade(grey)


def _from_keypoints(grey: np.ndarray, points: np.ndarray) -> FaceTrack:
    height, width = grey.shape[1:]
    seen = points[:, [NOSE, LEFT_EYE, RIGHT_EYE], 2].min(axis=1) >= CONFIDENT
    pixels = points[:, :, :2].astype(np.float64) * [width, height]
    across = pixels[:, LEFT_EYE] - pixels[:, RIGHT_EYE]
    distance = np.hypot(*across.T)
    # A profile's eyes coincide; its size follows from the frames in which the head is turned least.
    distance = np.maximum(distance, np.percentile(distance[seen], 90) * 0.7) if seen.any() else distance
    return FaceTrack(
        found=seen,
        num_looked_at=len(grey),
        num_found=int(seen.sum()),
        eyes=(pixels[:, LEFT_EYE] + pixels[:, RIGHT_EYE]) / 2,
        eye_distance=distance,
        roll=np.arctan2(across[:, 1], across[:, 0]),
    )


@cache
def _cascade() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))


def _from_cascade(grey: np.ndarray) -> FaceTrack:
    looked_at = range(0, len(grey), FRAMES_PER_LOOK)
    boxes = _follow(grey, looked_at)
    everywhere = np.arange(len(grey))
    if not boxes:
        nothing = np.zeros(len(grey))
        return FaceTrack(nothing > 0, len(looked_at), 0, np.zeros((len(grey), 2)), nothing, nothing)
    times = np.array(list(boxes))
    x, y, side = np.array(list(boxes.values()), np.float64).T
    # One size for the whole clip: the cascade's own varies by a tenth from frame to frame.
    size = np.full(len(grey), np.median(side))
    centre = np.stack([np.interp(everywhere, times, x + side / 2), np.interp(everywhere, times, y + side / 2)], axis=1)
    return FaceTrack(
        # Half of the looks must agree, or a pattern of the background would make a face.
        found=np.full(len(grey), 2 * len(boxes) >= len(looked_at)),
        num_looked_at=len(looked_at),
        num_found=len(boxes),
        eyes=centre - [[0.0, 0.1]] * size[:, None],
        eye_distance=size / FACE_HEIGHT_IN_EYE_DISTANCES,
        roll=np.zeros(len(grey)),
    )


def _follow(grey: np.ndarray, looked_at: range) -> dict[int, np.ndarray]:
    """Boxes x, y, width by frame. Around the last box the search is ten times faster than in the whole picture."""
    boxes: dict[int, np.ndarray] = {}
    last: np.ndarray | None = None
    num_searches = 0
    for index in looked_at:
        box = None if last is None else _search_near(grey[index], last)
        # A picture without a face is searched a few times only, because that takes longest.
        if box is None and num_searches < MAX_SEARCHES:
            box, num_searches = _search(grey[index]), num_searches + 1
        if box is not None:
            boxes[index] = last = box
    return boxes


def search_faces(picture: np.ndarray, smallest: int) -> np.ndarray:
    """All faces of a picture, uint8 [H, W], from a size in pixels on: x, y, width, height, int [faces, 4]."""
    return np.asarray(_cascade().detectMultiScale(picture, 1.15, 4, minSize=(smallest, smallest))).reshape(-1, 4)


def _search(picture: np.ndarray) -> np.ndarray | None:
    return _largest(search_faces(picture, round(MIN_FACE_SHARE * min(picture.shape))))


def _search_near(picture: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    x, y, side = (int(value) for value in box)
    left, top, margin = max(0, x - side // 3), max(0, y - side // 3), side // 3
    region = picture[top : y + side + margin, left : x + side + margin]
    smallest, largest = round(0.75 * side), round(1.3 * side)
    found = _cascade().detectMultiScale(region, 1.1, 3, minSize=(smallest,) * 2, maxSize=(largest,) * 2)
    near = _largest(found)
    return None if near is None else near + [left, top, 0]


def _largest(boxes: object) -> np.ndarray | None:
    found = np.asarray(boxes)
    return max(found, key=lambda box: box[2])[:3] if len(found) else None
