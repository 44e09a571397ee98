"""Held-out clips and the videos that a model makes from their pictures, sounds and poses."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from omnihuman.batch import Conditions
from omnihuman.conditions.assembly import ActiveConditions, assemble, join_conditions
from omnihuman.conditions.windows import choose_reference, window_inputs
from omnihuman.data.manifest import one_row_a_clip, read_table
from omnihuman.data.shard_reading import ShardReader, place_of_shards
from omnihuman.data.shards import EncodedClip, Encoders
from omnihuman.data.speech_features import with_speech
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.encoders.video_codec import num_frames
from omnihuman.inference.generator import Generator


@dataclass(frozen=True)
class HeldOut:
    """One window of a held-out clip."""

    clip_id: str
    identity: str
    audio_eligible: bool
    clip: EncodedClip
    window: int
    reference: int
    pose_start: int | None = None
    """First frame of the pose that drives the video; None where sound alone does."""

    @property
    def start(self) -> int:
        """First frame of the window in its clip."""
        return int(self.clip.starts[self.window])

    def by_own_pose(self) -> "HeldOut":
        """The window driven by its own pose."""
        return replace(self, pose_start=self.start)

    def by_another_pose(self) -> "HeldOut | None":
        """The window driven by what the same person does half a clip away; None where that overlaps the window."""
        window = num_frames(self.clip.latents.shape[2])
        others = len(self.clip.keypoints) - window + 1
        start = (self.start + others // 2) % others
        return replace(self, pose_start=start) if abs(start - self.start) >= window else None


@dataclass(frozen=True)
class GeneratedClip:
    """A generated window beside the real one; pictures are float32 in 0..1."""

    item: HeldOut
    video: np.ndarray  # [F, H, W, 3]
    real: np.ndarray  # [F, H, W, 3], the held-out clip itself, through the codec
    reference: np.ndarray  # [H, W, 3]
    keypoints: np.ndarray  # [F, K, 3], declared; zeros where there are none
    reference_keypoints: np.ndarray  # [K, 3]

    def sound(self, fps: float) -> np.ndarray:
        """float64 [samples] of the window."""
        first = round(self.item.start / fps * SAMPLE_RATE)
        last = first + round(len(self.video) / fps * SAMPLE_RATE)
        return self.item.clip.sound[first:last].astype(np.float64) / 32767


def held_out_windows(encoded: Path, modality: str, count: int, seed: int) -> list[HeldOut]:
    """Up to `count` windows of the test split that are eligible for `modality`, one per clip.

    The split is by identity, and every clip has a sound of its own, so both are unseen.
    """
    table = one_row_a_clip(read_table(encoded / "samples.parquet"))
    chosen = table[(table["status"] == "ok") & (table["split"] == "test") & table[f"{modality}_eligible"]]
    encoders = Encoders.load(encoded / "encoders.json")
    random = np.random.default_rng(seed)
    rows = chosen.sort_values("clip_id").to_dict("records")
    items, reader = [], ShardReader(place_of_shards(encoded))
    for position in sorted(random.permutation(len(rows))[:count]):
        clip = with_speech(reader.clip(rows[position]["shard"], rows[position]["clip_id"]), encoders)
        window = int(random.integers(len(clip.starts)))
        reference = choose_reference(clip, window, random)
        row = rows[position]
        items.append(HeldOut(row["clip_id"], row["identity"], bool(row["audio_eligible"]), clip, window, reference))
    return items


def generate(
    generator: Generator, items: Sequence[HeldOut], *, batch_size: int, seed: int, label: str
) -> list[GeneratedClip]:
    """Videos for all items in their order, in batches of one size; sound drives where it is fit for that.

    Args:
        label: for the progress bar; with the seed and the clip it also decides the noise.
    """
    finished: dict[int, GeneratedClip] = {}
    with tqdm(total=len(items), desc=label, file=sys.stderr, mininterval=2.0) as bar:
        for positions in _batches_of_one_size(items, batch_size):
            batch = [items[position] for position in positions]
            conditions = join_conditions([_conditions(item, generator) for item in batch])
            num_latents = batch[0].clip.latents.shape[2]
            latents = generator.segment(conditions, num_latents, [(seed, label, item.clip_id) for item in batch])
            for position, item, video in zip(positions, batch, _pixels(generator, latents), strict=True):
                finished[position] = _beside_real(generator, item, video)
            bar.update(len(batch))
    return [finished[position] for position in range(len(items))]


def _conditions(item: HeldOut, generator: Generator) -> Conditions:
    pose = item.pose_start is not None
    active = ActiveConditions(text=True, reference=True, audio=item.audio_eligible, pose=pose, motion=False)
    inputs = window_inputs(item.clip, item.window, item.reference, item.clip.text)
    if item.pose_start is not None:
        keypoints = item.clip.keypoints[item.pose_start : item.pose_start + len(inputs.keypoints)]
        inputs = replace(inputs, keypoints=keypoints)
    return assemble(inputs, active, generator.encoders.max_text_tokens)


def _batches_of_one_size(items: Sequence[HeldOut], batch_size: int) -> Iterator[list[int]]:
    sizes = pd.Series([item.clip.latents.shape[2:] for item in items], dtype=object)
    for _, group in sizes.groupby(sizes.map(str), sort=True):
        positions = [int(p) for p in group.index]
        for start in range(0, len(positions), batch_size):
            yield positions[start : start + batch_size]


def _pixels(generator: Generator, latents: torch.Tensor) -> np.ndarray:
    """float32 [B, F, H, W, 3] in 0..1."""
    video = generator.codec().decode(latents.float().cpu())
    return ((video.clamp(-1, 1) + 1) / 2).permute(0, 2, 3, 4, 1).numpy()


def _beside_real(generator: Generator, item: HeldOut, video: np.ndarray) -> GeneratedClip:
    clip = item.clip
    real = _pixels(generator, torch.from_numpy(clip.latents[item.window]).float()[None])[0]
    reference = _pixels(generator, torch.from_numpy(clip.references[item.reference]).float()[None, :, None])[0, 0]
    return GeneratedClip(
        item=item,
        video=video,
        real=real,
        reference=reference,
        keypoints=clip.keypoints[item.start : item.start + len(video)],
        reference_keypoints=clip.keypoints[clip.reference_frames[item.reference]],
    )
