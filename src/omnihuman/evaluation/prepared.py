"""Items brought to what a protocol says: a picture, a sound and a pose as files, for any system to start from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy.io import wavfile

from omnihuman.batch import Sound
from omnihuman.config.schema.protocol import Clips, EvaluationProtocol
from omnihuman.data.sidecar import read_keypoints
from omnihuman.evaluation.items import Item, raise_all
from omnihuman.evaluation.metrics.measure import SAMPLE_RATE
from omnihuman.inference.pose_inputs import read_pose
from omnihuman.inference.request import InputOptions
from omnihuman.media.picture import read_picture
from omnihuman.media.probe import probe
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, num_workers, run_guarded

_MAX_SECONDS = 3600.0
_FILES_PER_WORKER = 6
"""A worker takes about as long to start as to read so many short videos."""


@dataclass(frozen=True)
class PreparedItem:
    """An item as every system gets it, and what its video must be like."""

    item: str
    person: str
    num_frames: int = 0
    """0: not known; the video decides."""
    width: int = 0
    height: int = 0
    text: str = ""
    picture: Path | None = None
    """PNG of this width and height; None where only videos are known."""
    sound: Path | None = None
    """WAV as long as the video, within a frame."""
    pose: Path | None = None
    """ITEM.keypoints.npz at the protocol's rate, from second 0 on."""
    picture_pose: Path | None = None
    """ITEM.picture.keypoints.npz, of one moment; None where the pose in the picture is not known."""
    video: Path | None = None
    """The real one, as it is."""
    span: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Poses:
    """In shares of the canvas that they were found in."""

    driving: np.ndarray | None  # float32 [F, K, 3] at the protocol's rate
    of_picture: np.ndarray | None  # float32 [K, 3]


def prepare(items: Sequence[Item], protocol: EvaluationProtocol, folder: Path) -> list[PreparedItem]:
    """Writes ITEM.png, and ITEM.wav, ITEM.keypoints.npz and ITEM.picture.keypoints.npz as far as known, into `folder`.

    Raises:
        UserError: files that cannot be read, each with its item.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Poses are read here and not in the workers, because a video of a skeleton is read in a worker of its own.
    posed = [(item, _poses(item, protocol)) for item in items]
    outcomes = list(run_guarded(partial(_prepare, protocol, folder), posed, reading(len(items)), "prepare items"))
    failed = [(item, outcome) for item, outcome in zip(items, outcomes, strict=True) if outcome.value is None]
    raise_all("items", [f"{item.item}: {outcome.error}" for item, outcome in failed])
    return [outcome.value for outcome in outcomes if outcome.value is not None]


def driving_pose(item: PreparedItem) -> np.ndarray | None:
    """float32 [F, K, 3], the pose that drives; None without one."""
    return None if item.pose is None else read_keypoints(item.pose).points


def pose_in_picture(item: PreparedItem) -> np.ndarray | None:
    """float32 [K, 3]; None where it is not known."""
    return None if item.picture_pose is None else read_keypoints(item.picture_pose).points[0]


def reading(count: int) -> Limits:
    """Of workers that read so many files."""
    workers = max(1, min(num_workers(), count // _FILES_PER_WORKER))
    return Limits(deadline_seconds=600.0, memory_megabytes=8192, workers=workers)


def fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3]: covers width and height, and what juts out is cut off."""
    image = Image.fromarray(picture)
    return np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))


def read_real(item: PreparedItem, fps: float) -> np.ndarray:
    """uint8 [F, H, W, 3], at most `num_frames`; runs inside a guarded worker.

    Raises:
        ValueError: the real video cannot be decoded.
    """
    assert item.video is not None
    start, end = _span(item.video, item.span, item.num_frames / fps)
    frames = read_frames(item.video, fps=fps, start_seconds=start, end_seconds=end).pixels[: item.num_frames]
    if frames.shape[1:3] == (item.height, item.width):
        return frames
    return np.stack([fit(frame, item.width, item.height) for frame in frames])


def _span(video: Path, span: tuple[float, float] | None, seconds: float) -> tuple[float, float]:
    """Start and end in a real video, at most `seconds` long."""
    start, end = span or (0.0, math.inf)
    return start, min(end, start + seconds, probe(video).duration_seconds)


