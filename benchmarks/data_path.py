"""What it costs to feed training: the loader from disk and S3, division into packs, drawing from ten million clips.

The loader reads shards, cuts windows, draws conditions and noise, and joins packs, in one process with one thread: its
tokens over its own processor time are what one core gives. S3 is a moto server beside it, so its wall time is moto's;
what one GET costs the loader is not. Clips are noise in the shapes of published encoders.
"""

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import boto3
import numpy as np
import pandas as pd
import torch

from measure import machine
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Activation, Batching, Mix, Stage
from omnihuman.data.shards import EncodedClip, Encoders, save_shard
from omnihuman.training.dataset import SampleSettings, StagePacks
from omnihuman.training.loading import LoadedPacks
from omnihuman.training.packing import Division, TokenCounts
from omnihuman.training.sampling import Draw, SampleOrder

SEED = 0
ELIGIBLE = 0.13
STAGE = Stage(activate=Activation(0.9, 0.7, 0.5, 0.5), mix=Mix(0.5, 0.5), batching=Batching(sizes="native"), steps=1000)
ENCODERS = Encoders(
    video_codec="wan", video_weights="", video_weights_sha256="", video_tile_pixels=0, video_tile_stride_pixels=0,
    speech_encoder="wav2vec2", speech_weights="", speech_weights_sha256="", text_encoder="t5", text_weights="",
    text_weights_sha256="", fps=25.0, num_frames=33, resolutions=(256 * 256,), size_multiple=16, max_aspect=2.0,
    max_text_tokens=128, latent_channels=16, speech_width=768, speech_layers=13, text_width=2048, num_keypoints=133,
)  # fmt: skip
SIZES = ((256, 256), (192, 320), (320, 192), (224, 288))
MIXED_SIZES = ((128, 128), (192, 192), (256, 256), (384, 256), (256, 384), (512, 384))
"""Of clips that differ in area, for the division over ranks."""


@dataclass(frozen=True)
class Loaded:
    """What a loader gave."""

    tokens_per_second: float
    tokens_per_core_second: float
    bytes_per_second: float


