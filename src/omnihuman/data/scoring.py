"""The step `score`: one decode per clip, shared by all scorers, inside workers that can be killed."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from omnihuman.config.schema.score import Score
from omnihuman.data.fingerprints import fingerprint
from omnihuman.data.imported_scores import Imported, read_imported
from omnihuman.data.kept_scores import KeptScores, Scored, in_order
from omnihuman.data.manifest import SCORES, SOURCES_TABLE, STRIPS, ClipFile, clip_file, read_table, table_writer
from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, failed
from omnihuman.data.scorers.registry import check_weights, scorers_for
from omnihuman.data.sidecar import read_keypoints
from omnihuman.data.strips import strip_of
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, RunGuarded, run_guarded
from omnihuman.storage.files import file_sha256
from omnihuman.storage.work import code_key, content_key, work_folder

SAMPLE_RATE = 16000
CLIPS_PER_BLOCK = 1024
"""The tables are written in blocks of so many clips."""
NOT_MEASURED = "the clip could not be measured"


def score(config: Score, sources: Path, clips: Path, scores: Path, strips: Path, run: RunGuarded = run_guarded) -> None:
    """Measures every clip with every scorer and writes the score table.

    Finished clips outlive a killed call, and a call with more clips than the last one decodes the new ones only. Errors
    and timeouts are rows, and are tried again by the next call. Neither where the clips are measured, nor a resume, nor
    the order in which they are finished changes a byte of the tables; of these, only a block lies in memory.

    Args:
        sources: folder with sources.parquet.
        clips: Parquet file of the step `split`.
        scores: output, Parquet.
        strips: output, Parquet: a strip of frames, and the fingerprint, of every clip that could be decoded.
        run: where the clips are measured.
    """
    table = read_table(clips).merge(
        read_table(sources / SOURCES_TABLE)[["source_id", "sha256", "path", "keypoints_path"]],
        on="source_id",
        how="left",  # keeps the order
    )
    imported = read_imported(config, table)
    scorers = _not_imported(config, imported.names)
    check_weights(scorers)
    usable = table[table["status"] == "ok"]
    keys = {job.clip_id: _clip_key(job) for job in _clip_files(usable, sources)}
    folder = work_folder(content_key(params=params_hash(config), scorers=_describe(scorers), code=_code_key()))
    kept = KeptScores(folder, keys.values())
    left = usable[[keys[clip_id] not in kept for clip_id in usable["clip_id"]]]
    with TemporaryDirectory(dir=folder) as unfinished:
        failed_now = KeptScores(Path(unfinished))
        for job, scored in _measure(config, list(_clip_files(left, sources)), imported.names, run):
            done = all(row["status"] in ("ok", "na") for row in scored.rows)
            (kept if done else failed_now).add(keys[job.clip_id], scored)
        kept.flush()
        failed_now.flush()
        with table_writer(SCORES, scores) as write_scores, table_writer(STRIPS, strips) as write_strips:
            for start in range(0, max(1, len(table)), CLIPS_PER_BLOCK):
                block = table.iloc[start : start + CLIPS_PER_BLOCK]
                rows, pictures = _block(config, block, keys, (kept, failed_now), imported)
                write_scores(rows)
                write_strips(pictures)


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


def _code_key() -> str:
    return code_key(
        "data/fingerprints.py",
        "data/kept_scores.py",
        "data/scorers",
        "data/scoring.py",
        "data/sidecar.py",
        "data/strips.py",
        "media/seeking.py",
        "media/video.py",
        "media/sound.py",
        "encoders/aesthetics.py",
        "encoders/pose_estimator.py",
        "encoders/small_syncnet.py",
        "encoders/syncnet.py",
        "encoders/weights.py",
    )


def _clip_files(table: pd.DataFrame, sources: Path) -> Iterator[ClipFile]:
    return (clip_file(row._asdict(), sources) for row in table.itertuples(index=False))


def _block(
    config: Score, clips: pd.DataFrame, keys: dict[str, str], parts: Iterable[KeptScores], imported: Imported
) -> tuple[pa.Table, pa.Table]:
    """Score rows and strips of some clips, in their order."""
    clip_ids: list[str] = clips["clip_id"].tolist()
    own_keys = [keys.get(clip_id, clip_id) for clip_id in clip_ids]  # a clip that was not cut has no content
    found = [part.read(own_keys) for part in parts]
    not_cut = clips[clips["status"] != "ok"]
    rows = [
        row
        for clip_id, status, error in zip(not_cut["clip_id"], not_cut["status"], not_cut["error"], strict=True)
        for row in _all_failed(config, clip_id, status, error)
    ]
    measured = pa.concat_tables([pa.Table.from_pylist(rows, schema=SCORES), *(scores for scores, _ in found)])
    strips = pa.concat_tables([strips for _, strips in found])
    if imported.names:
        # They take the place of measured ones, never clip by clip: two scorers share no threshold.
        others = measured.filter(pc.invert(pc.is_in(measured["scorer"], value_set=pa.array(imported.names))))
        version = content_key(version=imported.version)
        pairs = zip(clip_ids, own_keys, strict=True)
        rows = [{**row, "clip_id": key} for clip_id, key in pairs for row in imported.rows(clip_id, version)]
        measured = pa.concat_tables([others, pa.Table.from_pylist(rows, schema=SCORES)])
    return in_order(measured, own_keys, clip_ids), in_order(strips, own_keys, clip_ids)


def _describe(scorers: Iterable[Scorer]) -> list[list[str]]:
    return [[*scorer.names, scorer.version, scorer.implementation, scorer.weights_sha256] for scorer in scorers]


def _clip_key(job: ClipFile) -> str:
    """Hash of a clip's content: clip ids are hashes of the video and the span; the declared pose comes on top."""
    path = job.keypoints_path
    keypoints = file_sha256(path) if path and path.is_file() else path
    return content_key(clip_id=job.clip_id, keypoints=str(keypoints))


