"""What the step `encode` is to do: which clips at which sizes, in which shards, by which encoders and devices."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omnihuman.batch import KEYPOINT_SETS
from omnihuman.config.schema.encode import Encode
from omnihuman.data.clip_encoding import Job, encoders_of
from omnihuman.data.kept_clips import KeptClips
from omnihuman.data.manifest import SOURCES_TABLE, clip_file, read_table
from omnihuman.data.shards import Encoders
from omnihuman.encoders import factory
from omnihuman.encoders.devices import devices_for
from omnihuman.encoders.pose_estimator import pinned_files
from omnihuman.encoders.sizes import EncodedSize, encoded_sizes
from omnihuman.errors import UserError
from omnihuman.media.worker import Limits, num_workers

Row = dict[str, Any]
"""Of the table of eligible clips."""


@dataclass(frozen=True)
class Inputs:
    """What the steps before have written."""

    sources: Path  # folder
    clips: Path
    captions: Path
    decisions: Path


@dataclass(frozen=True)
class Plan:
    """What is to be encoded, with what, and on which devices."""

    config: Encode
    sources: Path
    rows: list[Row]  # by clip id
    encoders: Encoders
    empty_text: np.ndarray  # [L, text width], the embedding of the empty prompt
    kept: KeptClips
    devices: list[str]

    @property
    def workers(self) -> int:
        """Processes at once: `$OMNIHUMAN_WORKERS`, by default one for each GPU, else for each processor."""
        return num_workers(len(self.devices) if self.on_gpu else None)

    @property
    def limits(self) -> Limits:
        """Of one worker."""
        config = self.config
        return Limits(config.deadline_seconds, config.memory_megabytes, workers=self.workers, on_gpu=self.on_gpu)

    @property
    def on_gpu(self) -> bool:
        """Whether encoders run on GPUs."""
        return self.devices != ["cpu"]

    def job(self, row: Row) -> Job:
        """For a worker."""
        return Job(**vars(clip_file(row, self.sources)), sizes=self.sizes(row), caption=row["caption"])

    def sizes(self, row: Row) -> list[EncodedSize]:
        """At which a clip is encoded, from the largest."""
        return encoded_sizes(row["width"], row["height"], self.config)

    def shards(self) -> list["Shard"]:
        """The clips in groups of `shard_clips`; elsewhere than in the step's own folder names tell the content."""
        size = self.config.shard_clips
        groups = [self.rows[start : start + size] for start in range(0, len(self.rows), size)]
        names = (self.kept.key_of(rows) if self.config.shards_at else f"{n:05d}" for n, rows in enumerate(groups))
        return [Shard(f"shard-{name}.safetensors", rows) for name, rows in zip(names, groups, strict=True)]


@dataclass(frozen=True)
class Shard:
    """Clips that make one file."""

    name: str
    rows: list[Row]


def plan_encoding(config: Encode, inputs: Inputs, accelerator: str = "auto") -> Plan:
    """Reads the tables and the encoders.

    Args:
        accelerator: of `compute.accelerator`.

    Raises:
        UserError: no clip is eligible, an encoder's weights are missing, or there is no GPU where one is asked for.
    """
    table = _eligible_clips(inputs)
    if table.empty:
        raise UserError(
            "no clip is eligible for text: see reports/funnel.html for why, loosen conf/policy or add videos"
        )
    if config.pose_weights:
        pinned_files("encode.pose_weights", Path(config.pose_weights), config.pose_sha256)
    devices = devices_for(accelerator)
    description, empty_text = describe(config)
    rows = [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
    return Plan(config, inputs.sources, rows, description, empty_text, KeptClips(config, description), devices)


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


def _eligible_clips(inputs: Inputs) -> pd.DataFrame:
    """One row per clip that may train text, with its source's columns and a flag per stronger modality."""
    decided = read_table(inputs.decisions).pivot(index="clip_id", columns="modality", values="eligible")
    decided = decided.reindex(columns=["text", "audio", "pose"]).add_suffix("_eligible").reset_index()
    table = read_table(inputs.clips).query("status == 'ok'").merge(decided, on="clip_id")
    table = table.merge(read_table(inputs.captions)[["clip_id", "caption"]], on="clip_id")
    origin = read_table(inputs.sources / SOURCES_TABLE).drop(columns=["status", "error", "caption"])
    table = table[table["text_eligible"].astype(bool)].merge(origin, on="source_id")
    return table.sort_values("clip_id", ignore_index=True)
