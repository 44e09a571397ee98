"""Keypoints in the JSON of other programs.

OpenPose (`--write_json`; also what DWPose, ControlNet and ComfyUI's POSE_KEYPOINT dump): a frame is an object with
`people`, of which each has `pose_keypoints_2d` (BODY_25 or COCO-18, told apart by their number) and optionally
`face_keypoints_2d` (70, or the 68 of 300-W), `hand_left_keypoints_2d` and `hand_right_keypoints_2d` (21), each a flat
list x, y, confidence. A file holds one frame or a list of frames; a folder holds one file a frame, whose names end in
the frame's number and `_keypoints.json`. MMPose (`--save-predictions`): `instance_info`, or a list, of frames with
`instances`, each with `keypoints` [[x, y], ...] and `keypoint_scores`, 17 of COCO or 133 of COCO-WholeBody.

x and y are pixels of the canvas (`canvas_width`, `canvas_height` in the frame, or as the user says), or shares of it
where none exceeds 1. A confidence of 0 means that a joint was not found, wherever it is said to lie.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.batch import WHOLE_BODY_KEYPOINTS

COUNT = len(WHOLE_BODY_KEYPOINTS)
BODY_25 = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11, 19, 20, 21, 22, 23, 24)
"""Where COCO's seventeen and the six of the feet stand in OpenPose's order of 25."""
COCO_18 = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
"""Where COCO's seventeen stand in the order with a neck."""
_FACE, _LEFT_HAND, _RIGHT_HAND = (
    WHOLE_BODY_KEYPOINTS.index(name) for name in ("face_0", "left_hand_root", "right_hand_root")
)
_PARTS = (
    ("face_keypoints_2d", _FACE, 68),
    ("hand_left_keypoints_2d", _LEFT_HAND, 21),
    ("hand_right_keypoints_2d", _RIGHT_HAND, 21),
)
_MAX_BYTES = 500_000_000


@dataclass(frozen=True)
class ReadPoses:
    """One person, followed from frame to frame."""

    points: np.ndarray  # float32 [F, 133, 3], shares and confidence
    frames: np.ndarray  # int [F], each one's number, from 0
    aspect: float  # of the canvas; 0 where it is not known


def read_pose_json(path: Path, canvas: tuple[int, int]) -> ReadPoses:
    """Reads a file or a folder; of several people it takes the largest of the first frame that shows any.

    Args:
        canvas: width and height in pixels where the frames do not tell; zeros where they are not known.

    Raises:
        ValueError: it is malformed, or holds pixels of a canvas whose size nobody tells.
    """
    told = _folder(path) if path.is_dir() else _numbered(_load(path))
    frames = [(number, _people(frame, path), _canvas(frame)) for number, frame in told]
    if not any(people for _, people, _ in frames):
        raise ValueError("shows nobody in any frame")
    canvas = next((size for _, _, size in frames if size), canvas)
    followed = _follow([people for _, people, _ in frames])
    if not (followed[..., 2] > 0).any():
        raise ValueError("is sure of no joint in any frame")
    numbers = np.array([number for number, _, _ in frames])
    aspect = canvas[0] / canvas[1] if canvas[1] else 0.0
    return ReadPoses(_shares(followed, canvas), numbers - numbers[0], aspect)


