"""Identity by ArcFace (Deng et al., 2019), as insightface's buffalo_l has it in ONNX; CSIM is its cosine.

Facts of insightface: the face is brought by a similarity to five points of a picture of 112 pixels, RGB in -1..1. The
points are YuNet's here and SCRFD's there, so figures lie near those of insightface and are not called calibrated.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from omnihuman.config.schema.evaluate import Extractors
from omnihuman.encoders.weights import check_file
from omnihuman.errors import UserError
from omnihuman.evaluation.extractors.part import FRAMES, Part, evenly, require_licence
from omnihuman.evaluation.metrics.measure import Extractor, Shown

OPTION, FACE_OPTION = "evaluate.extractors.arcface_weights", "evaluate.extractors.face_weights"
LICENCE = "insightface's models are for non-commercial research"
SIDE = 112
PLACES = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""Where both eyes, the nose and both corners of the mouth lie, left in the picture first: insightface's template."""
CONFIDENCE = 0.6
"""Of YuNet; a generated face is often found with less than the 0.9 of clean ones."""


def arcface_part(config: Extractors) -> Part[float | None]:
    """Mean cosine to the reference; None where the reference shows no face. A frame without a face counts as 0.

    Raises:
        UserError: nobody allowed the licence, YuNet's weights are not named, files are missing or not the pinned ones.
    """
    require_licence(config.allow_non_commercial, OPTION, LICENCE)
    if not config.face_weights:
        raise UserError(f"{OPTION} needs {FACE_OPTION}: name YuNet's face_detection_yunet_2023mar.onnx (MIT), too")
    check_file(OPTION, Path(config.arcface_weights), config.arcface_sha256)
    check_file(FACE_OPTION, Path(config.face_weights), config.face_sha256)
    detector = _loaded(FACE_OPTION, config.face_weights, lambda path: cv2.FaceDetectorYN.create(
        path, "", (320, 320), CONFIDENCE))  # fmt: skip
    network = _loaded(OPTION, config.arcface_weights, _session)

    def measure(shown: Shown) -> float | None:
        wanted = None if shown.reference is None else _embedding(detector, network, shown.reference)
        if wanted is None:
            return None
        found = [_embedding(detector, network, frame) for frame in evenly(shown.frames)]
        return float(np.mean([0.0 if each is None else float(each @ wanted) for each in found]))

    told = f"{FRAMES} evenly spaced frames, those without a face count 0; five points by YuNet (not SCRFD)"
    return Part(measure, Extractor("ArcFace w600k_r50", told, config.arcface_sha256))


def aligned(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The face as ArcFace sees it, uint8 [112, 112, 3]: the similarity that brings points [5, 2] to `PLACES`."""
    # x' = a x - b y + c, y' = b x + a y + d, by least squares
    x, y = points.T
    one, none = np.ones(5), np.zeros(5)
    rows = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
    a, b, c, d = np.linalg.lstsq(rows, PLACES.T.ravel(), rcond=None)[0]
    return cv2.warpAffine(picture, np.array([[a, -b, c], [b, a, d]]), (SIDE, SIDE))


def _embedding(detector: Any, network: Any, picture: np.ndarray) -> np.ndarray | None:
    """Of length 1; None without a face."""
    height, width = picture.shape[:2]
    detector.setInputSize((width, height))
    _, faces = detector.detect(np.ascontiguousarray(picture[:, :, ::-1]))  # YuNet was trained on BGR
    if faces is None:
        return None
    largest = max(faces, key=lambda face: face[2] * face[3])
    face = aligned(picture, largest[4:14].reshape(5, 2).astype(np.float64))
    batch = ((face.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]
    found = network.run(None, {network.get_inputs()[0].name: batch})[0][0]
    return found / max(float(np.linalg.norm(found)), 1e-12)


def _session(path: str) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def _loaded(option: str, path: str, load: Any) -> Any:
    try:
        return load(path)
    except Exception as error:  # onnxruntime's own classes and OpenCV's share no base but this
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{option}={path} cannot be loaded as ONNX: {first}") from error
