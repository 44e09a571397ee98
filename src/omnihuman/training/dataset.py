"""From encoded clips to training batches; every random number is a function of the sample's index."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import IterableDataset

from omnihuman.batch import Pack, TrainingBatch
from omnihuman.conditions.assembly import ActiveConditions, assemble, join_conditions
from omnihuman.conditions.windows import choose_reference, window_inputs
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Stage
from omnihuman.data.shards import load_clip
from omnihuman.diffusion.timesteps import sigma_from_normal
from omnihuman.keyed_random import generator, uniform
from omnihuman.training.sampling import Draw, SampleOrder


@dataclass(frozen=True)
class SampleSettings:
    """How samples are made from clips."""

    stage_name: str
    stage: Stage
    seed: int
    motion_frames_share: float
    reference_pose_share: float
    max_text_tokens: int
    diffusion: Diffusion


def active_conditions(settings: SampleSettings, index: int, *, has_audio: bool, has_pose: bool) -> ActiveConditions:
    """Draws the activations of sample `index`; an ineligible clip never carries audio or pose (Principle 1)."""
    key = (settings.seed, settings.stage_name, index)
    activate = settings.stage.activate
    return ActiveConditions(
        text=uniform(*key, "text") < activate.text,
        reference=uniform(*key, "reference") < activate.reference,
        audio=has_audio and uniform(*key, "audio") < activate.audio,
        pose=has_pose and uniform(*key, "pose") < activate.pose,
        motion=uniform(*key, "motion") < settings.motion_frames_share,
        reference_pose=uniform(*key, "reference_pose") < settings.reference_pose_share,
    )


class StagePacks(IterableDataset):
    """The packs of the steps from `first_step` on, without an end; a resumed run begins with its own step."""

    def __init__(
        self, samples: pd.DataFrame, encoded: Path, order: SampleOrder, settings: SampleSettings, empty_text: np.ndarray
    ) -> None:
        self.first_step = 0
        self._samples, self._encoded, self._order = samples, encoded, order
        self._settings, self._empty_text = settings, empty_text

    def __iter__(self) -> Iterator[Pack]:
        """Yields pack after pack."""
        step = self.first_step
        while True:
            yield self.pack(step)
            step += 1

    def pack(self, step: int) -> Pack:
        """The samples of one step."""
        return pack_samples([self._sample(draw) for draw in self._order.batch(step)])

    def _sample(self, draw: Draw) -> TrainingBatch:
        row = self._samples.iloc[draw.row]
        clip = load_clip(self._encoded / row["shard"], row["clip_id"])
        active = active_conditions(
            self._settings, draw.index, has_audio=bool(row["audio_eligible"]), has_pose=bool(row["pose_eligible"])
        )
        random = generator(self._settings.seed, self._settings.stage_name, draw.index, "values")
        window = int(random.integers(len(clip.starts)))
        latents = torch.from_numpy(clip.latents[window]).float()
        sigma = sigma_from_normal(torch.tensor(random.standard_normal()), self._settings.diffusion)
        reference = choose_reference(clip, window, random)
        inputs = window_inputs(clip, window, reference, clip.text if active.text else self._empty_text)
        conditions = assemble(inputs, active, self._settings.max_text_tokens)
        noise = torch.from_numpy(random.standard_normal(latents.shape, dtype=np.float32))
        return TrainingBatch(latents[None], noise[None], sigma.float()[None], conditions)


def pack_samples(samples: list[TrainingBatch]) -> Pack:
    """Joins samples of equal size; sizes stand in the order in which they first came."""
    of_size: dict[torch.Size, list[TrainingBatch]] = {}
    for sample in samples:
        of_size.setdefault(sample.latents.shape[1:], []).append(sample)
    return tuple(map(join_samples, of_size.values()))


def join_samples(items: list[TrainingBatch]) -> TrainingBatch:
    """Concatenates samples of one size along the batch."""
    return TrainingBatch(
        latents=torch.cat([item.latents for item in items]),
        noise=torch.cat([item.noise for item in items]),
        sigma=torch.cat([item.sigma for item in items]),
        conditions=join_conditions([item.conditions for item in items]),
    )
