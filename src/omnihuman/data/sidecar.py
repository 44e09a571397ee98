"""Files beside a video that say who is shown, what happens, and under which rights."""

import json
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from omnihuman.batch import KEYPOINT_SETS, Keypoints

SIDECAR_SUFFIXES = (".json", ".txt", ".keypoints.npz")
"""What may follow NAME beside NAME.mp4."""


@dataclass(frozen=True)
class Sidecar:
    """NAME.json beside NAME.mp4; every key is optional, and an empty text means that it is not stated."""

    identity: str = ""
    caption: str = ""  # or the text of NAME.txt
    language: str = ""
    licence: str = ""
    consent_basis: str = ""
    rights_holder: str = ""
    takedown_key: str = ""


def read_sidecar(video: Path) -> Sidecar:
    """Reads NAME.json and NAME.txt beside a video.

    Raises:
        ValueError: one of them is malformed or has an unknown key; a mistyped licence must not pass for none.
    """
    values: dict[str, str] = {}
    path = video.with_suffix(".json")
    known = [field.name for field in fields(Sidecar)]
    if path.is_file():
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the sidecar {path.name} is no JSON in UTF-8") from error
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            raise ValueError(f"the sidecar {path.name} is no object of texts")
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(
                f"the sidecar {path.name} has the unknown key {unknown[0]!r}; known are {', '.join(known)}"
            )
    if not values.get("caption"):
        values = {**values, "caption": _read_caption(video.with_suffix(".txt"))}
    return Sidecar(**values)


def keypoints_path(video: Path) -> Path:
    """Where the pose declared for a video lies."""
    return video.with_suffix(".keypoints.npz")


def read_keypoints(path: Path) -> Keypoints:
    """Reads a declared pose: arrays points [F, 17, 3] or [F, 133, 3] and seconds [F].

    Raises:
        ValueError: the file is malformed.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            points = np.asarray(arrays["points"], dtype=np.float32)
            seconds = np.asarray(arrays["seconds"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} is no archive with the arrays points and seconds") from error
    known = [(len(names), 3) for names in KEYPOINT_SETS.values()]
    if points.ndim != 3 or points.shape[1:] not in known or seconds.shape != points.shape[:1]:
        shapes = f"points {list(points.shape)} and seconds {list(seconds.shape)}"
        expected = " or ".join(f"[F, {count}, 3]" for count, _ in known)
        raise ValueError(f"{path.name} has {shapes}; expected {expected} and [F]")
    if len(seconds) == 0 or not np.isfinite(points).all() or not (np.diff(seconds) > 0).all() or seconds[0] < 0:
        raise ValueError(f"{path.name} needs finite points at seconds that rise from 0 or later")
    return Keypoints(points, seconds)


def fit_keypoints(points: np.ndarray, count: int) -> np.ndarray:
    """Points [F, K, 3] as [F, count, 3]: those beyond are left out, those that were not declared are not seen."""
    return np.pad(points[:, :count], ((0, 0), (0, max(0, count - points.shape[1])), (0, 0)))


def _read_caption(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        return " ".join(path.read_text(encoding="utf-8").split())
    except ValueError as error:
        raise ValueError(f"the caption {path.name} is not in UTF-8") from error
