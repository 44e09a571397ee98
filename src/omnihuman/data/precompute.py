"""The step `encode`: eligible clips become latents, sound features, keypoints and text embeddings in shards."""

import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from omnihuman.batch import KEYPOINT_SETS, Frames
from omnihuman.config.schema.encode import Encode
from omnihuman.data.manifest import SAMPLES, SOURCES_TABLE, read_table, source_path, write_table
from omnihuman.data.shards import EncodedClip, Encoders, save_empty_text, save_shard
from omnihuman.data.sidecar import fit_keypoints, read_keypoints
from omnihuman.data.speech_features import speech_features, to_int16
from omnihuman.encoders import factory
from omnihuman.encoders.factory import Choice
from omnihuman.encoders.sizes import encoded_size
from omnihuman.encoders.speech import SAMPLE_RATE, SpeechEncoder
from omnihuman.encoders.text import TextEncoder
from omnihuman.encoders.video_codec import VideoCodec
from omnihuman.errors import UserError
from omnihuman.media.sound import read_sound
from omnihuman.media.video import read_frames
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.storage.files import publish_folder
from omnihuman.storage.work import code_key, content_key, held_work_folder

_REFERENCES_PER_CLIP = 3


@dataclass(frozen=True)
class _Job:
    """One clip to encode."""

    clip_id: str
    path: Path
    keypoints_path: Path | None
    start_seconds: float
    end_seconds: float
    width: int
    height: int
    caption: str


def encode(config: Encode, sources: Path, clips: Path, decisions: Path, encoded: Path) -> None:
    """Encodes every clip that may train at least text, into `encoded`.

    A killed call goes on with the first unfinished shard: finished ones lie in the work folder of their content.

    Args:
        sources: folder with sources.parquet.
        clips, decisions: Parquet files of the steps before.
        encoded: output folder: samples.parquet, encoders.json, shard-*.safetensors.

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
                config, description, sources, part, folder / name, f"encode {number + 1}/{len(starts)}"
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
    codec, speech, text = _encoders(config)
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
        area_pixels=config.area_pixels,
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


def _encoders(config: Encode) -> tuple[VideoCodec, SpeechEncoder, TextEncoder]:
    """Built once in a process; a worker loads weights with its first clip, within that clip's limits."""
    tiles = (config.video_tile_pixels, config.video_tile_stride_pixels) if config.video_tiling else (0, 0)
    return (
        factory.video_codec(Choice(config.video_codec, config.video_weights), *tiles),
        factory.speech_encoder(Choice(config.speech_encoder, config.speech_weights)),
        factory.text_encoder(Choice(config.text_encoder, config.text_weights), config.max_text_tokens),
    )


def _eligible_clips(sources: Path, clips: Path, decisions: Path) -> pd.DataFrame:
    """One row per clip that may train text, with its source's columns and a flag per stronger modality."""
    decided = read_table(decisions).pivot(index="clip_id", columns="modality", values="eligible")
    decided = decided.reindex(columns=["text", "audio", "pose"]).add_suffix("_eligible").reset_index()
    table = read_table(clips).query("status == 'ok'").merge(decided, on="clip_id")
    origin = read_table(sources / SOURCES_TABLE).drop(columns=["status", "error"])
    table = table[table["text_eligible"].astype(bool)].merge(origin, on="source_id")
    return table.sort_values("clip_id", ignore_index=True)


def _encode_shard(
    config: Encode, description: Encoders, sources: Path, part: pd.DataFrame, shard: Path, progress: str
) -> list[dict]:
    """Encodes or restores one shard and returns its rows of the sample table."""
    columns = ["clip_id", "sha256", "start_seconds", "end_seconds", "caption", "keypoints_sha256"]
    key = content_key(
        encoders=_without_paths(asdict(description)),
        config=_without_paths(asdict(config)),
        clips=part[columns].values.tolist(),
        code=code_key(
            "encoders",
            *(f"data/{name}.py" for name in ("precompute", "shards", "sidecar", "speech_features")),
            "media/video.py",
            "media/sound.py",
        ),
    )
    with held_work_folder(key) as finished:
        rows = _finished_shard(config, description, sources, part, finished, progress)
        shutil.copyfile(finished / "shard.safetensors", shard)
        if any(row["status"] != "ok" for row in rows):
            shutil.rmtree(finished)  # errors and timeouts are tried again by the next call
    flags = part.set_index("clip_id")[["audio_eligible", "pose_eligible", "identity", "split"]]
    return [{**row, **flags.loc[row["clip_id"]].to_dict(), "shard": shard.name} for row in rows]


def _without_paths(parts: dict) -> dict:
    """Weights count by their hash: the same ones in another place are the same work."""
    return {key: value for key, value in parts.items() if not key.endswith("_weights")}


