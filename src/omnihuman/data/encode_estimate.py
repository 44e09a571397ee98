"""What encoding will cost, before it is begun: a few clips are encoded, timed and kept; others follow in proportion.

A clip's time is taken as proportional to the pixels that go through the video codec; its bytes follow from its shapes.
"""

import math
import shutil
import time
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from omnihuman.config.schema.encode import Encode
from omnihuman.data.clip_encoding import (
    REFERENCES_PER_CLIP,
    EncodedSizes,
    Job,
    encode_clip,
    encoders_here,
    window_starts,
)
from omnihuman.data.encoding_plan import Plan, Row
from omnihuman.data.imported_clips import keep_imported
from omnihuman.data.precompute import lengths_at
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.encoders.video_codec import SPATIAL_FACTOR, num_latent_frames
from omnihuman.errors import UserError
from omnihuman.media.worker import run_guarded
from omnihuman.storage.ranges import files_at

_TIMED_PER_WORKER = 4
_HALF, _SINGLE = 2, 4
"""Bytes of a number."""


@dataclass(frozen=True)
class Estimate:
    """Of a plan on this machine."""

    num_clips: int
    num_kept: int
    """Clips that are encoded already, here or in shards at `encode.shards_at`, the timed ones not counted."""
    num_too_short: int
    """Clips of less than one window, which will be errors."""
    num_timed: int
    video_seconds: float
    worker_seconds: float
    """That one worker would take for what is not encoded yet, the timed clips among it."""
    workers: int
    devices: list[str]
    shard_bytes: int
    bytes_there: int
    """Of shards that are at `encode.shards_at` already."""
    free_bytes: int
    """Below `$OMNIHUMAN_HOME`, where every clip is kept beside its shard."""

    def __str__(self) -> str:
        """For people."""
        lines = [
            f"{self.num_clips} clips, {_interval(self.video_seconds)} of video; {self.num_kept} are encoded already",
            f"work: {_interval(self.worker_seconds)} of one worker, {_interval(self.worker_seconds / self.workers)}"
            f" with {self.workers} on {', '.join(self.devices)}; {self.num_timed} clips were timed",
            f"bytes: {_bytes(self.shard_bytes)} of shards, of which {_bytes(self.bytes_there)} are at encode.shards_at;"
            f" the others lie below $OMNIHUMAN_HOME/work as well, where {_bytes(self.free_bytes)} are free",
        ]
        if self.num_too_short:
            lines.append(
                f"{self.num_too_short} clips are shorter than one window, an error each: see encode.num_frames"
            )
        return "\n".join(lines)


