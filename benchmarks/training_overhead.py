"""What training costs beside the model: packs, Lightning, logging, EMA against a bare loop; how long a save stops it.

The bare loop takes the same packs, made before, through the same model, loss, clipping and AdamW. Each round runs the
bare loop and the stage in turn; a round's ratio is that of their median steps. Goal: below 5% together. What the
average alone takes, and what a save is made of, is timed where it happens, and held against the steps of the same run.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch

from measure import machine
from omnihuman.config.compose import compose
from omnihuman.config.schema.stage import Activation, Stage
from omnihuman.data.manifest import SAMPLES, write_table
from omnihuman.data.shard_reading import place_of_shards
from omnihuman.data.shards import EncodedClip, Encoders, load_empty_text, save_empty_text, save_shard
from omnihuman.encoders.speech import LogMel
from omnihuman.encoders.video_codec import CosineCodec
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training import checkpoints
from omnihuman.training.dataset import SampleSettings, StagePacks
from omnihuman.training.ema import WeightAverage
from omnihuman.training.fit import StageRun
from omnihuman.training.module import sample_losses
from omnihuman.training.optimizer import make_optimizer
from omnihuman.training.rank import MetricsFile
from omnihuman.training.run import train_stage
from omnihuman.training.sampling import SampleOrder
from omnihuman.training.saving import SaveCheckpoints

NUM_CLIPS, NUM_FRAMES, SIDE, MAX_TEXT = 16, 17, 8, 16
WARM_UP = 2
GOAL = 1.05


@dataclass(frozen=True)
class Steps:
    """Of a run, without the first ones."""

    seconds: list[float]
    processor_seconds: list[float]
    """Of all threads: what other work on the machine changes least."""

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


class Stopwatch:
    """Times calls of methods and functions where they happen, for as long as the block lasts."""

    def __init__(self, timed: dict[str, tuple[Any, str]]) -> None:
        self.taken: dict[str, list[np.ndarray]] = {label: [] for label in timed}
        """Of each call, the two seconds of `now`."""
        self._timed, self._originals = timed, {label: getattr(*place) for label, place in timed.items()}

    def __enter__(self) -> "Stopwatch":
        for label, (owner, name) in self._timed.items():
            setattr(owner, name, self._wrapped(label))
        return self

    def __exit__(self, *_: object) -> None:
        for label, (owner, name) in self._timed.items():
            setattr(owner, name, self._originals[label])

    def _wrapped(self, label: str) -> Callable[..., Any]:
        original, taken = self._originals[label], self.taken[label]

        def call(*given: Any, **named: Any) -> Any:
            start = np.array(now())
            try:
                return original(*given, **named)
            finally:
                taken.append(now() - start)

        return call


AVERAGING = {"average": (WeightAverage, "on_train_batch_end")}
SAVING = {
    "a look at the weights": (SaveCheckpoints, "_check_weights"),
    "weights and optimizer written by Lightning": (pl.Trainer, "save_checkpoint"),
    "the average written": (WeightAverage, "save"),
    "all files read again and hashed": (checkpoints, "write_manifest"),
    "old checkpoints removed": (checkpoints.Checkpoints, "_prune"),
}


class Clock:
    """Takes the metrics of a stage as a launched rank writes them, and the time between its steps."""

    def __init__(self, path: Path) -> None:
        self._file, self.moments = MetricsFile(path), [now()]

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self._file.add(step, metrics)
        if "loss" in metrics:
            self.moments.append(now())

    def steps(self) -> Steps:
        return Steps(*np.diff(self.moments, axis=0)[WARM_UP:].T.tolist())


def now() -> tuple[float, float]:
    """Seconds on the clock, and of this process on all processors."""
    return time.perf_counter(), time.process_time()


def write_clips(folder: Path, encoders: Encoders) -> None:
    """Clips of noise in the demo's shapes."""
    random = np.random.default_rng(0)
    shape = (encoders.latent_channels, 1 + (NUM_FRAMES - 1) // 4, SIDE, SIDE)

    def clip() -> EncodedClip:
        return EncodedClip(
            latents=random.standard_normal((3, *shape)).astype(np.float16),
            starts=np.array([0, 15, 30], np.int32),
            references=random.standard_normal((3, shape[0], SIDE, SIDE)).astype(np.float16),
            reference_frames=np.array([0, 25, 49], np.int32),
            speech=random.standard_normal((50, encoders.speech_layers, encoders.speech_width)).astype(np.float16),
            sound=random.integers(-9000, 9000, 32000).astype(np.int16),
            keypoints=random.random((50, encoders.num_keypoints, 3)).astype(np.float32),
            text=random.standard_normal((6, encoders.text_width)).astype(np.float16),
        )

    folder.mkdir()
    save_shard(folder / "shard-00000.safetensors", [(f"clip-{i}", clip()) for i in range(NUM_CLIPS)], encoders)
    row = {
        "shard": "shard-00000.safetensors", "split": "train", "area_pixels": (8 * SIDE) ** 2,
        "larger_area_pixels": 0, "width": 8 * SIDE, "height": 8 * SIDE, "num_windows": 3,
        "num_frames": 50, "caption": "", "audio_eligible": True, "pose_eligible": True, "status": "ok", "error": "",
    }  # fmt: skip
    rows = [{"clip_id": f"clip-{i}", "identity": str(i), **row} for i in range(NUM_CLIPS)]
    write_table(rows, SAMPLES, folder / "samples.parquet")
    encoders.save(folder / "encoders.json")
    save_empty_text(folder, np.zeros((1, encoders.text_width), np.float32))


def bare(run: StageRun, encoded: Path, encoders: Encoders, num_steps: int) -> Steps:
    """The model, its loss, clipping and the optimizer, on packs that lie ready."""
    training = run.training
    samples = pd.read_parquet(encoded / "samples.parquet")
    order = SampleOrder(samples, run.stage, training.global_batch_size, run.seed, run.name)
    shares = training.motion_frames_share, training.reference_pose_share
    settings = SampleSettings(run.name, run.stage, run.seed, *shares, MAX_TEXT, run.diffusion)
    packs = StagePacks(samples, place_of_shards(encoded), order, settings, load_empty_text(encoded))
    ready = [packs.packs(step)[0] for step in range(num_steps)]
    torch.manual_seed(run.seed)
    model = OmniHumanTransformer(run.model, encoders.widths).train()
    optimizer = make_optimizer(model, training, run.stage.learning_rate)
    taken = []
    for pack in ready:
        start = np.array(now())
        optimizer.zero_grad()
        sample_losses(model, pack, run.diffusion).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
        optimizer.step()
        taken.append(now() - start)
    return Steps(*np.array(taken)[WARM_UP:].T.tolist())


def staged(run: StageRun, encoded: Path, folder: Path) -> Steps:
    """The whole stage, its metrics written as a launched rank writes them."""
    folder.mkdir()
    clock = Clock(folder / "metrics.jsonl")
    train_stage(run, encoded, folder / "models", folder, clock.report)
    steps = clock.steps()
    shutil.rmtree(folder)
    return steps


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="of each run, after 2 that do not count")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    params = compose("demo")
    num_steps = args.steps + WARM_UP
    encoders = Encoders(
        video_codec="cosine", video_weights="", video_weights_sha256="", video_tile_pixels=0,
        video_tile_stride_pixels=0, speech_encoder="log_mel", speech_weights="", speech_weights_sha256="",
        text_encoder="hashed_words", text_weights="", text_weights_sha256="", fps=25.0, num_frames=NUM_FRAMES,
        resolutions=((8 * SIDE) ** 2,), size_multiple=8, max_aspect=2.0, max_text_tokens=MAX_TEXT,
        latent_channels=CosineCodec().num_channels, speech_width=LogMel.width, speech_layers=1, text_width=64,
        num_keypoints=17,
    )  # fmt: skip
    training = replace(
        params.training, optimizer="adamw", global_batch_size=args.batch, checkpoint_every_steps=10**6,
        validate_every_steps=0, probe_every_steps=0, log_every_steps=1,
    )  # fmt: skip
    stage = Stage(steps=num_steps, activate=Activation(0.9, 0.9, 0.9, 0.9))
    run = StageRun("3_pose", stage, training, params.model, params.diffusion, seed=0)
    with_ema = replace(run, training=replace(training, ema_decay=0.999))
    saving = replace(run, training=replace(training, ema_decay=0.999, checkpoint_every_steps=2))
    print(machine(torch.device("cpu")))
    print(
        f"the demo's model, batch {args.batch} of 5 x {SIDE} x {SIDE} latents, float32, AdamW, {args.steps} steps a run"
    )
    with tempfile.TemporaryDirectory() as place:
        encoded = Path(place) / "encoded"
        write_clips(encoded, encoders)
        ratios: dict[str, list[float]] = {"without EMA": [], "with EMA": []}
        shares, stalls, bares = [], [], []
        parts: dict[str, list[np.ndarray]] = {label: [] for label in SAVING}
        for _ in range(args.rounds):
            alone = bare(run, encoded, encoders, num_steps).median
            bares.append(alone)
            ratios["without EMA"].append(staged(run, encoded, Path(place) / "stage").median / alone)
            with Stopwatch(AVERAGING) as watch:
                steps = staged(with_ema, encoded, Path(place) / "stage")
            ratios["with EMA"].append(steps.median / alone)
            shares.append(float(np.median(watch.taken["average"], axis=0)[1] / np.median(steps.processor_seconds)))
            with Stopwatch(SAVING) as watch:
                seconds = staged(saving, encoded, Path(place) / "stage").seconds
            stalls.append(statistics.median(seconds[1::2]) - statistics.median(seconds[::2]))  # every second one saves
            for label, taken in watch.taken.items():
                parts[label].append(np.median(taken, axis=0))
    print(f"  bare step {1000 * statistics.median(bares):.1f} ms")
    for name, values in ratios.items():
        reached = "reached" if statistics.median(values) < GOAL else "not reached"
        print(f"  stage {name:<12} {spread(values)} of it, goal {GOAL}: {reached}")
    percents = spread([100 * share for share in shares])
    print(f"  the average alone: {percents}% of the processor time of a step of its own run")
    print(f"  a checkpoint stops it for {spread([1000 * stall for stall in stalls])} ms, of which timed inside:")
    for label, taken in parts.items():
        wall, processor = (1000 * np.array(taken)).T.tolist()
        print(f"    {label:<43} {spread(wall)} ms, on processors {spread(processor)} ms")


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
