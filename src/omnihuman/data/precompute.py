"""The step `encode`: eligible clips become latents, sound features, keypoints and text embeddings in shards."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from omnihuman.batch import KEYPOINT_SETS
from omnihuman.config.schema.encode import Encode
from omnihuman.data.clip_encoding import EncodedSizes, Job, encode_clip, encoders_of
from omnihuman.data.manifest import SAMPLES, SOURCES_TABLE, clip_file, read_table, write_table
from omnihuman.data.shards import Encoders, save_empty_text, save_shard
from omnihuman.encoders import factory
from omnihuman.encoders.sizes import encoded_sizes
from omnihuman.errors import UserError
from omnihuman.media.worker import Limits, Outcome, RunGuarded, run_guarded
from omnihuman.storage.files import publish_folder
from omnihuman.storage.work import code_key, content_key, held_work_folder


def encode(
    config: Encode, sources: Path, clips: Path, decisions: Path, encoded: Path, run: RunGuarded = run_guarded
) -> None:
    """Encodes every clip that may train at least text, into `encoded`.

    A killed call goes on with the first unfinished shard: finished ones lie in the work folder of their content.

    Args:
        sources: folder with sources.parquet.
        clips, decisions: Parquet files of the steps before.
        encoded: output folder: samples.parquet, encoders.json, shard-*.safetensors.
        run: where the clips are encoded.

    Raises:
        UserError: no clip is eligible, or an encoder's weights are missing.
    """
    table = _eligible_clips(sources, clips, decisions)
    if table.empty:
        raise UserError(
            "no clip is eligible for text: see reports/funnel.html for why, loosen conf/policy or add videos"
        )
    description, empty_text = describe(config)
    rows: list[dict] = []
    with publish_folder(encoded) as folder:
        description.save(folder / "encoders.json")
        save_empty_text(folder, empty_text)
        starts = range(0, len(table), config.shard_clips)
        for number, start in enumerate(starts):
            part = table.iloc[start : start + config.shard_clips]
            name = f"shard-{number:05d}.safetensors"
            rows += _encode_shard(
                config, description, sources, part, folder / name, f"encode {number + 1}/{len(starts)}", run
            )
        write_table(rows, SAMPLES, folder / "samples.parquet")
    if not any(row["status"] == "ok" for row in rows):
        raise UserError(f"none of {len(rows)} eligible clips could be encoded, the first because: {rows[0]['error']}")


def describe(config: Encode) -> tuple[Encoders, np.ndarray]:
    """Names, widths and weights of the configured encoders, and the embedding of the empty prompt.

    Lets go of the encoders again: their weights are to lie in the workers only.

    Raises:
        UserError: an encoder is unknown or its weights are missing.
    """
    codec, speech, text = encoders_of(config)
    description = Encoders(
        video_codec=codec.name,
        video_weights=config.video_weights,
        video_weights_sha256=factory.weights_sha256(codec),
        video_tile_pixels=config.video_tile_pixels if config.video_tiling else 0,
        video_tile_stride_pixels=config.video_tile_stride_pixels if config.video_tiling else 0,
        speech_encoder=speech.name,
        speech_weights=config.speech_weights,
        speech_weights_sha256=factory.weights_sha256(speech),
        text_encoder=text.name,
        text_weights=config.text_weights,
        text_weights_sha256=factory.weights_sha256(text),
        fps=config.fps,
        num_frames=config.num_frames,
        resolutions=config.resolutions,
        size_multiple=config.size_multiple,
        max_aspect=config.max_aspect,
        max_text_tokens=config.max_text_tokens,
        latent_channels=codec.num_channels,
        speech_width=speech.width,
        speech_layers=speech.num_layers,
        text_width=text.width,
        num_keypoints=len(KEYPOINT_SETS[config.keypoints]),
    )
    empty_text = text.encode("")
    factory.forget()
    return description, empty_text


def _eligible_clips(sources: Path, clips: Path, decisions: Path) -> pd.DataFrame:
    """One row per clip that may train text, with its source's columns and a flag per stronger modality."""
    decided = read_table(decisions).pivot(index="clip_id", columns="modality", values="eligible")
    decided = decided.reindex(columns=["text", "audio", "pose"]).add_suffix("_eligible").reset_index()
    table = read_table(clips).query("status == 'ok'").merge(decided, on="clip_id")
    origin = read_table(sources / SOURCES_TABLE).drop(columns=["status", "error"])
    table = table[table["text_eligible"].astype(bool)].merge(origin, on="source_id")
    return table.sort_values("clip_id", ignore_index=True)


