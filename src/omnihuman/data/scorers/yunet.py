"""Number and size of faces by YuNet (OpenCV's FaceDetectorYN), where its weights are configured."""

from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured
from omnihuman.data.scorers.faces import NAMES as NUMBER_NAMES
from omnihuman.data.scorers.faces import SMALLEST, usual_number
from omnihuman.encoders.weights import check_file
from omnihuman.errors import UserError

NAMES = ("face_size", *NUMBER_NAMES)
LICENCE = "MIT (YuNet, face_detection_yunet_2023mar.onnx of opencv_zoo; its training data WIDER FACE, as published)"
OPTION = "score.face_weights"
CONFIDENCE, OVERLAP, MOST = 0.9, 0.3, 5000
"""OpenCV's defaults: least confidence, overlap above which the weaker box goes, boxes looked at."""


def yunet_scorer(weights: str, sha256: str) -> Scorer:
    """The scorer with weights from a file. It takes the place of the stand-ins for both."""
    check = partial(check_file, OPTION, Path(weights), sha256)
    return Scorer(NAMES, partial(measure_faces, weights, sha256), "2 yunet", LICENCE, "published", sha256, check)


def measure_faces(weights: str, sha256: str, content: ClipContent) -> tuple[Measurement, ...]:
    """Mean height of the largest face over the picture's, 0 where no frame shows one; how many faces there are.

    Those at least half as large as the largest of their picture count, as for the stand-in.

    Raises:
        UserError: the weights are missing or not the pinned ones.
    """
    pictures = content.frames.pixels[content.few]
    found = [_faces(_detector(weights, sha256), picture) for picture in pictures]
    heights = [boxes[:, 3].max() / pictures.shape[1] for boxes in found if len(boxes)]
    counts = [int((boxes[:, 3] >= SMALLEST * boxes[:, 3].max()).sum()) if len(boxes) else 0 for boxes in found]
    return (
        measured(NAMES[0], float(np.mean(heights)) if heights else 0.0, len(heights)),
        *usual_number(counts),
    )


def _faces(detector: cv2.FaceDetectorYN, picture: np.ndarray) -> np.ndarray:
    """Left, top, width and height in pixels, eyes, nose, corners of the mouth and confidence, float32 [N, 15]."""
    height, width = picture.shape[:2]
    detector.setInputSize((width, height))
    _, found = detector.detect(np.ascontiguousarray(picture[:, :, ::-1]))  # it was trained on BGR
    return np.zeros((0, 15), np.float32) if found is None else found


@cache
def _detector(weights: str, sha256: str) -> cv2.FaceDetectorYN:
    check_file(OPTION, Path(weights), sha256)
    try:
        return cv2.FaceDetectorYN.create(weights, "", (320, 320), CONFIDENCE, OVERLAP, MOST)
    except cv2.error as error:
        raise UserError(f"{OPTION}={weights} cannot be loaded as YuNet: {error.err}") from error
