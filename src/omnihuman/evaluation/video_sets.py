"""A folder of videos, one an item, as metrics see them: checked as a whole, then read one at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from omnihuman.config.schema.protocol import Clips
from omnihuman.data.sidecar import read_sidecar
from omnihuman.data.sources import VIDEO_SUFFIXES
from omnihuman.errors import UserError
from omnihuman.evaluation.items import raise_all
from omnihuman.evaluation.metrics.measure import SAMPLE_RATE, Shown
from omnihuman.evaluation.prepared import PreparedItem, driving_pose, pose_in_picture, read_real, reading
from omnihuman.evaluation.scoring import Pair
from omnihuman.media.picture import read_picture
from omnihuman.media.probe import VideoProbe, probe
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import run_guarded

_FPS_TOLERANCE = 0.01
_BYTES_AHEAD = 400_000_000
"""Of decoded pictures that may wait: reading in a worker is faster than most metrics."""


@dataclass(frozen=True)
class VideoSet:
    """Checked videos with their items, in one order."""

    items: tuple[PreparedItem, ...]
    paths: tuple[Path, ...]
    clips: Clips

    def pairs(self) -> Iterator[Pair]:
        """Decodes one pair after another, in workers that can be killed.

        Raises:
            UserError: a video cannot be decoded.
        """
        read = partial(_read, self.clips.fps)
        for group in _groups(list(zip(self.items, self.paths, strict=True))):
            outcomes = run_guarded(read, group, reading(len(group)), "")
            for (item, path), outcome in zip(group, outcomes, strict=True):
                if outcome.value is None:
                    raise UserError(f"video {path}, item {item.item}: cannot be read ({outcome.error})")
                yield _pair(item, outcome.value, self.clips.fps)


def match_videos(folder: Path, items: Sequence[PreparedItem], clips: Clips) -> VideoSet:
    """The videos of a folder, matched by the stem of their names to items.

    Args:
        items: none: every video is an item of its own, without a real one.

    Raises:
        UserError: videos are missing or of no item, cannot be read, or differ from what the protocol says; all are
            listed.
    """
    found = videos_of(folder)
    if not items:
        items = [PreparedItem(stem, _person(path)) for stem, path in sorted(found.items())]
    names = {item.item for item in items}
    problems = [f"{name}: no video of this name is in {folder}" for name in sorted(names - found.keys())]
    problems += [f"{found[stem].name}: no item has this name" for stem in sorted(found.keys() - names)]
    matched = [(item, found[item.item]) for item in items if item.item in found]
    probes = list(run_guarded(probe, [path for _, path in matched], reading(len(matched)), "check videos"))
    known = []
    for (item, path), outcome in zip(matched, probes, strict=True):
        if outcome.value is None:
            problems.append(f"{path.name}: {outcome.error}")
            continue
        problems += [f"{path.name}: {problem}" for problem in _differences(item, outcome.value, clips)]
        known.append(_with_facts(item, outcome.value, clips.fps))
    raise_all(f"videos {folder}", problems)
    return VideoSet(tuple(known), tuple(path for _, path in matched), clips)


def videos_of(folder: Path) -> dict[str, Path]:
    """The videos of a folder by the stems of their names.

    Raises:
        UserError: there is no folder, no video, or two videos share a stem.
    """
    if not folder.is_dir():
        raise UserError(f"videos {folder}: no such folder")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in VIDEO_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"videos {folder}: {path.name} and {found[path.stem].name} have one name; remove one")
        found[path.stem] = path
    if not found:
        raise UserError(f"videos {folder}: holds no video ({', '.join(VIDEO_SUFFIXES)})")
    return found


def _person(path: Path) -> str:
    try:
        return read_sidecar(path).identity or path.stem
    except ValueError:  # a sidecar of another kind, as rendering writes it
        return path.stem


def _differences(item: PreparedItem, facts: VideoProbe, clips: Clips) -> Iterator[str]:
    wanted = (item.width, item.height) if item.width else (clips.width, clips.height)
    if wanted[0] and (facts.width, facts.height) != wanted:
        yield f"has {facts.width} x {facts.height} pixels, the item {wanted[0]} x {wanted[1]}; resize it"
    if abs(facts.fps - clips.fps) > _FPS_TOLERANCE:
        yield f"has {facts.fps:g} frames a second, the protocol {clips.fps:g}; convert it"
    elif item.num_frames and abs(facts.num_frames - item.num_frames) > clips.tolerance_frames:
        yield f"has {facts.num_frames} frames, the item {item.num_frames}; render it at the length of its sound or pose"


def _with_facts(item: PreparedItem, facts: VideoProbe, fps: float) -> PreparedItem:
    """The item of a bare video is as the video is."""
    if item.num_frames:
        return item
    return replace(item, num_frames=facts.num_frames, width=facts.width, height=facts.height)


def _groups(jobs: Sequence[tuple[PreparedItem, Path]]) -> Iterator[list[tuple[PreparedItem, Path]]]:
    """Jobs whose decoded pictures fit into memory together; each group has workers of its own."""
    group: list[tuple[PreparedItem, Path]] = []
    size = 0
    for job in jobs:
        own = 2 * 3 * job[0].num_frames * job[0].width * job[0].height
        if group and size + own > _BYTES_AHEAD:
            yield group
            group, size = [], 0
        group.append(job)
        size += own
    if group:
        yield group


@dataclass(frozen=True)
class _Decoded:
    """What one worker hands back."""

    frames: np.ndarray
    real: np.ndarray | None
    sound: np.ndarray | None
    reference: np.ndarray | None


def _read(fps: float, job: tuple[PreparedItem, Path]) -> _Decoded:
    """Decodes a video and what belongs to its item; runs inside a guarded worker."""
    item, path = job
    sound = read_sound(item.sound or path, SAMPLE_RATE)
    return _Decoded(
        frames=read_frames(path, fps=fps).pixels,
        real=None if item.video is None else read_real(item, fps),
        sound=None if sound is None else sound.samples,
        reference=None if item.picture is None else read_picture(item.picture),
    )


def _pair(item: PreparedItem, decoded: _Decoded, fps: float) -> Pair:
    """Both videos cut to the shortest length."""
    driving = driving_pose(item)
    lengths = [len(part) for part in (decoded.frames, decoded.real, driving) if part is not None]
    num_frames = min([*lengths, item.num_frames])
    sound = None if decoded.sound is None else decoded.sound[: round(num_frames / fps * SAMPLE_RATE)]
    generated = Shown(
        item=item.item,
        person=item.person,
        fps=fps,
        frames=decoded.frames[:num_frames],
        sound=sound,
        reference=decoded.reference,
        driving=None if driving is None else driving[:num_frames],
        reference_points=pose_in_picture(item),
    )
    return Pair(generated, None if decoded.real is None else replace(generated, frames=decoded.real[:num_frames]))
