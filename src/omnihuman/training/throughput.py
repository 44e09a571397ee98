"""What a stage costs: tokens a second, share of the peak, memory, time spent waiting for data, hours and money.

Counted as a throughput record is: the operations of real tokens alone, forth, and back as far as what is trained needs
gradients, against the dense peak. MFU is of the model's operations: what activation checkpointing computes again takes
its time and is not counted (that would be HFU, of the hardware's operations). What is neither a step nor waiting for
its data (validation, probes, checkpoints) is in the hours alone.
"""

import json
import os
import resource
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from omnihuman.batch import Pack, TrainingBatch, Widths
from omnihuman.config.schema.model import Model
from omnihuman.config.schema.stage import Training
from omnihuman.errors import UserError
from omnihuman.model.flops import Trains, omnihuman_flops
from omnihuman.storage.files import publish
from omnihuman.training.device import name_of, note_device
from omnihuman.training.progress import Report
from omnihuman.training.ranks import Ranks

PRICE_VARIABLE = "OMNIHUMAN_GPU_HOUR_PRICE"
PEAK_VARIABLE = "OMNIHUMAN_PEAK_TFLOPS"
_PEAK_TFLOPS = {
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
}
"""Dense, in half precision, by NVIDIA's data sheets; some print the sparse figure alone, which is twice that."""
_GIB = 2**30


@dataclass(frozen=True)
class PackSize:
    """What one pack asks for."""

    samples: int
    tokens: int
    """Real ones: video, reference and text."""
    flops: int
    """Of forward and backward pass; 0 where nobody has counted this kind of model."""


@dataclass(frozen=True)
class Fetched:
    """A pack on its way to the model."""

    size: PackSize
    waited_seconds: float