def random_clip(random: np.random.Generator, width: int, height: int, num_frames: int) -> EncodedClip:
    """Noise: two windows, three pictures, sound and whole-body keypoints of five seconds."""
    num_latents, shape = (ENCODERS.num_frames - 1) // 4 + 1, (height // 8, width // 8)
    half = lambda *size: random.standard_normal(size, np.float32).astype(np.float16)  # noqa: E731
    return EncodedClip(
        latents=half(2, ENCODERS.latent_channels, num_latents, *shape),
        starts=np.array([0, num_frames - ENCODERS.num_frames], np.int32),
        references=half(3, ENCODERS.latent_channels, *shape),
        reference_frames=np.array([0, num_frames // 2, num_frames - 1], np.int32),
        speech=half(num_frames, ENCODERS.speech_layers, ENCODERS.speech_width),
        sound=random.integers(-9000, 9000, num_frames * 640).astype(np.int16),
        keypoints=random.random((num_frames, ENCODERS.num_keypoints, 3), np.float32),
        text=half(60, ENCODERS.text_width),
    )


def write_corpus(folder: Path, num_clips: int, clips_per_shard: int) -> tuple[pd.DataFrame, float]:
    """Shards and their table, and the mean bytes of a clip."""
    random, rows, sizes = np.random.default_rng(SEED), [], []
    for first in range(0, num_clips, clips_per_shard):
        name, clips = f"shard-{first // clips_per_shard:05d}.safetensors", []
        for number in range(first, min(first + clips_per_shard, num_clips)):
            width, height = SIZES[number % len(SIZES)]
            clips.append((f"clip-{number}", random_clip(random, width, height, 125)))
            rows.append((f"clip-{number}", name, width, height, number % 2 == 0, number % 3 == 0))
        save_shard(folder / name, clips, ENCODERS)
        sizes += [sum(getattr(clip, field.name).nbytes for field in fields(clip)) for _, clip in clips]
    columns = ["clip_id", "shard", "width", "height", "audio_eligible", "pose_eligible"]
    clips = pd.DataFrame(rows, columns=columns)
    return at_one_size(clips), float(np.mean(sizes))


def at_one_size(clips: pd.DataFrame) -> pd.DataFrame:
    """Clips that are encoded at one resolution each."""
    return clips.assign(area_pixels=clips["width"] * clips["height"], larger_area_pixels=0)


def stage_packs(samples: pd.DataFrame, place: str | Path) -> tuple[StagePacks, SampleOrder, TokenCounts]:
    """A rank's packs of eight samples each."""
    order = SampleOrder(samples, STAGE, 8, SEED, "3_pose")
    tokens = TokenCounts(samples, ENCODERS, 2)
    settings = SampleSettings("3_pose", STAGE, SEED, 0.5, 0.9, ENCODERS.max_text_tokens, Diffusion())
    empty = np.zeros((1, ENCODERS.text_width), np.float32)
    return StagePacks(samples, place, order, settings, empty, Division(tokens=tokens)), order, tokens


def load(samples: pd.DataFrame, place: str | Path, seconds: float, bytes_of_clip: float) -> Loaded:
    """Makes packs of eight samples for so long."""
    packs, order, tokens = stage_packs(samples, place)
    packs.packs(0)
    start, start_core, made, step = time.perf_counter(), time.process_time(), 0, 0
    while time.perf_counter() - start < seconds:
        step += 1
        packs.packs(step)
        made += sum(map(tokens, order.batch(step)))
    wall, core = time.perf_counter() - start, time.process_time() - start_core
    return Loaded(made / wall, made / core, 8 * step * bytes_of_clip / wall)


def measure_workers(samples: pd.DataFrame, folder: str, num_packs: int) -> None:
    """Share of the time that a rank waits for packs, where a step takes as long as a pack of its own making.

    The step sleeps, as a rank does while its GPU computes.
    """
    packs, order, tokens = stage_packs(samples, folder)
    alone = statistics.median(timed(partial(packs.packs, step)) for step in range(1, num_packs + 1))
    print(
        f"a rank whose steps take {1000 * alone:.0f} ms, as long as making a pack of eight samples from disk takes it"
    )
    for num_workers in (0, 2):
        with LoadedPacks(packs, num_workers) as loaded:
            coming, waited, made = iter(loaded), 0.0, 0
            next(coming)  # workers start
            time.sleep(2 * alone)
            start = time.perf_counter()
            for step in range(1, num_packs + 1):
                waited += timed(partial(next, coming))
                time.sleep(alone)
                made += sum(map(tokens, order.batch(step)))
            wall = time.perf_counter() - start
        print(f"  {num_workers} workers: waits {waited / wall:.1%} of the time, {made / wall:,.0f} tokens/s")


@contextmanager
def s3_server() -> Iterator[str]:
    """A moto server with one bucket, and the environment in which S3 is that server; gives `s3://bucket`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b",
        AWS_DEFAULT_REGION="us-east-1",
    )  # fmt: skip
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        boto3.client("s3").create_bucket(Bucket="corpus")
        yield "s3://corpus"
    finally:
        process.terminate()
        process.wait()


def measure_loader(num_clips: int, seconds: float, repetitions: int) -> None:
    """Disk and S3 in turn."""
    with tempfile.TemporaryDirectory() as folder, s3_server() as s3:
        samples, bytes_of_clip = write_corpus(Path(folder), num_clips, 16)
        for path in Path(folder).iterdir():
            boto3.client("s3").upload_file(str(path), "corpus", path.name)
        runs: dict[str, list[Loaded]] = {"disk": [], "S3": []}
        for _ in range(repetitions):
            for name, place in (("disk", folder), ("S3", s3)):
                runs[name].append(load(samples, place, seconds, bytes_of_clip))
        print(
            f"loader, {num_clips} clips of {bytes_of_clip / 1e6:.1f} MB, median of {repetitions} runs of {seconds:g} s"
        )
        for name, found in runs.items():
            wall, core, through = (
                statistics.median(getattr(one, field.name) for one in found) for field in fields(Loaded)
            )
            print(f"  {name:<5} {wall:9,.0f} tokens/s  {core:9,.0f} tokens/s and core  {through / 1e6:7.1f} MB/s")
        ratios = [
            s3.tokens_per_core_second / disk.tokens_per_core_second for disk, s3 in zip(*runs.values(), strict=True)
        ]
        print(
            f"  tokens a core, S3 over disk: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
        measure_workers(samples, folder, 20 * repetitions)


def measure_packing(batch_size: int, world_size: int, repetitions: int) -> None:
    """Time to divide a step, how full its packs are, how evenly its ranks are loaded.

    The cost has a linear and a quadratic part, as a transformer's. `balance.py` judges by measured seconds.
    """
    samples = table(20_000, MIXED_SIZES)
    tokens = TokenCounts(samples, replace(ENCODERS, num_frames=81), 2)

    def cost(draw: Draw) -> float:
        return tokens(draw) + tokens(draw) ** 2 / 1e4

    order = SampleOrder(samples, STAGE, batch_size, SEED, "3_pose")
    ways = {
        "by count": Division(None, world_size),
        "by cost": Division(None, world_size, tokens, cost),
        "by cost, one largest a pack": Division(tokens.largest(), world_size, tokens, cost),
    }
    print(f"division of {batch_size} draws over {world_size} ranks, median of {repetitions} steps")
    for name, division in ways.items():
        taken, uneven, full, number = [], [], [], 0
        for step in range(repetitions):
            draws = order.batch(step)
            start = time.perf_counter()
            ranks = division.packs(draws)
            taken.append(time.perf_counter() - start)
            costs = [sum(cost(draw) for pack in packs for draw in pack) for packs in ranks]
            uneven.append(max(costs) / np.mean(costs))
            number = len(ranks[0])
            if division.max_tokens_per_pack:
                room = division.max_tokens_per_pack * number * world_size
                full.append(sum(map(tokens, draws)) / room)
        filled = f", {statistics.median(full):.0%} full" if full else ""
        print(
            f"  {name:<28} {1000 * statistics.median(taken):5.1f} ms, slowest rank over mean"
            f" {statistics.median(uneven):.3f}, {number} packs a rank{filled}"
        )


def table(num_clips: int, sizes: tuple[tuple[int, int], ...] = SIZES) -> pd.DataFrame:
    """What drawing needs to know of clips, 13% of them eligible for sound and 13% for pose."""
    random = np.random.default_rng(SEED)
    width, height = np.array(sizes)[random.integers(len(sizes), size=num_clips)].T
    eligible = (random.random(num_clips) < ELIGIBLE for _ in range(2))
    columns = dict(zip(("audio_eligible", "pose_eligible"), eligible, strict=True), width=width, height=height)
    return at_one_size(pd.DataFrame(columns))


def measure_sampler(num_clips: int, batch_size: int, repetitions: int) -> None:
    """Time and memory to set up, time of a step, against drawing with `Generator.choice`."""
    samples = table(num_clips)
    print(f"drawing from {num_clips:,} clips, steps of {batch_size}, median of {repetitions}")
    for sizes in ("native", "one_size"):
        stage = replace(STAGE, batching=Batching(sizes=sizes))
        set_up = partial(SampleOrder, samples, stage, batch_size, SEED, "3_pose")
        setup = timed(set_up)
        tracemalloc.start()
        order = set_up()
        kept, peak = (size / 2**30 for size in tracemalloc.get_traced_memory())
        tracemalloc.stop()
        step = statistics.median(timed(partial(order.batch, number)) for number in range(repetitions))
        memory = f"peak {peak:.2f} GiB, {kept:.2f} GiB kept"
        print(f"  {sizes:<9} set up in {setup:.2f} s, {memory}, a step {1000 * step:.3f} ms")
        del order
    weights = np.full(num_clips, 1 / num_clips)
    random = np.random.default_rng(SEED)
    naive = statistics.median(timed(lambda: random.choice(num_clips, size=batch_size, p=weights)) for _ in range(5))
    print(
        f"  Generator.choice with weights: {1000 * naive:.1f} ms a step, {naive / step:,.0f} times as long as the last"
    )


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=64, help="of the loader's corpus")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run of the loader")
    parser.add_argument("--table", type=int, default=10_000_000, help="clips that are drawn from")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine(torch.device('cpu'))}; load {os.getloadavg()[0]:.1f}")
    measure_sampler(given.table, given.batch_size, 20 * given.repetitions)
    measure_packing(given.batch_size, given.ranks, 4 * given.repetitions)
    measure_loader(given.clips, given.seconds, given.repetitions)


if __name__ == "__main__":
    main()
