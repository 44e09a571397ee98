"""Keypoints of the whole body from pictures: published ONNX models (DWPose, RTMPose, RTMW) through rtmlib.

Facts: a detector of the YOLOX kind finds people; the pose model gives, for the enlarged box of one person, a response
along x and along y for each keypoint (SimCC, twice the input's resolution). rtmlib does the boxes, the crop and the way
back to the picture. Both are fed here as they were trained, which rtmlib leaves to its caller: YOLOX on BGR (mmdet's
and Megvii's configs do not convert), the pose model on RGB (`bgr_to_rgb=True` in mmpose's RTMPose configs, and the mean
that rtmlib subtracts is in the order R, G, B).
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from omnihuman.batch import WHOLE_BODY_KEYPOINTS
from omnihuman.encoders.weights import check_pinned, files_sha256
from omnihuman.errors import UserError

_PUBLISHED = (
    "the files dw-ll_ucoco_384.onnx and yolox_l.onnx of the hub id yzd-v/DWPose (DWPose is Apache-2.0; see its model"
    " card)"
)
_PERSON = 0
"""COCO's first class."""
_MIN_OVERLAP = 0.3
"""Share of the union that a box has in common with the one before, for it to be the same person."""
_MIN_CONFIDENCE = 0.3
"""Of a detected person, as in DWPose's own code."""

Model = Callable[..., Any]