def pack_size(pack: Pack, config: Model, widths: Widths, trains: Trains) -> PackSize:
    """Samples, tokens and operations of a pack that lies on the CPU.

    Args:
        trains: which parameters a step trains.
    """
    grids: list[tuple[int, int, int]] = []
    text: list[int] = []
    reference_on: list[bool] = []
    audio_on: list[bool] = []
    for part in pack:
        grids += [_grid(part)] * len(part.sigma)
        text += part.conditions.text_mask.sum(dim=1).tolist()
        reference_on += part.conditions.reference_on.tolist()
        audio_on += part.conditions.audio_on.tolist()
    places = [height * width // config.patch_size**2 for _, height, width in grids]
    video = sum((grid[0] + on) * place for grid, on, place in zip(grids, reference_on, places, strict=True))
    counted = config.audio_fusion == "cross_attention"
    flops = omnihuman_flops(config, widths, grids, text, reference_on, audio_on, trains) if counted else 0
    return PackSize(len(grids), video + sum(text), flops)


def _grid(part: TrainingBatch) -> tuple[int, int, int]:
    _, _, num_latents, height, width = part.latents.shape
    return num_latents, height, width


class TimedPacks:
    """Packs with the time that the training loop waits for them."""

    def __init__(self, packs: Iterable[Pack], config: Model, widths: Widths, trains: Trains) -> None:
        self.fetched: deque[Fetched] = deque()
        """What was handed out and not yet trained on: a loop fetches ahead."""
        self._packs, self._config, self._widths, self._trains = packs, config, widths, trains

    def __iter__(self) -> Iterator[Pack]:
        """Yields pack after pack."""
        self.fetched.clear()
        packs = iter(self._packs)
        while True:
            start = time.monotonic()
            try:
                pack = next(packs)
            except StopIteration:
                return
            waited = time.monotonic() - start
            self.fetched.append(Fetched(pack_size(pack, self._config, self._widths, self._trains), waited))
            yield pack


@dataclass
class Window:
    """What one rank has done since the last report."""

    samples: int = 0
    tokens: int = 0
    flops: int = 0
    waited_seconds: float = 0.0
    seconds: float = 0.0
    """In steps and waiting for their data."""

    def add(self, fetched: Fetched, step_seconds: float) -> None:
        """Adds one pack."""
        self.samples += fetched.size.samples
        self.tokens += fetched.size.tokens
        self.flops += fetched.size.flops
        self.waited_seconds += fetched.waited_seconds
        self.seconds += fetched.waited_seconds + step_seconds


def rates(windows: Sequence[Window], peak_flops: float | None) -> dict[str, float]:
    """Figures of all ranks together; the slowest says how long they took.

    Args:
        windows: one a rank.
        peak_flops: of one device a second; None where unknown.
    """
    seconds = max(window.seconds for window in windows)
    flops = sum(window.flops for window in windows)
    waited = sum(window.waited_seconds for window in windows)
    figures = {
        "throughput/tokens_per_second": sum(window.tokens for window in windows) / seconds,
        "throughput/samples_per_second": sum(window.samples for window in windows) / seconds,
        "throughput/data_wait_share": waited / sum(window.seconds for window in windows),
    }
    if flops:
        figures["throughput/tflops_per_second"] = flops / seconds / 1e12
        if peak_flops:
            figures["throughput/mfu"] = flops / seconds / (len(windows) * peak_flops)
    return figures


def peak_flops(device: str, precision: str) -> float | None:
    """Operations a second of a device by its name, `$OMNIHUMAN_PEAK_TFLOPS` first.

    None for what the table does not know, and in single precision, whose peak is another.

    Raises:
        UserError: the variable is no positive number.
    """
    given = _positive(PEAK_VARIABLE, "the dense peak of one device in TFLOP/s, such as 989")
    if given is not None:
        return given * 1e12
    if precision == "32-true":
        return None
    words = device.replace("-", " ").split()
    return next((peak * 1e12 for name, peak in _PEAK_TFLOPS.items() if set(name.split()) <= set(words)), None)


def gpu_hour_price(environment: Mapping[str, str] = os.environ) -> float | None:
    """What one GPU costs for an hour, None where nobody says.

    Raises:
        UserError: the variable is no positive number.
    """
    return _positive(PRICE_VARIABLE, "the price of one GPU for an hour, such as 2.5", environment)


def _positive(variable: str, meaning: str, environment: Mapping[str, str] = os.environ) -> float | None:
    text = environment.get(variable, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"{variable} is {text!r}: set {meaning}, or unset it")
    return value


class Meter:
    """Hours of a stage, kept in its work folder: those of a killed process have been paid for as well."""

    def __init__(self, file: Path, num_gpus: int, price: float | None) -> None:
        self._file, self._num_gpus, self._price = file, num_gpus, price
        before = json.loads(file.read_text()) if file.is_file() else {"seconds": 0.0, "gpu_seconds": 0.0}
        self._seconds, self._gpu_seconds = float(before["seconds"]), float(before["gpu_seconds"])

    def add(self, seconds: float) -> None:
        """Counts time that has passed; all GPUs are paid for while the stage runs."""
        self._seconds += seconds
        self._gpu_seconds += seconds * self._num_gpus
        with publish(self._file) as temporary:
            temporary.write_text(json.dumps({"seconds": self._seconds, "gpu_seconds": self._gpu_seconds}))

    def figures(self) -> dict[str, float]:
        """Hours so far; what GPUs cost only where there are some and the price is known."""
        figures = {"cost/hours": self._seconds / 3600}
        if self._gpu_seconds:
            figures["cost/gpu_hours"] = self._gpu_seconds / 3600
            if self._price is not None:
                figures["cost/price"] = self._gpu_seconds / 3600 * self._price
        return figures


class Throughput(pl.Callback):
    """Reports rates and costs every `every` steps and after the last; comes before what else follows a step."""

    def __init__(
        self, packs: TimedPacks, training: Training, num_steps: int, ranks: Ranks, work: Path, report: Report | None
    ) -> None:
        self._packs, self._training, self._num_steps = packs, training, num_steps
        self._ranks, self._work, self._report = ranks, work, report
        self._price = gpu_hour_price()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins to count."""
        cuda = pl_module.device.type == "cuda"
        self._peak = peak_flops(name_of(pl_module.device), self._training.precision)
        if self._ranks.first:
            note_device(self._work, pl_module.device)
        meter_file = self._work / "hours.json"
        self._meter = Meter(meter_file, self._ranks.size if cuda else 0, self._price)
        self._window, self._reported = Window(), trainer.global_step
        self._metered = self._batch_start = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A pack has come."""
        self._batch_start = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A pack is done, and perhaps a step."""
        step = trainer.global_step
        due = step > self._reported and (step % self._training.log_every_steps == 0 or step == self._num_steps)
        if due and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # what was queued belongs to this window
        self._window.add(self._packs.fetched.popleft(), time.monotonic() - self._batch_start)
        if due:
            self._reported = step
            self._report_window(pl_module.device, step)

    def _report_window(self, device: torch.device, step: int) -> None:
        window, self._window = self._window, Window()
        of_ranks: list[tuple[Window, dict[str, float]]] = self._ranks.gather((window, _peak_memory(device)))
        now = time.monotonic()
        passed, self._metered = now - self._metered, now
        if self._ranks.first:
            self._meter.add(passed)
        if self._report:
            windows, memory = zip(*of_ranks, strict=True)
            figures = rates(windows, self._peak)
            figures |= {name: max(one[name] for one in memory) for name in memory[0]}
            self._report(step, figures | self._meter.figures())


def _peak_memory(device: torch.device) -> dict[str, float]:
    """Of this process and its GPU, in GiB."""
    figures = {"memory/process_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIB}
    if device.type == "cuda":
        figures["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated(device) / _GIB
    return figures