def _load(path: Path) -> Any:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path.name} has more than {_MAX_BYTES // 10**6} MB, cut it")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON in UTF-8") from error


def _folder(path: Path) -> list[tuple[int, Any]]:
    names = sorted(path.glob("*.json"))
    found = [(re.search(r"(\d+)(?:_keypoints)?\.json$", name.name), name) for name in names]
    numbered = sorted((int(match[1]), name) for match, name in found if match)
    if not numbered or len({number for number, _ in numbered}) < len(numbered):
        raise ValueError("holds no files NAME_000000000000_keypoints.json, each with a number of its own")
    return [(number, _load(name)) for number, name in numbered]


def _numbered(told: Any) -> list[tuple[int, Any]]:
    if isinstance(told, dict) and "people" not in told:
        told = told.get("instance_info")
    frames = told if isinstance(told, list) else [told]
    if not frames:
        raise ValueError("holds no frame")
    return list(enumerate(frames))


def _canvas(frame: Any) -> tuple[int, int] | None:
    size = (frame.get("canvas_width"), frame.get("canvas_height")) if isinstance(frame, dict) else (None, None)
    return size if all(isinstance(side, (int, float)) and side > 0 for side in size) else None  # pyright: ignore[reportReturnType]


def _people(frame: Any, path: Path) -> list[np.ndarray]:
    """Of each person float [133, 3], as the file counts."""
    try:
        if isinstance(frame, dict) and "people" in frame:
            return [_openpose(person) for person in frame["people"]]
        return [_mmpose(person) for person in (frame["instances"] if isinstance(frame, dict) else frame)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path.name} holds neither OpenPose's people nor MMPose's instances, as they are published ({error})"
        ) from error


def _openpose(person: Mapping[str, Any]) -> np.ndarray:
    points = np.zeros((COUNT, 3))
    body = _triples(person["pose_keypoints_2d"])
    if len(body):
        orders = {25: BODY_25, 18: COCO_18}
        if len(body) not in orders:
            raise ValueError(f"{len(body)} keypoints of a body, expected 25 or 18")
        order = orders[len(body)]
        points[: len(order)] = body[list(order)]
    for name, first, count in _PARTS:
        part = _triples(person.get(name))[:count]
        if len(part) not in (0, count):
            raise ValueError(f"{name} holds {len(part)} keypoints, expected {count}")
        points[first : first + len(part)] = part
    return points


def _triples(flat: Any) -> np.ndarray:
    return np.asarray(flat or [], float).reshape(-1, 3)


def _mmpose(person: Mapping[str, Any]) -> np.ndarray:
    places, scores = np.asarray(person["keypoints"], float), np.asarray(person["keypoint_scores"], float)
    if len(places) not in (17, COUNT) or places.shape != (len(places), 2) or scores.shape != places.shape[:1]:
        raise ValueError(f"keypoints {list(places.shape)} with {list(scores.shape)} scores, expected 17 or {COUNT}")
    return np.pad(np.column_stack([places, scores]), ((0, COUNT - len(places)), (0, 0)))


def _follow(frames: list[list[np.ndarray]]) -> np.ndarray:
    """float [F, 133, 3]: the largest person, then whoever stands nearest to where they stood; zeros where nobody is."""
    followed = np.zeros((len(frames), COUNT, 3))
    before: np.ndarray | None = None
    for number, people in enumerate(frames):
        seen = [person for person in people if (person[:, 2] > 0).any()]
        if not seen:
            continue
        boxes = np.stack([_box(person) for person in seen])
        if before is None:
            best = int((boxes[:, 2:] - boxes[:, :2]).prod(axis=1).argmax())
        else:
            best = int(np.abs(boxes - before).sum(axis=1).argmin())
        followed[number], before = seen[best], boxes[best]
    return followed


def _box(person: np.ndarray) -> np.ndarray:
    places = person[person[:, 2] > 0, :2]
    return np.concatenate([places.min(axis=0), places.max(axis=0)])


def _shares(points: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    if not np.isfinite(points).all():
        raise ValueError("holds numbers that are not finite")
    found = points[..., 2] > 0
    places = points[found][:, :2]
    if np.abs(places).max() <= 1.0:  # OpenPose's keypoint_scale 3 or 4
        scaled = (points[..., :2] + 1) / 2 if places.min() < 0 else points[..., :2]
    elif all(canvas):
        scaled = points[..., :2] / canvas
    else:
        raise ValueError("holds pixels, and does not tell of which canvas: give --pose-size WIDTHxHEIGHT")
    confidence = np.clip(points[..., 2:], 0, 1)
    return np.where(found[..., None], np.concatenate([scaled, confidence], axis=-1), 0.0).astype(np.float32)
