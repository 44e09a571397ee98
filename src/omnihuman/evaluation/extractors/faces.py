"""Where the face of a video is, for metrics that look at it: as declared in the reference, or found by a cascade."""

import cv2
import numpy as np

from omnihuman.batch import Frames, Keypoints, Sound
from omnihuman.data.scorers.content import ClipContent
from omnihuman.data.scorers.face import LEFT_EYE, NOSE, RIGHT_EYE, track_face
from omnihuman.evaluation.drift import Box, face_around
from omnihuman.evaluation.metrics.measure import SAMPLE_RATE, Shown
from omnihuman.evaluation.mouth import MouthRegion, mouth_region

FOUND_BY = "keypoints of the reference where they are declared, else OpenCV's Haar cascade"
NOSE_BELOW_EYES = 0.47
"""In eye distances: the drawn people's, for which `mouth_region` was made; it then lies where real mouths are, too."""


def content_of(shown: Shown) -> ClipContent:
    """The video as scorers of clips see it; a declared pose of the reference stands for the face in every frame."""
    seconds = np.arange(len(shown.frames)) / shown.fps
    points = None if shown.reference_points is None else Keypoints(shown.reference_points[None], seconds[:1])
    sound = None if shown.sound is None else Sound(shown.sound, SAMPLE_RATE)
    return ClipContent(Frames(shown.frames, seconds), sound, points, len(shown.frames) / shown.fps, shown.fps)


def points_of(shown: Shown) -> np.ndarray | None:
    """Keypoints [K, 3] of the reference, or else of the first frame: those declared, or eyes and nose alone."""
    if shown.reference_points is not None:
        return shown.reference_points
    return _face_points(shown.frames[0] if shown.reference is None else shown.reference)


def mouth_of(shown: Shown) -> MouthRegion | None:
    """Box around the mouth, from the reference or else from the first frame; None where no face is found."""
    points = points_of(shown)
    return None if points is None else mouth_region(points, *shown.frames.shape[1:3])


def face_of(shown: Shown) -> Box | None:
    """Rows and columns of the face, as for `mouth_of`."""
    mouth = mouth_of(shown)
    return None if mouth is None else face_around(mouth, *shown.frames.shape[1:3])


def _face_points(picture: np.ndarray) -> np.ndarray | None:
    """Eyes and nose as shares of width and height, float32 [3, 3] in the order of COCO; None without a face."""
    height, width = picture.shape[:2]
    found = track_face(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[None], None)
    if not found.found[0]:
        return None
    (x, y), apart = found.eyes[0], float(found.eye_distance[0])
    points = np.ones((3, 3), np.float32)
    points[NOSE, :2] = (x / width, (y + NOSE_BELOW_EYES * apart) / height)
    points[LEFT_EYE, :2] = ((x + apart / 2) / width, y / height)
    points[RIGHT_EYE, :2] = ((x - apart / 2) / width, y / height)
    return points
