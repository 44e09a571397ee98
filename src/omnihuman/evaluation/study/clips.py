"""The systems' videos: found by item, checked for what would give a system away, and written anew alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path

import cv2
import numpy as np

from omnihuman.data.sources import VIDEO_SUFFIXES
from omnihuman.errors import UserError
from omnihuman.evaluation.study.description import Description
from omnihuman.media.picture import resize_picture
from omnihuman.media.probe import VideoProbe, probe
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.media.write import write_video
from omnihuman.storage.files import file_sha256

SAMPLE_RATE = 48000
_READING = Limits(deadline_seconds=1800.0, memory_megabytes=8192)
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_CHUNK_SECONDS = 4.0
"""Decoded at once, so that a long video needs little memory."""
_SAME_ASPECT = 0.02
"""Relative; models make sides of multiples, so that the same picture comes back in slightly other shapes."""
_DAMAGED_SIDE, _DAMAGED_FPS = 16, 5.0
"""Pixels of the shorter side and pictures a second that are left of a damaged video: too little to show lips, hands
or a face, so that nobody who looks can prefer it for anything."""


@dataclass(frozen=True)
class Clip:
    """How one video is written for the study."""

    source: Path
    width: int
    height: int
    seconds: float
    fps: float
    crf: int
    has_sound: bool


def find_videos(description: Description) -> dict[str, dict[str, Path]]:
    """Paths by item and system; items in the order of their names.

    Raises:
        UserError: a folder is missing or empty, an item is missing in a system or there twice.
    """
    found = {system: _videos_in(system, Path(folder)) for system, folder in description.systems.items()}
    items = description.items or tuple(sorted(set(chain.from_iterable(found.values()))))
    missing = [f"{system} has no {item}" for item in items for system, videos in found.items() if item not in videos]
    if missing:
        raise UserError(
            "\n  ".join(["study: every system needs a video of every item; add them, or name the items that all have"
                         " under `items`", *missing])
        )  # fmt: skip
    return {item: {system: found[system][item] for system in found} for item in items}


def _videos_in(system: str, folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"system {system}: no folder {folder}; give the folder that holds its videos")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
    videos = {path.stem: path for path in paths}
    if not videos:
        raise UserError(f"system {system}: no videos in {folder}; known are {', '.join(VIDEO_SUFFIXES)}")
    if len(videos) < len(paths):
        twice = next(path for path in paths if videos[path.stem] != path)
        raise UserError(f"system {system}: {twice} and {videos[twice.stem]} are one item; remove one of them")
    return videos


def find_references(description: Description, items: Sequence[str]) -> dict[str, Path]:
    """The person's picture of each item; empty where the study has none.

    Raises:
        UserError: an item has none, or several.
    """
    if not description.references:
        return {}
    pictures = [path for path in sorted(Path(description.references).glob("*")) if path.suffix.lower() in _PICTURES]
    found = {item: [path for path in pictures if path.stem == item] for item in items}
    if wrong := [f"{item} has {len(paths)}" for item, paths in found.items() if len(paths) != 1]:
        raise UserError("\n  ".join([f"references {description.references}: one picture an item is needed", *wrong]))
    return {item: paths[0] for item, paths in found.items()}


def plan_clips(description: Description, videos: Mapping[str, Mapping[str, Path]]) -> dict[tuple[str, str], Clip]:
    """How each video is written, by item and system: those of an item alike in size, length and sound.

    The size is that of the item's largest video; all are cut to the shortest.

    Raises:
        UserError: a video cannot be read, or those of an item differ in length, shape or whether they have sound. All
            are named.
    """
    paths = [path for systems in videos.values() for path in systems.values()]
    outcomes = list(run_guarded(probe, paths, _READING, "look"))
    if failed := [f"{paths[outcome.index]} {outcome.error}" for outcome in outcomes if outcome.value is None]:
        raise UserError("\n  ".join(["study: videos that cannot be read", *failed]))
    probes = {paths[outcome.index]: outcome.value for outcome in outcomes if outcome.value is not None}
    problems = [line for item, systems in videos.items() for line in _unlike(description, item, systems, probes)]
    if problems:
        raise UserError("\n  ".join(["study: videos of one item must be alike but for what they show", *problems]))
    return {
        (item, system): clip
        for item, systems in videos.items()
        for system, clip in _clips(description, systems, probes).items()
    }


def _unlike(
    description: Description, item: str, systems: Mapping[str, Path], probes: Mapping[Path, VideoProbe]
) -> Iterator[str]:
    found = {system: probes[path] for system, path in systems.items()}
    hashes = {system: file_sha256(path) for system, path in systems.items()}
    for first, second in combinations(systems, 2):
        if hashes[first] == hashes[second]:
            yield f"{item}: {first} and {second} are the same file; give systems that differ"
    seconds = [clip.duration_seconds for clip in found.values()]
    # Stamps are rounded; half a millisecond is no difference.
    if max(seconds) - min(seconds) > description.most_seconds_apart + 5e-4:
        told = ", ".join(f"{system} {clip.duration_seconds:.2f} s" for system, clip in found.items())
        yield f"{item}: lengths are {told}; cut them, or raise most_seconds_apart ({description.most_seconds_apart:g})"
    aspects = [clip.width / clip.height for clip in found.values()]
    if max(aspects) > min(aspects) * (1 + _SAME_ASPECT) and not description.letterbox:
        told = ", ".join(f"{system} {clip.width} x {clip.height}" for system, clip in found.items())
        yield f"{item}: shapes are {told}; crop them, or set letterbox: true (bars may tell the system)"
    silent = [system for system, clip in found.items() if not clip.audio_codec]
    if silent and len(silent) < len(found):
        yield f"{item}: no sound in {', '.join(silent)}; give all of them sound, or none"


def _clips(description: Description, systems: Mapping[str, Path], probes: Mapping[Path, VideoProbe]) -> dict[str, Clip]:
    found = [probes[path] for path in systems.values()]
    largest = max(found, key=lambda clip: clip.width * clip.height)
    seconds = min(clip.duration_seconds for clip in found)
    return {
        system: Clip(
            path,
            width=largest.width + largest.width % 2,
            height=largest.height + largest.height % 2,
            seconds=max(1, int(seconds * description.fps + 1e-3)) / description.fps,
            fps=description.fps,
            crf=description.crf,
            has_sound=bool(probes[path].audio_codec),
        )
        for system, path in systems.items()
    }


def write_clips(jobs: Sequence[tuple[Clip, Path, bool]]) -> None:
    """Writes clips to paths; those with True are damaged for an anchor.

    Raises:
        UserError: one cannot be decoded.
    """
    for outcome in run_guarded(_write, jobs, _READING, "write"):
        if outcome.status != "ok":
            raise UserError(f"study: {jobs[outcome.index][0].source} {outcome.error}")


def _write(job: tuple[Clip, Path, bool]) -> None:
    clip, path, is_damaged = job
    frames = (_fit(frame, clip.width, clip.height) for frame in _frames(clip))
    sound = read_sound(clip.source, SAMPLE_RATE, end_seconds=clip.seconds) if clip.has_sound else None
    write_video(path, _damage(frames, clip.fps) if is_damaged else frames, clip.fps, sound, clip.crf, faststart=True)


def _frames(clip: Clip) -> Iterator[np.ndarray]:
    """uint8 [H, W, 3] of the file's own size, as many as the clip has."""
    num_frames = round(clip.seconds * clip.fps)
    step = max(1, round(_CHUNK_SECONDS * clip.fps))
    for first in range(0, num_frames, step):
        start, end = first / clip.fps, min(first + step, num_frames) / clip.fps
        yield from read_frames(clip.source, fps=clip.fps, start_seconds=start, end_seconds=end).pixels


def _fit(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """The whole frame, as large as fits, in the middle of black; without bars where the shapes are nearly equal."""
    own_height, own_width = frame.shape[:2]
    if max(own_width * height, own_height * width) <= min(own_width * height, own_height * width) * (1 + _SAME_ASPECT):
        return frame if (own_width, own_height) == (width, height) else resize_picture(frame, width, height)
    scale = min(width / own_width, height / own_height)
    inner = resize_picture(frame, max(1, round(own_width * scale)), max(1, round(own_height * scale)))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner.shape[0]) // 2, (width - inner.shape[1]) // 2
    canvas[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return canvas


def _damage(frames: Iterator[np.ndarray], fps: float) -> Iterator[np.ndarray]:
    held, every = None, max(2, round(fps / _DAMAGED_FPS))
    for index, frame in enumerate(frames):
        if held is None or index % every == 0:
            height, width = frame.shape[:2]
            scale = _DAMAGED_SIDE / min(height, width)
            few = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            held = cv2.resize(few, (width, height), interpolation=cv2.INTER_LINEAR)
        yield held
