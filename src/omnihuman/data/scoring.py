"""The step `score`: one decode per clip, shared by all scorers, inside workers that can be killed."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from omnihuman.config.schema.score import Score
from omnihuman.data.fingerprints import fingerprint
from omnihuman.data.imported_scores import Imported, read_imported
from omnihuman.data.manifest import SCORES, SOURCES_TABLE, STRIPS, ClipFile, clip_file, read_table, write_table
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, failed
from omnihuman.data.scorers.registry import check_weights, scorers_for
from omnihuman.data.sidecar import read_keypoints
from omnihuman.data.strips import strip_of
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.storage.files import file_sha256
from omnihuman.storage.work import code_key, content_key, work_folder

SAMPLE_RATE = 16000
CLIPS_PER_CHUNK = 16
"""Finished clips are kept in files of so many; a killed run loses less than one."""
NOT_MEASURED = "the clip could not be measured"


@dataclass(frozen=True)
class Scored:
    """What came of one clip."""

    rows: list[dict]
    """Of the score table."""
    strip: bytes = b""
    """JPEG; empty where the clip could not be decoded."""
    fingerprint: bytes = b""


def score(config: Score, sources: Path, clips: Path, scores: Path, strips: Path) -> None:
    """Measures every clip with every scorer and writes the score table.

    Finished clips outlive a killed call, and a call with more clips than the last one decodes the new ones only. Errors
    and timeouts are rows, and are tried again by the next call. Neither the number of workers nor a resume changes a
    byte of the table.

    Args:
        sources: folder with sources.parquet.
        clips: Parquet file of the step `split`.
        scores: output, Parquet.
        strips: output, Parquet: a strip of frames, and the fingerprint, of every clip that could be decoded.
    """
    table = read_table(clips).merge(
        read_table(sources / SOURCES_TABLE)[["source_id", "sha256", "path", "keypoints_path"]], on="source_id"
    )
    imported = read_imported(config, table)
    scorers = _not_imported(config, imported.names)
    check_weights(scorers)
    measurable = {row["clip_id"]: clip_file(row, sources) for row in table[table["status"] == "ok"].to_dict("records")}
    code = code_key(
        "data/fingerprints.py",
        "data/scorers",
        "data/scoring.py",
        "data/strips.py",
        "media/seeking.py",
        "media/video.py",
        "media/sound.py",
        "encoders/aesthetics.py",
        "encoders/pose_estimator.py",
        "encoders/small_syncnet.py",
        "encoders/syncnet.py",
    )
    folder = work_folder(content_key(params=params_hash(config), scorers=_describe(scorers), code=code))
    keys = {clip_id: _clip_key(job) for clip_id, job in measurable.items()}
    results = _restore(folder, {key: clip_id for clip_id, key in keys.items()})
    open_jobs = [job for clip_id, job in measurable.items() if clip_id not in results]
    for job, scored in _measure(config, open_jobs, folder, keys, imported.names):
        results[job.clip_id] = scored
    for row in read_table(clips).to_dict("records"):
        if row["status"] != "ok":
            rows = _all_failed(config, row["clip_id"], row["status"], row["error"])
            results[row["clip_id"]] = Scored(rows)
    in_order = {clip_id: results[clip_id] for clip_id in read_table(clips)["clip_id"]}
    rows = [row for clip_id, scored in in_order.items() for row in _with_imported(clip_id, scored.rows, imported)]
    write_table(rows, SCORES, scores)
    write_table(_strip_rows(in_order), STRIPS, strips)


def measure(scorers: Iterable[Scorer], content: ClipContent) -> list[Measurement]:
    """Applies all scorers; what one of them raises becomes its own rows with status `error`."""
    measurements: list[Measurement] = []
    for scorer in scorers:
        try:
            answers = scorer.measure(content)
        except Exception as error:  # a scorer's defect must not cost the other scores of the clip
            answers = failed(scorer.names, "error", f"{type(error).__name__}: {error}")
        measurements += [_checked(answer) for answer in answers]
    return measurements


def params_hash(config: Score) -> str:
    """Hash of the parameters that change values; limits on time and memory do not."""
    return content_key(short_side_pixels=config.short_side_pixels, fps=config.fps, sample_rate=SAMPLE_RATE)


def _checked(answer: Measurement) -> Measurement:
    if answer.status == "ok" and not math.isfinite(answer.value):
        return failed((answer.scorer,), "error", "the scorer gave no finite number")[0]
    return answer


def _not_imported(config: Score, imported: tuple[str, ...]) -> tuple[Scorer, ...]:
    """The scorers that have to be run; one that measures several things also where some of them were imported."""
    return tuple(scorer for scorer in scorers_for(config) if not set(scorer.names) <= set(imported))


def _with_imported(clip_id: str, rows: list[dict], imported: Imported) -> list[dict]:
    """Imported scores take the place of measured ones, never clip by clip: two scorers share no threshold."""
    kept = [row for row in rows if row["scorer"] not in imported.names]
    return [*kept, *imported.rows(clip_id, content_key(version=imported.version))] if imported.names else kept


def _describe(scorers: Iterable[Scorer]) -> list[list[str]]:
    return [[*scorer.names, scorer.version, scorer.implementation, scorer.weights_sha256] for scorer in scorers]


def _clip_key(job: ClipFile) -> str:
    """Hash of a clip's content: clip ids are hashes of the video and the span; the declared pose comes on top."""
    path = job.keypoints_path
    return key_of_clip(job.clip_id, file_sha256(path) if path and path.is_file() else path)