def _measure(
    config: Score, jobs: list[ClipFile], imported: tuple[str, ...], run: RunGuarded
) -> Iterator[tuple[ClipFile, Scored]]:
    """Yields each job with what came of it."""
    limits = Limits(config.deadline_seconds, config.memory_megabytes, config.clips_per_worker)
    for outcome in run(partial(_measure_clip, config, imported), jobs, limits, "score"):
        job = jobs[outcome.index]
        if outcome.value is None:
            yield job, Scored(job.source_id, _all_failed(config, job.clip_id, outcome.status, outcome.error))
        else:
            measurements, strip, mark = outcome.value
            yield job, Scored(job.source_id, _rows(config, job.clip_id, measurements), strip, mark)


def _measure_clip(config: Score, imported: tuple[str, ...], job: ClipFile) -> tuple[list[Measurement], bytes, bytes]:
    """Measurements, strip and fingerprint of one clip, from one decode; runs inside a guarded worker."""
    import cv2

    cv2.setNumThreads(1)
    content = read_clip(config, job)
    mark = fingerprint(content.grey, content.sound).to_bytes()
    return measure(_not_imported(config, imported), content), strip_of(content.frames.pixels), mark


def read_clip(config: Score, job: ClipFile) -> ClipContent:
    """The one decode that all scorers share; the caveats of `read_frames` hold."""
    frames = read_frames(
        job.path,
        fps=config.fps,
        short_side_pixels=config.short_side_pixels,
        start_seconds=job.start_seconds,
        end_seconds=job.end_seconds,
    )
    return ClipContent(
        frames=frames,
        sound=read_sound(job.path, SAMPLE_RATE, job.start_seconds, job.end_seconds),
        keypoints=read_keypoints(job.keypoints_path) if job.keypoints_path else None,
        duration_seconds=job.end_seconds - job.start_seconds,
        fps=config.fps,
    )


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