def _prepare(protocol: EvaluationProtocol, folder: Path, posed: tuple[Item, _Poses]) -> PreparedItem:
    """Writes one item; runs inside a guarded worker."""
    (item, poses), clips = posed, protocol.clips
    seconds = clips.max_seconds or _MAX_SECONDS
    span = _span(item.video, item.span, seconds) if item.video is not None else None
    source = _picture(item, clips, span)
    width, height = _size(item, clips, source)
    picture = fit(source, width, height)
    Image.fromarray(picture).save(folder / f"{item.item}.png")
    sound = _sound(item, span) if "audio" in protocol.driven_by else None
    lengths = [seconds, math.inf if span is None else span[1] - span[0]]
    lengths += [] if sound is None else [len(sound.samples) / SAMPLE_RATE]
    num_frames = max(1, round(min(lengths) * clips.fps))
    ready = PreparedItem(
        item=item.item,
        person=item.person,
        num_frames=num_frames if poses.driving is None else min(num_frames, len(poses.driving)),
        width=width,
        height=height,
        text=item.text,
        picture=folder / f"{item.item}.png",
        video=item.video,
        span=item.span,
    )
    if sound is not None:
        ready = replace(ready, sound=folder / f"{item.item}.wav")
        samples = sound.samples[: round(ready.num_frames / clips.fps * SAMPLE_RATE)]
        wavfile.write(ready.sound, SAMPLE_RATE, np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16))
    moments = np.arange(ready.num_frames) / clips.fps
    canvas = source.shape[1] / source.shape[0]
    if poses.driving is not None:
        ready = replace(ready, pose=folder / f"{item.item}.keypoints.npz")
        points = _shown(poses.driving[: ready.num_frames], canvas, width / height)
        np.savez(folder / f"{item.item}.keypoints.npz", points=points, seconds=moments)
    if poses.of_picture is not None:
        ready = replace(ready, picture_pose=folder / f"{item.item}.picture.keypoints.npz")
        points = _shown(poses.of_picture[None], canvas, width / height)
        np.savez(folder / f"{item.item}.picture.keypoints.npz", points=points, seconds=moments[:1])
    return ready


def _picture(item: Item, clips: Clips, span: tuple[float, float] | None) -> np.ndarray:
    """The given picture, or the first one of the real video, uint8 [H, W, 3]."""
    if item.picture is not None:
        return read_picture(item.picture)
    assert item.video is not None and span is not None
    return read_frames(item.video, fps=clips.fps, start_seconds=span[0], end_seconds=span[1]).pixels[0]


def _size(item: Item, clips: Clips, picture: np.ndarray) -> tuple[int, int]:
    """Width and height of an item's videos, both even."""
    if clips.width:
        return clips.width, clips.height
    facts = None if item.video is None else probe(item.video)
    width, height = (picture.shape[1], picture.shape[0]) if facts is None else (facts.width, facts.height)
    return width // 2 * 2, height // 2 * 2


def _shown(points: np.ndarray, canvas: float, aspect: float) -> np.ndarray:
    """Keypoints [..., 3] in shares of a canvas, as shares of the part of it that `fit` shows.

    Args:
        canvas, aspect: width over height of the canvas, and of what is shown.
    """
    part = np.array([min(1.0, aspect / canvas), min(1.0, canvas / aspect)])
    moved = (points[..., :2] - (1 - part) / 2) / part
    return np.concatenate([moved, points[..., 2:]], axis=-1).astype(np.float32)


def _sound(item: Item, span: tuple[float, float] | None) -> Sound:
    """At 16 kHz: the given sound, or that of the real video."""
    if item.sound is not None:
        sound, path = read_sound(item.sound, SAMPLE_RATE), item.sound
    else:
        assert item.video is not None and span is not None
        sound, path = read_sound(item.video, SAMPLE_RATE, *span), item.video
    if sound is None or not len(sound.samples):
        raise ValueError(f"{path.name} holds no sound")
    return sound


def _poses(item: Item, protocol: EvaluationProtocol) -> _Poses:
    """As far as they are known; a pose of the real video tells that of the picture which is taken from it."""
    track = None if item.pose is None else _track(item.pose, item, protocol.clips.fps)
    of_picture = None
    if item.picture_pose is not None:
        of_picture = read_pose(item.picture_pose, InputOptions()).keypoints.points[0]
    elif track is not None and item.picture is None:
        of_picture = track[0]
    if of_picture is not None and not of_picture[:, 2].any():
        of_picture = None  # a track that begins before anybody is seen
    return _Poses(track if "pose" in protocol.driven_by else None, of_picture)


def _track(path: Path, item: Item, fps: float) -> np.ndarray:
    """float32 [F, K, 3] at the protocol's rate from the clip's first moment on."""
    keypoints = read_pose(path, InputOptions()).keypoints
    begin = item.span[0] if item.span else 0.0
    num_frames = round((float(keypoints.seconds[-1]) - begin) * fps) + 1
    raise_all("items", [] if num_frames > 0 else [f"{item.item}: the pose ends before {begin:g} s, where it begins"])
    moments = begin + np.arange(num_frames) / fps
    seconds = keypoints.seconds
    return keypoints.points[np.searchsorted((seconds[1:] + seconds[:-1]) / 2, moments - 1e-9)]