def _finished_shard(
    config: Encode, description: Encoders, sources: Path, part: pd.DataFrame, finished: Path, progress: str
) -> list[dict]:
    """Rows of a shard that lies in the folder `finished`, encoded now if it is not there yet."""
    if not (finished / "samples.parquet").exists():
        limits = Limits(config.deadline_seconds, config.memory_megabytes)
        jobs = [_job(row, sources, config) for row in part.to_dict("records")]
        outcomes = list(run_guarded(partial(_encode_clip, config), jobs, limits, progress))
        encoded = [(job.clip_id, outcome.value) for job, outcome in zip(jobs, outcomes, strict=True) if outcome.value]
        save_shard(finished / "shard.safetensors", encoded, description)
        rows = [
            _sample_row(record, job, outcome.value, outcome.status, outcome.error)
            for record, job, outcome in zip(part.to_dict("records"), jobs, outcomes, strict=True)
        ]
        write_table(rows, SAMPLES, finished / "samples.parquet")
    return read_table(finished / "samples.parquet").to_dict("records")


def _job(row: dict, sources: Path, config: Encode) -> _Job:
    width, height = encoded_size(row["width"], row["height"], config)
    return _Job(
        clip_id=row["clip_id"],
        path=source_path(sources, row["path"]),
        keypoints_path=source_path(sources, row["keypoints_path"]) if row["keypoints_path"] else None,
        start_seconds=row["start_seconds"],
        end_seconds=row["end_seconds"],
        width=width,
        height=height,
        caption=row["caption"],
    )


def _sample_row(record: dict, job: _Job, clip: EncodedClip | None, status: str, error: str) -> dict:
    return {
        "clip_id": job.clip_id,
        "shard": "",
        "identity": record["identity"],
        "split": record["split"],
        "width": job.width,
        "height": job.height,
        "num_windows": len(clip.latents) if clip else 0,
        "num_frames": len(clip.keypoints) if clip else 0,
        "caption": job.caption,
        "audio_eligible": record["audio_eligible"],
        "pose_eligible": record["pose_eligible"],
        "status": status,
        "error": error,
    }


def _encode_clip(config: Encode, job: _Job) -> EncodedClip:
    """Decodes and encodes one clip; runs inside a guarded worker."""
    import torch

    torch.set_num_threads(1)
    codec, speech, text = _encoders(config)
    frames = read_frames(
        job.path,
        fps=config.fps,
        size=(job.width, job.height),
        start_seconds=job.start_seconds,
        end_seconds=job.end_seconds,
    )
    num_frames = len(frames.pixels)
    starts = _window_starts(num_frames, config)
    pixels = torch.from_numpy(frames.pixels).permute(3, 0, 1, 2).float() / 127.5 - 1.0
    windows = torch.stack([pixels[:, start : start + config.num_frames] for start in starts])
    references = np.linspace(0, num_frames - 1, _REFERENCES_PER_CLIP).round().astype(np.int32)
    pictures = pixels[:, references].transpose(0, 1)[:, :, None]
    sound = read_sound(job.path, SAMPLE_RATE, job.start_seconds, job.end_seconds)
    return EncodedClip(
        latents=codec.encode(windows).half().numpy(),
        starts=np.asarray(starts, dtype=np.int32),
        references=codec.encode(pictures)[:, :, 0].half().numpy(),
        reference_frames=references,
        speech=speech_features(speech, sound, num_frames, config.fps)
        if config.store_speech
        else np.zeros((0, speech.num_layers, speech.width), np.float16),
        sound=to_int16(sound),
        keypoints=_keypoints_at(job.keypoints_path, frames, len(KEYPOINT_SETS[config.keypoints])),
        text=text.encode(job.caption).astype(np.float16),
    )


def _window_starts(num_frames: int, config: Encode) -> list[int]:
    """Starts of `windows_per_clip` windows, spread over the clip; fewer where they would coincide."""
    last = num_frames - config.num_frames
    if last < 0:
        raise UserError(f"{num_frames} frames at {config.fps:g} fps are fewer than one window of {config.num_frames}")
    return sorted(set(np.linspace(0, last, config.windows_per_clip).round().astype(int).tolist()))


def _keypoints_at(path: Path | None, frames: Frames, count: int) -> np.ndarray:
    """float32 [F, count, 3] at the frames' times, nearest declared pose; zeros where there is none."""
    if path is None:
        return np.zeros((len(frames.seconds), count, 3), np.float32)
    declared = read_keypoints(path)
    nearest = np.abs(declared.seconds[None] - frames.seconds[:, None]).argmin(axis=1)
    return fit_keypoints(declared.points[nearest], count)
