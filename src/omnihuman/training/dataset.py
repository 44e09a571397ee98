"""From encoded clips to training batches; every random number is a function of the sample's index."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import IterableDataset, get_worker_info

from omnihuman.batch import Pack, TrainingBatch
from omnihuman.conditions.assembly import ActiveConditions, assemble, join_conditions
from omnihuman.conditions.windows import choose_reference, window_inputs, window_latents
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Stage
from omnihuman.data.manifest import read_table
from omnihuman.data.shard_reading import ShardReader
from omnihuman.data.shards import EncodedClip, Encoders, pictures_name
from omnihuman.data.speech_features import with_speech
from omnihuman.diffusion.timesteps import sigma_from_normal
from omnihuman.errors import UserError
from omnihuman.keyed_random import generator, uniform
from omnihuman.training.packing import Division
from omnihuman.training.sampling import Draw
from omnihuman.training.skipping import Order

_PICTURES = ["clip_id", "area_pixels", "larger_area_pixels"]


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
    midstream_share: float = 0.0


def training_samples(encoded: Path) -> pd.DataFrame:
    """The rows of samples.parquet that train, one for each size of each clip.

    Raises:
        UserError: nothing is encoded, or nothing for training.
    """
    table = read_table(encoded / "samples.parquet")
    samples = table[(table["status"] == "ok") & (table["split"] == "train")].reset_index(drop=True)
    if samples.empty:
        raise UserError(f"{encoded}: no clip of the training split is left; see reports/funnel.html for why")
    return samples


def stored_pictures(samples: pd.DataFrame) -> dict[str, list[str]]:
    """By shard, the names of what it is to hold, see `shards.pictures_name`."""
    rows = zip(*(samples[name].tolist() for name in _PICTURES), strict=True)
    names = pd.Series([pictures_name(clip_id, area if larger else None) for clip_id, area, larger in rows])
    return names.groupby(samples["shard"].to_numpy()).agg(list).to_dict()


def active_conditions(
    settings: SampleSettings,
    index: int,
    *,
    has_audio: bool,
    has_pose: bool,
    text_only: bool = False,
    is_picture: bool = False,
) -> ActiveConditions:
    """Draws the activations of sample `index`; an ineligible clip never carries audio or pose (Principle 1).

    Each is a hash of (seed, stage, index, condition), so neither ranks, workers nor a resume change it.

    Args:
        text_only: trains text alone.
        is_picture: a single frame, which has no motion frames, sound or pose.
    """
    key = (settings.seed, settings.stage_name, index)
    activate, dropout = settings.stage.activate, settings.stage.guidance_dropout
    any_on = not (dropout.everything > 0 and uniform(*key, "drop_everything") < dropout.everything)
    text_on = any_on and not (dropout.text > 0 and uniform(*key, "drop_text") < dropout.text)
    more_on, drives = any_on and not text_only, any_on and not text_only and not is_picture
    return ActiveConditions(
        text=text_on and uniform(*key, "text") < activate.text,
        reference=more_on and uniform(*key, "reference") < activate.reference,
        audio=drives and has_audio and uniform(*key, "audio") < activate.audio,
        pose=drives and has_pose and uniform(*key, "pose") < activate.pose,
        motion=not text_only and not is_picture and uniform(*key, "motion") < settings.motion_frames_share,
        reference_pose=uniform(*key, "reference_pose") < settings.reference_pose_share,
    )


def drawn_conditions(settings: SampleSettings, draw: Draw, *, has_audio: bool, has_pose: bool) -> ActiveConditions:
    """`active_conditions` of a draw."""
    return active_conditions(
        settings,
        draw.index,
        has_audio=has_audio,
        has_pose=has_pose,
        text_only=draw.text_only,
        is_picture=draw.is_picture,
    )


def starts_in_midstream(settings: SampleSettings, index: int, active: ActiveConditions) -> bool:
    """Whether a sample's motion frames are two latents of four frames each, from the middle of a stream of latents."""
    key = (settings.seed, settings.stage_name, index, "midstream")
    return active.motion and settings.midstream_share > 0 and uniform(*key) < settings.midstream_share