def _encode_shard(
    config: Encode,
    description: Encoders,
    sources: Path,
    part: pd.DataFrame,
    shard: Path,
    progress: str,
    run: RunGuarded,
) -> list[dict]:
    """Encodes or restores one shard and returns its rows of the sample table."""
    columns = ["clip_id", "sha256", "start_seconds", "end_seconds", "caption", "keypoints_sha256"]
    key = content_key(
        encoders=_without_paths(asdict(description)),
        config=_without_paths(asdict(config)),
        clips=part[columns].values.tolist(),
        code=code_key(
            "encoders",
            *(f"data/{name}.py" for name in ("clip_encoding", "precompute", "shards", "sidecar", "speech_features")),
            "media/seeking.py",
            "media/video.py",
            "media/picture.py",
            "media/sound.py",
        ),
    )
    with held_work_folder(key) as finished:
        rows = _finished_shard(config, description, sources, part, finished, progress, run)
        shutil.copyfile(finished / "shard.safetensors", shard)
        if any(row["status"] != "ok" for row in rows):
            shutil.rmtree(finished)  # errors and timeouts are tried again by the next call
    flags = part.set_index("clip_id")[["audio_eligible", "pose_eligible", "identity", "split"]]
    return [{**row, **flags.loc[row["clip_id"]].to_dict(), "shard": shard.name} for row in rows]


def _without_paths(parts: dict) -> dict:
    """Weights count by their hash: the same ones in another place are the same work."""
    return {key: value for key, value in parts.items() if not key.endswith("_weights")}


def _finished_shard(
    config: Encode,
    description: Encoders,
    sources: Path,
    part: pd.DataFrame,
    finished: Path,
    progress: str,
    run: RunGuarded,
) -> list[dict]:
    """Rows of a shard that lies in the folder `finished`, encoded now if it is not there yet."""
    if not (finished / "samples.parquet").exists():
        limits = Limits(config.deadline_seconds, config.memory_megabytes)
        jobs = [_job(row, sources, config) for row in part.to_dict("records")]
        outcomes = list(run(partial(encode_clip, config), jobs, limits, progress))
        encoded = [(job.clip_id, outcome.value) for job, outcome in zip(jobs, outcomes, strict=True) if outcome.value]
        smaller = [(clip_id, pictures) for clip_id, one in encoded for pictures in one.smaller]
        clips = [(clip_id, one.clip) for clip_id, one in encoded]
        save_shard(finished / "shard.safetensors", clips, description, smaller)
        rows = [
            row
            for record, job, outcome in zip(part.to_dict("records"), jobs, outcomes, strict=True)
            for row in _sample_rows(record, job, outcome)
        ]
        write_table(rows, SAMPLES, finished / "samples.parquet")
    return read_table(finished / "samples.parquet").to_dict("records")


def _job(row: dict, sources: Path, config: Encode) -> Job:
    sizes = encoded_sizes(row["width"], row["height"], config)
    return Job(**vars(clip_file(row, sources)), sizes=sizes, caption=row["caption"])


def _sample_rows(record: dict, job: Job, outcome: Outcome[EncodedSizes]) -> list[dict]:
    """One for each size; of a clip that could not be encoded the first alone."""
    clip = outcome.value.clip if outcome.value else None
    common = {
        "clip_id": job.clip_id,
        "shard": "",
        "identity": record["identity"],
        "split": record["split"],
        "num_windows": len(clip.latents) if clip else 0,
        "num_frames": len(clip.keypoints) if clip else 0,
        "caption": job.caption,
        "audio_eligible": record["audio_eligible"],
        "pose_eligible": record["pose_eligible"],
        "status": outcome.status,
        "error": outcome.error,
    }
    larger = [0, *(size.area_pixels for size in job.sizes)]
    rows = [common | asdict(size) | {"larger_area_pixels": area} for size, area in zip(job.sizes, larger, strict=False)]
    return rows if clip else rows[:1]