class PoseEstimator(Protocol):
    """A frozen network from pictures to the keypoints of one person."""

    name: str

    def estimate(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [F, H, W, 3] in RGB to float32 [F, 133, 3], in the order of `batch.WHOLE_BODY_KEYPOINTS`.

        x and y are shares of width and height, the confidence lies in 0..1; zeros where nobody or no keypoint is seen.
        """
        ...


class WholeBodyEstimator:
    """The largest person of the first picture, followed from frame to frame by overlap."""

    name = "rtmlib_whole_body"

    def __init__(self, detector: Path, pose: Path, device: str = "cpu") -> None:
        """Loads two ONNX files; nothing is downloaded.

        Args:
            device: `cpu` or `cuda`, as onnxruntime offers it.

        Raises:
            UserError: rtmlib is not installed, a file is missing, or it is not of the expected kind.
        """
        rtmlib = _rtmlib()
        for path in (detector, pose):
            if not path.is_file():  # rtmlib would take the path for an address and download
                raise UserError(f"no pose weights at {path}: give {_PUBLISHED}")
        self.files = {"detector.onnx": detector, "pose.onnx": pose}
        # The sizes given here are replaced by those that the files themselves name.
        self._detector = _load(rtmlib.YOLOX, detector, device, score_thr=_MIN_CONFIDENCE)
        self._pose = _load(rtmlib.RTMPose, pose, device, to_openpose=False)
        inputs, outputs = _shapes(self._detector)
        if len(inputs) != 4 or len(outputs[0]) != 3 or any(len(output) == 3 for output in outputs[1:]):
            raise UserError(f"{detector} is no detector of the YOLOX kind: give {_PUBLISHED}")
        self._detector.model_input_size = _size(inputs, detector)
        # With five columns (a box and its confidence) the file has done the suppression, and knows people only.
        self._detector.det_mode = "human" if outputs[0][-1] == 5 else "multiclass"
        inputs, outputs = _shapes(self._pose)
        if len(outputs) != 2 or any(len(output) != 3 for output in outputs):
            raise UserError(f"{pose} is no pose model with SimCC outputs: give {_PUBLISHED}")
        if isinstance(outputs[0][1], int) and outputs[0][1] != len(WHOLE_BODY_KEYPOINTS):
            raise UserError(
                f"{pose} knows {outputs[0][1]} keypoints, expected {len(WHOLE_BODY_KEYPOINTS)} (COCO-WholeBody):"
                f" give {_PUBLISHED}"
            )
        height, width = _size(inputs, pose)
        self._pose.model_input_size = (width, height)

    def sha256(self) -> str:
        """Of both files, wherever they lie."""
        return files_sha256(self.files)

    def estimate(self, frames: np.ndarray) -> np.ndarray:
        """See `PoseEstimator.estimate`.

        Raises:
            UserError: the frames are not uint8 [F, H, W, 3].
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise UserError(
                f"frames of {frames.dtype} {list(frames.shape)} came, expected uint8 [F, H, W, 3] in RGB for poses"
            )
        keypoints = np.zeros((len(frames), len(WHOLE_BODY_KEYPOINTS), 3), np.float32)
        before: np.ndarray | None = None
        for number, frame in enumerate(frames):
            boxes = self._people(frame)
            if len(boxes):
                before = _follow(boxes, before)
                keypoints[number] = self._keypoints(frame, before)
        return keypoints

    def _people(self, frame: np.ndarray) -> np.ndarray:
        """Boxes float [N, 4] (left, top, right, bottom) in pixels."""
        found = self._detector(np.ascontiguousarray(frame[:, :, ::-1]))
        if self._detector.det_mode == "multiclass":
            boxes, classes = found
            found = boxes[classes == _PERSON] if len(boxes) else boxes
        return np.asarray(found, np.float64).reshape(-1, 4)

    def _keypoints(self, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
        points, confidence = self._pose(np.ascontiguousarray(frame), bboxes=[box])
        height, width = frame.shape[:2]
        shares = points[0] / (width, height)
        seen = (confidence[0] > 0) & (shares >= 0).all(axis=1) & (shares <= 1).all(axis=1)
        return np.concatenate([shares, np.clip(confidence[0], 0, 1)[:, None]], axis=1) * seen[:, None]


def pose_estimator(folder: Path, device: str = "cpu") -> WholeBodyEstimator:
    """The estimator whose two ONNX files lie in a folder; the detector's name begins with yolox, as published.

    Raises:
        UserError: the folder does not hold exactly one of each, or `WholeBodyEstimator` refuses them.
    """
    detector, pose = estimator_files(folder).values()
    return WholeBodyEstimator(detector, pose, device)


def pinned_files(option: str, folder: Path, sha256: str) -> dict[str, Path]:
    """The two files of a folder that `option` names, as `estimator_files` gives them.

    Raises:
        UserError: they are missing, or not the ones whose hash is pinned beside the option.
    """
    files = estimator_files(folder)
    check_pinned(option, folder, files, sha256)
    return files


def estimator_files(folder: Path) -> dict[str, Path]:
    """Detector and pose model, by names that do not depend on theirs.

    Raises:
        UserError: the folder does not hold exactly one of each.
    """
    found = sorted(folder.glob("*.onnx"))
    detectors = [path for path in found if path.name.lower().startswith("yolox")]
    others = [path for path in found if path not in detectors]
    if len(detectors) != 1 or len(others) != 1:
        pickles = sorted(path.name for path in folder.glob("*") if path.suffix in (".pth", ".pt", ".bin", ".ckpt"))
        beside = f" beside pickles, which are not loaded ({', '.join(pickles)})" if pickles else ""
        raise UserError(
            f"{folder} holds {', '.join(path.name for path in found) or 'no .onnx file'}{beside}: expected one"
            f" detector yolox*.onnx and one pose model, e.g. {_PUBLISHED}"
        )
    return {"detector.onnx": detectors[0], "pose.onnx": others[0]}


def _rtmlib() -> Any:
    try:
        import rtmlib
    except ImportError as error:
        raise UserError(
            f"poses need rtmlib ({error}): pip install --no-deps -r requirements-no-deps.lock; with its dependencies"
            " it would replace the OpenCV of this environment"
        ) from error
    return rtmlib


def _load(kind: Model, path: Path, device: str, **settings: Any) -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # rtmlib announces each file
            return kind(str(path), backend="onnxruntime", device=device, **settings)
    except Exception as error:  # onnxruntime's own classes share no base but this
        raise UserError(f"{path} cannot be loaded as ONNX: {(str(error).splitlines() or [''])[0]}") from error


def _shapes(model: Any) -> tuple[list, list[list]]:
    """Of the first input and of all outputs; names stand for what is open."""
    return model.session.get_inputs()[0].shape, [output.shape for output in model.session.get_outputs()]


def _size(shape: list, path: Path) -> tuple[int, int]:
    """Height and width of a model's input [N, 3, H, W]."""
    if len(shape) != 4 or not all(isinstance(side, int) and side > 0 for side in shape[2:]):
        raise UserError(f"{path} takes pictures of any size ({shape}), expected a fixed one: give {_PUBLISHED}")
    return shape[2], shape[3]


def _follow(boxes: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """The box that overlaps most with the one before; without one, or after a cut, the largest."""
    if before is not None:
        overlaps = _overlap(boxes, before)
        if overlaps.max() >= _MIN_OVERLAP:
            return boxes[overlaps.argmax()]
    return boxes[((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).argmax()]


def _overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union [N]."""
    corner = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.clip(corner[1] - corner[0], 0, None).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return common / np.maximum(areas - common, 1e-9)
