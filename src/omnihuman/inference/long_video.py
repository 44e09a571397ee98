"""Videos of any length, segment after segment; segments of several videos may share a batch."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from omnihuman.batch import Conditions
from omnihuman.conditions.assembly import join_conditions, sizes_of
from omnihuman.config.schema.evaluate import Render
from omnihuman.inference.chaining import Chain, VideoInputs, make_chain
from omnihuman.inference.generator import Generator
from omnihuman.inference.kept_segments import KeptSegments


@dataclass(frozen=True)
class VideoJob:
    """One video to make."""

    inputs: VideoInputs
    seed: int
    kept: KeptSegments | None = None
    """Where finished segments are kept, and taken from."""


def generate_video(generator: Generator, job: VideoJob, config: Render) -> Iterator[np.ndarray]:
    """Yields the new frames of each segment, float32 [n, H, W, 3] in 0..1, in all exactly `inputs.num_frames`."""
    for _, frames in generate_videos(generator, [job], config):
        yield frames


def generate_videos(
    generator: Generator, jobs: Iterable[VideoJob], config: Render, batch_size: int = 1
) -> Iterator[tuple[int, np.ndarray]]:
    """Makes several videos at once: up to `batch_size` are open, and their next segments of one size share a batch.

    Each segment has noise of its own, a function of the seed and its number, so that a video is the same in any batch
    (within the rounding of larger products of matrices).

    Args:
        jobs: taken one by one, when a place is free.

    Yields:
        The number of the job, and the new frames of its next segment as in `generate_video`; a job's come in order.
    """
    waiting = iter(enumerate(jobs))
    is_open: dict[int, tuple[VideoJob, Chain]] = {}
    while True:
        for number, job in islice(waiting, batch_size - len(is_open)):
            is_open[number] = job, make_chain(job.inputs, generator.codec(), generator.encoders, config)
        if not is_open:
            return
        for number, latents in _next_segments(generator, is_open):
            chain = is_open[number][1]
            yield number, chain.accept(latents)
            if chain.finished == chain.num_segments:
                del is_open[number]


def _next_segments(
    generator: Generator, is_open: dict[int, tuple[VideoJob, Chain]]
) -> Iterator[tuple[int, torch.Tensor]]:
    """Latents [1, C, T, h, w] of every open video's next segment."""
    of_size: dict[tuple[torch.Size, ...], list[tuple[int, Conditions]]] = defaultdict(list)
    for number, (job, chain) in list(is_open.items()):
        kept = job.kept.load(chain.finished) if job.kept else None
        if kept is not None:
            yield number, kept
        else:
            conditions = chain.conditions()
            of_size[sizes_of(conditions)].append((number, conditions))
    for alike in of_size.values():
        numbers, conditions = zip(*alike, strict=True)
        keys = [(is_open[n][0].seed, "segment", is_open[n][1].finished) for n in numbers]
        num_latents = is_open[numbers[0]][1].num_latents
        made = generator.segment(join_conditions(conditions), num_latents, keys).split(1)
        for number, latents in zip(numbers, made, strict=True):
            job, chain = is_open[number]
            if job.kept:
                job.kept.save(chain.finished, latents)
            yield number, latents