def _interval(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return f"{tqdm.format_interval(math.ceil(seconds))} h" if seconds >= 3600 else f"{seconds:.1f} s"


def _bytes(number: int) -> str:
    return tqdm.format_sizeof(number, "B")


def estimate(plan: Plan) -> Estimate:
    """Encodes and times a few clips that are not encoded yet, chosen by their content's hash, in the plan's workers.

    Raises:
        UserError: none of them could be encoded, or `encode.shards_at` cannot be used.
    """
    keep_imported(plan)
    there, bytes_there = _there(plan)
    good = [row for row in plan.rows if _num_windows(plan, row)]
    missing = [row for row in good if row["clip_id"] not in there and not plan.kept.has(row)]
    chosen = sorted(missing, key=lambda row: plan.kept.key_of([row]))[: _TIMED_PER_WORKER * plan.workers]
    timed = _time(plan, chosen)
    seconds_per_pixel = timed.seconds / timed.codec_pixels if timed.codec_pixels else 0.0
    to_come = [row for row in good if row["clip_id"] not in there]
    kept = [row for row in to_come if plan.kept.has(row)]
    left = [row for row in to_come if not plan.kept.has(row)]
    return Estimate(
        num_clips=len(plan.rows),
        num_kept=len(good) - len(missing),
        num_too_short=len(plan.rows) - len(good),
        num_timed=timed.num_clips,
        video_seconds=sum(row["end_seconds"] - row["start_seconds"] for row in plan.rows),
        worker_seconds=seconds_per_pixel * sum(_codec_pixels(plan, row) for row in missing),
        workers=plan.workers,
        devices=plan.devices,
        shard_bytes=bytes_there
        + sum(map(plan.kept.num_bytes, kept))
        + sum(round(_bytes_without_text(plan, row) + timed.text_bytes) for row in left),
        bytes_there=bytes_there,
        free_bytes=shutil.disk_usage(plan.kept.folder).free,
    )


def _there(plan: Plan) -> tuple[set[str], int]:
    """The clips that shards at `encode.shards_at` hold, and the bytes of these shards."""
    place = plan.config.shards_at
    if not place:
        return set(), 0
    found = {shard.name: lengths_at(place, shard.name) for shard in plan.shards()}
    num_bytes = sum(files_at(place).size(name) or 0 for name, clips in found.items() if clips)
    return {clip_id for clips in found.values() for clip_id in clips}, num_bytes


@dataclass(frozen=True)
class _Timed:
    num_clips: int = 0
    seconds: float = 0.0
    codec_pixels: int = 0
    text_bytes: float = 0.0  # of one clip


def _time(plan: Plan, rows: list[Row]) -> _Timed:
    """Encodes and keeps clips, at the pace of all workers at once."""
    if not rows:
        return _Timed()
    jobs = [plan.job(row) for row in rows]
    timed, error = _Timed(), ""
    text_bytes = 0
    function = partial(_timed_encode, plan.config, plan.devices)
    for outcome in run_guarded(function, jobs, plan.limits, "estimate"):
        row = rows[outcome.index]
        if outcome.value is None:
            error = error or outcome.error
            continue
        seconds, encoded = outcome.value
        plan.kept.keep(row, encoded)
        text_bytes += encoded.clip.text.nbytes
        pixels = timed.codec_pixels + _codec_pixels(plan, row)
        num_clips = timed.num_clips + 1
        timed = _Timed(num_clips, timed.seconds + seconds, pixels, text_bytes / num_clips)
    if not timed.num_clips:
        raise UserError(f"none of {len(rows)} clips could be encoded, the first because: {error}")
    return timed


def _timed_encode(config: Encode, devices: list[str], job: Job) -> tuple[float, EncodedSizes]:
    """Seconds of a clip without the loading of weights, which each worker does once."""
    encoders_here(config, devices)
    begin = time.perf_counter()
    encoded = encode_clip(config, devices, job)
    return time.perf_counter() - begin, encoded


def _num_frames(plan: Plan, row: Row) -> int:
    return int((row["end_seconds"] - row["start_seconds"]) * plan.config.fps + 0.5)


def _num_windows(plan: Plan, row: Row) -> int:
    num_frames = _num_frames(plan, row)
    return len(window_starts(num_frames, plan.config)) if num_frames >= plan.config.num_frames else 0


def _codec_pixels(plan: Plan, row: Row) -> int:
    """Over all windows, references and sizes."""
    frames = _num_windows(plan, row) * plan.config.num_frames + REFERENCES_PER_CLIP
    return frames * sum(size.width * size.height for size in plan.sizes(row))


def _bytes_without_text(plan: Plan, row: Row) -> int:
    """Of a clip's tensors, as `EncodedClip` states their shapes and types."""
    encoders, num_frames = plan.encoders, _num_frames(plan, row)
    latents = _num_windows(plan, row) * num_latent_frames(plan.config.num_frames) + REFERENCES_PER_CLIP
    positions = sum(size.width * size.height for size in plan.sizes(row)) // SPATIAL_FACTOR**2
    speech = num_frames * encoders.speech_layers * encoders.speech_width if plan.config.store_speech else 0
    seconds = row["end_seconds"] - row["start_seconds"] if row["audio_codec"] else 0.0
    keypoints = 3 * num_frames * encoders.num_keypoints
    numbers = latents * encoders.latent_channels * positions + speech + round(seconds * SAMPLE_RATE)
    return _HALF * numbers + _SINGLE * (keypoints + _num_windows(plan, row) + REFERENCES_PER_CLIP)
