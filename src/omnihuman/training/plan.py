"""What a stage will take before it starts: memory by formula, speed as measured or unknown, never as guessed."""

import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.stage import Training
from omnihuman.data.shards import Encoders
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.dataset import training_samples
from omnihuman.training.fit import StageRun
from omnihuman.training.freezing import freeze
from omnihuman.training.launch.placement import Placement
from omnihuman.training.measured import device_name, find_speed, work_of
from omnihuman.training.optimizer import JoinedOptimizer, make_optimizer
from omnihuman.training.packing import TokenCounts
from omnihuman.training.sampling import SampleOrder
from omnihuman.training.throughput import PRICE_VARIABLE, gpu_hour_price

_GIB = 2**30
_UNKNOWN = "unknown"
_NUM_STEPS_LOOKED_AT = 64


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters."""

    total: int
    trainable: int
    by_muon: int
    """Of the trainable ones, those with one moment instead of AdamW's two."""


@dataclass(frozen=True)
class Part:
    """Memory of one rank for one purpose."""

    name: str
    formula: str
    num_bytes: float
    offloaded: bool = False
    """Whether it lies in the processor's memory instead of the device's."""


def count_parameters(run: StageRun, encoders: Encoders) -> Parameters:
    """Without allocating any."""
    with torch.device("meta"):
        model = OmniHumanTransformer(run.model, encoders.widths)
    counted = freeze(model, run.stage.frozen, run.name)
    optimizer = make_optimizer(model, run.training, run.stage.learning_rate)
    muon = optimizer.parts[0].param_groups if isinstance(optimizer, JoinedOptimizer) else []
    return Parameters(
        counted.frozen + counted.trainable,
        counted.trainable,
        sum(parameter.numel() for group in muon for parameter in group["params"]),
    )


def memory_parts(count: Parameters, training: Training, compute: Compute, ranks: int) -> list[Part]:
    """Weights, gradients, optimizer and average of one rank: bytes a parameter, times parameters, over ranks.

    One process keeps all in float32; copies of autocast live shortly. ZeRO keeps
    weights and gradients in the lower precision, and a float32 master beside the moments. Its buckets (50 million
    elements each for reducing and gathering) and what fragmentation costs are not in it.
    """
    moments = 2 * (count.trainable - count.by_muon) + count.by_muon
    told = "1 or 2 moments" if count.by_muon else "2 moments"
    if compute.strategy == "single":
        parts = [
            Part("weights", "4 x parameters", 4 * count.total),
            Part("gradients", "4 x trainable", 4 * count.trainable),
            Part("optimizer", f"{told} x 4 x trainable", 4 * moments),
            Part("average", "4 x trainable", 4 * count.trainable),
        ]
    else:
        width = 4 if training.precision == "32-true" else 2
        thirds, off = compute.strategy == "zero3", compute.offload != "none"
        share = 1 / ranks
        weights = width * count.total * (share if thirds else 1)
        optimizer = f"(master and {told}) x 4 x trainable / {ranks}"
        parts = [
            Part("weights", f"{width} x parameters" + f" / {ranks}" * thirds, weights, compute.offload == "all"),
            Part("gradients", f"{width} x trainable / {ranks}", width * count.trainable * share, off),
            Part("optimizer", optimizer, 4 * (count.trainable + moments) * share, off),
            Part("average", f"4 x trainable / {ranks}", 4 * count.trainable * share, off),
        ]
    return parts if training.ema_decay else parts[:-1]


def tokens_per_sample(run: StageRun, encoded: Path) -> float:
    """Mean of video, reference and text tokens of the draws of some steps spread over the stage, all conditions on.

    Raises:
        UserError: nothing is encoded, or nothing for training.
    """
    samples = training_samples(encoded)
    count = TokenCounts(samples, Encoders.load(encoded / "encoders.json"), run.model.patch_size)
    order = SampleOrder(samples, run.stage, run.training.global_batch_size, run.seed, run.name)
    looked_at = range(0, run.stage.steps, max(1, run.stage.steps // _NUM_STEPS_LOOKED_AT))
    return statistics.mean(count(draw) for step in looked_at for draw in order.batch(step))


def plan(
    run: StageRun, compute: Compute, placed: Placement, encoded: Path, environment: Mapping[str, str] = os.environ
) -> str:
    """A table for people.

    Raises:
        UserError: nothing is encoded yet, or the price is no number.
    """
    count = count_parameters(run, Encoders.load(encoded / "encoders.json"))
    rows = [*_places(run, compute, placed, environment), *_counts(count)]
    rows += _memory(memory_parts(count, run.training, compute, placed.world_size))
    rows += _time(run, compute, placed, tokens_per_sample(run, encoded), environment)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"  {name:<{widths[0]}}  {value:>{widths[1]}}  {note}".rstrip() for name, value, note in rows]
    return "\n".join([f"Plan of stage {run.name}", *lines])


Row = tuple[str, str, str]


def _places(run: StageRun, compute: Compute, placed: Placement, environment: Mapping[str, str]) -> Iterator[Row]:
    device = device_name(compute, placed, environment) or "a device unknown here: OMNIHUMAN_DEVICE names it"
    how = f"{placed.launcher}, {placed.nodes} node(s) of {placed.processes}, {compute.strategy}"
    yield (
        "processes",
        str(placed.world_size),
        f"{how}, offload {compute.offload}, {run.training.precision}, on {device}",
    )


def _counts(count: Parameters) -> Iterator[Row]:
    yield "parameters, trainable", f"{count.trainable:,}", ""
    yield "parameters, frozen", f"{count.total - count.trainable:,}", ""


def _memory(parts: list[Part]) -> Iterator[Row]:
    for part in parts:
        place = " in the processor's memory" if part.offloaded else ""
        yield f"GiB a rank, {part.name}", _gib(part.num_bytes), part.formula + place
    yield "GiB a rank, these", _gib(sum(part.num_bytes for part in parts if not part.offloaded)), "without activations"


def _time(
    run: StageRun, compute: Compute, placed: Placement, tokens: float, environment: Mapping[str, str]
) -> Iterator[Row]:
    price = gpu_hour_price(environment)
    device = device_name(compute, placed, environment)
    found = find_speed(work_of(run, compute, placed, device), tokens, compute.accelerator)
    speed = found.speed if found else None
    batch = run.training.global_batch_size
    unmeasured = "nothing measured for this model, device and placement: a short run of it measures"
    peak = _UNKNOWN if speed is None or speed.peak_gib is None else f"{speed.peak_gib:.3g}"
    elsewhere = f" on {found.device}, the last device of equal work" if found and not device else ""
    measured = f"measured {speed.measured}{elsewhere}" if speed else unmeasured
    yield "GiB a rank, at most", peak, f"{measured}, with activations" if speed else measured
    yield "steps", f"{run.stage.steps:,}", ""
    yield "tokens a step", f"{batch * tokens:,.0f}", f"at most: {batch} samples of {tokens:,.0f} on average"
    yield "tokens a second", f"{speed.tokens_per_second:,.0f}" if speed else _UNKNOWN, measured
    if speed is None:
        yield "hours", _UNKNOWN, ""
        yield "cost", _UNKNOWN, ""
        return
    hours = run.stage.steps * batch / speed.samples_per_second / 3600
    yield "hours", f"{hours:.3g}", "of training steps; validation and checkpoints come on top"
    cost = _UNKNOWN if price is None else f"{hours * placed.world_size * price:.2f}"
    note = f"set {PRICE_VARIABLE}" if price is None else f"{placed.world_size} device(s) at {price:g} an hour"
    yield "cost", cost, note


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / _GIB:.3g}"