def key_of_clip(clip_id: str, keypoints: str | Path | None) -> str:
    """By what kept scores of a clip are found again; `keypoints` is the SHA-256 of its pose, None without one."""
    return content_key(clip_id=clip_id, keypoints=str(keypoints))


def _measure(
    config: Score, jobs: list[ClipFile], folder: Path, keys: dict[str, str], imported: tuple[str, ...]
) -> Iterable[tuple[ClipFile, Scored]]:
    """Yields each job with what came of it, and keeps what need not be tried again."""
    if not jobs:
        return
    limits = Limits(config.deadline_seconds, config.memory_megabytes, config.clips_per_worker)
    chunk: dict[str, Scored] = {}
    for outcome in run_guarded(partial(_measure_clip, config, imported), jobs, limits, "score"):
        job = jobs[outcome.index]
        if outcome.value is None:
            scored = Scored(_all_failed(config, job.clip_id, outcome.status, outcome.error))
        else:
            measurements, strip, mark = outcome.value
            scored = Scored(_rows(config, job.clip_id, measurements), strip, mark)
        yield job, scored
        if all(row["status"] in ("ok", "na") for row in scored.rows):
            chunk[keys[job.clip_id]] = scored
        if len(chunk) == CLIPS_PER_CHUNK or (chunk and job is jobs[-1]):
            _keep(folder, chunk)
            chunk = {}


def _measure_clip(config: Score, imported: tuple[str, ...], job: ClipFile) -> tuple[list[Measurement], bytes, bytes]:
    """Measurements, strip and fingerprint of one clip, from one decode; runs inside a guarded worker."""
    import cv2

    cv2.setNumThreads(1)
    frames = read_frames(
        job.path,
        fps=config.fps,
        short_side_pixels=config.short_side_pixels,
        start_seconds=job.start_seconds,
        end_seconds=job.end_seconds,
    )
    content = ClipContent(
        frames=frames,
        sound=read_sound(job.path, SAMPLE_RATE, job.start_seconds, job.end_seconds),
        keypoints=read_keypoints(job.keypoints_path) if job.keypoints_path else None,
        duration_seconds=job.end_seconds - job.start_seconds,
        fps=config.fps,
    )
    mark = fingerprint(content.grey, content.sound).to_bytes()
    return measure(_not_imported(config, imported), content), strip_of(frames.pixels), mark


def _rows(config: Score, clip_id: str, measurements: list[Measurement]) -> list[dict]:
    origin = {name: scorer for scorer in scorers_for(config) for name in scorer.names}
    common = {"clip_id": clip_id, "params_hash": params_hash(config)}
    return [
        {
            **common,
            **asdict(measurement),
            "implementation": origin[measurement.scorer].implementation,
            "version": origin[measurement.scorer].version,
            "weights_sha256": origin[measurement.scorer].weights_sha256,
        }
        for measurement in measurements
    ]


def _all_failed(config: Score, clip_id: str, status: str, error: str) -> list[dict]:
    names = tuple(name for scorer in scorers_for(config) for name in scorer.names)
    return _rows(config, clip_id, list(failed(names, status, error or NOT_MEASURED)))


def _strip_rows(scored: dict[str, Scored]) -> list[dict]:
    return [
        {"clip_id": name, "strip": one.strip, "fingerprint": one.fingerprint}
        for name, one in scored.items()
        if one.strip
    ]


def _keep(folder: Path, chunk: dict[str, Scored]) -> None:
    # The key of the clip's content stands in for its id, and comes back as id when restored. Strips come first: what is
    # restored has its scores, and then its strip too.
    name = content_key(clips=sorted(chunk))
    write_table(_strip_rows(chunk), STRIPS, folder / f"strips-{name}.parquet")
    rows = [{**row, "clip_id": key} for key, scored in chunk.items() for row in scored.rows]
    write_table(rows, SCORES, folder / f"chunk-{name}.parquet")


def _restore(folder: Path, clip_ids: dict[str, str]) -> dict[str, Scored]:
    """What came of finished clips by clip id; `clip_ids` maps keys of content to ids."""
    results: dict[str, Scored] = {}
    for path in sorted(folder.glob("chunk-*.parquet")):
        strips = read_table(path.with_name(path.name.replace("chunk-", "strips-"))).set_index("clip_id")
        for key, rows in read_table(path).groupby("clip_id", sort=False):
            if (clip_id := clip_ids.get(str(key))) is not None:
                kept = strips.loc[key] if key in strips.index else {}
                results[clip_id] = Scored(rows.assign(clip_id=clip_id).to_dict("records"), **kept)
    return results