class StagePacks(IterableDataset):
    """What one rank computes in the steps from `first_step` on, without an end; a resumed run begins with its own step.

    Args:
        samples: as in samples.parquet.
        encoded: folder or S3 prefix of the shards.
        division: of a step over ranks and packs; it decides who computes which samples, not which there are.
        rank: of this process.
        encoders: that made the shards, for shards without the sound's features.
        packs_per_step: on every rank, where training fixes it; by default as many as the budget of tokens asks for.
    """

    def __init__(
        self,
        samples: pd.DataFrame,
        encoded: str | Path,
        order: Order,
        settings: SampleSettings,
        empty_text: np.ndarray,
        division: Division | None = None,
        rank: int = 0,
        encoders: Encoders | None = None,
        packs_per_step: int | None = None,
    ) -> None:
        self._division = division or Division()
        self.first_step = 0
        self._samples = samples[[*_PICTURES, "shard", "audio_eligible", "pose_eligible"]]
        self._shards, self._order = ShardReader(encoded), order
        self._settings, self._empty_text = settings, empty_text
        self._rank, self._encoders, self._packs_per_step = rank, encoders, packs_per_step

    def __iter__(self) -> Iterator[Pack]:
        """Yields pack after pack, as `packs` gives them; of several loader workers each makes its share of them."""
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        every = itertools.chain.from_iterable(map(self.draws, itertools.count(self.first_step)))
        yield from map(self._pack, itertools.islice(every, number, None, count))

    def packs(self, step: int) -> list[Pack]:
        """This rank's packs of a step; their gradients add up."""
        return [self._pack(draws) for draws in self.draws(step)]

    def draws(self, step: int) -> list[list[Draw]]:
        """This rank's draws of a step, those of each pack."""
        return self._division.packs(self._order.batch(step), self._packs_per_step)[self._rank]

    def _pack(self, draws: list[Draw]) -> Pack:
        return pack_samples([self._sample(draw) for draw in draws])

    def _sample(self, draw: Draw) -> TrainingBatch:
        row = self._samples.iloc[draw.row]
        smaller_area = int(row["area_pixels"]) if row["larger_area_pixels"] else None
        clip = self._shards.clip(row["shard"], row["clip_id"], smaller_area)
        has_audio, has_pose = bool(row["audio_eligible"]), bool(row["pose_eligible"])
        active = drawn_conditions(self._settings, draw, has_audio=has_audio, has_pose=has_pose)
        if self._encoders:
            clip = with_speech(clip, self._encoders, needed=active.audio)
        return make_sample(clip, draw, active, self._settings, self._empty_text)


def make_sample(
    clip: EncodedClip, draw: Draw, active: ActiveConditions, settings: SampleSettings, empty_text: np.ndarray
) -> TrainingBatch:
    """One sample: a window, a level of noise, a reference and noise, all functions of the draw's index."""
    random = generator(settings.seed, settings.stage_name, draw.index, "values")
    window = int(random.integers(len(clip.starts)))
    midstream = starts_in_midstream(settings, draw.index, active)
    latents = torch.from_numpy(window_latents(clip, window, draw.num_latents, in_midstream=midstream)).float()
    sigma = sigma_from_normal(torch.tensor(random.standard_normal()), settings.diffusion)
    reference = choose_reference(clip, window, random, draw.num_latents)
    text = clip.text if active.text else empty_text
    inputs = window_inputs(clip, window, reference, text, draw.num_latents, in_midstream=midstream)
    conditions = assemble(inputs, active, settings.max_text_tokens)
    noise = torch.from_numpy(random.standard_normal(latents.shape, dtype=np.float32))
    return TrainingBatch(latents[None], noise[None], sigma.float()[None], conditions)


def pack_samples(samples: list[TrainingBatch]) -> Pack:
    """Joins samples of equal size; sizes stand in the order in which they first came."""
    of_size: dict[tuple[int, ...], list[TrainingBatch]] = {}
    for sample in samples:
        frames = sample.conditions.keypoints.shape[1]  # four more in mid-stream than at the start of a stream
        of_size.setdefault((frames, *sample.latents.shape[1:]), []).append(sample)
    return tuple(map(join_samples, of_size.values()))


def join_samples(items: list[TrainingBatch]) -> TrainingBatch:
    """Concatenates samples of one size along the batch."""
    return TrainingBatch(
        latents=torch.cat([item.latents for item in items]),
        noise=torch.cat([item.noise for item in items]),
        sigma=torch.cat([item.sigma for item in items]),
        conditions=join_conditions([item.conditions for item in items]),
    )
