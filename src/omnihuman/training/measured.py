"""The table of measured speeds: each finished stage adds a line, and a plan reads the line of equal work.

Lines are kept in `$OMNIHUMAN_HOME/throughput.jsonl`; those copied to docs/throughput.jsonl, to be shared, count too.
"""

import json
import logging
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from omnihuman.config.schema.compute import Compute
from omnihuman.storage.work import omnihuman_home
from omnihuman.training.device import is_processor, name_of
from omnihuman.training.fit import StageRun
from omnihuman.training.launch.placement import Placement

log = logging.getLogger(__name__)
SHARED = Path("docs/throughput.jsonl")
_TOKENS, _SAMPLES = "throughput/tokens_per_second", "throughput/samples_per_second"
_MEMORY = ("memory/gpu_peak_gib", "memory/process_peak_gib")
_LIKE = 0.1
"""Share by which tokens of a sample may differ for work to be of equal kind."""


@dataclass(frozen=True)
class Work:
    """What decides how fast a stage trains."""

    stage: str
    """By name: which conditions are on decides too."""
    device: str
    nodes: int
    processes: int
    strategy: str
    offload: str
    precision: str
    optimizer: str
    activation_checkpointing: str
    compile: bool
    samples_per_step: int
    accumulate: int
    max_tokens_per_pack: int | None
    loader_workers: int
    frozen: list[str]
    batching: Mapping[str, Any]
    model: Mapping[str, Any]


@dataclass(frozen=True)
class Speed:
    """What was measured."""

    tokens_per_second: float
    """Real ones, of all processes together."""
    samples_per_second: float
    tokens_per_sample: float
    """At most, with every condition on."""
    peak_gib: float | None
    """Of one process's device, or of the process where that is the processor."""
    measured: str
    """Date."""


def work_of(run: StageRun, compute: Compute, placed: Placement, device: str) -> Work:
    """The part of the configuration that decides about speed."""
    training = run.training
    return Work(
        run.name,
        device,
        placed.nodes,
        placed.processes,
        compute.strategy,
        compute.offload,
        training.precision,
        training.optimizer,
        training.activation_checkpointing,
        training.compile,
        training.global_batch_size,
        compute.accumulate,
        compute.max_tokens_per_pack,
        compute.loader_workers,
        list(run.stage.frozen),
        asdict(run.stage.batching),
        json.loads(json.dumps(asdict(run.model))),  # as a file gives it back
    )


def device_name(compute: Compute, placed: Placement, environment: Mapping[str, str] = os.environ) -> str:
    """What a process computes on, as this machine or `$OMNIHUMAN_DEVICE` knows it; empty where neither does."""
    if named := environment.get("OMNIHUMAN_DEVICE"):
        return named
    if placed.launcher != "local":
        return ""
    if compute.accelerator != "cpu" and torch.cuda.is_available():
        return name_of(torch.device("cuda"))
    return "" if compute.accelerator == "cuda" else name_of(torch.device("cpu"))


@dataclass(frozen=True)
class Measurement:
    """One line of the table."""

    work: Mapping[str, Any]
    speed: Speed

    @property
    def device(self) -> str:
        """On which it was measured."""
        return self.work["device"]


def find_speed(
    work: Work, tokens_per_sample: float, accelerator: str, files: tuple[Path, ...] | None = None
) -> Measurement | None:
    """The newest measurement of equal work on samples of about equal length.

    Args:
        work: without a device, a line counts whatever its device.
        accelerator: `compute.accelerator`, which tells processors from GPUs where no device is named.
    """
    wanted, found = asdict(work), None
    for line in (line for file in files or (SHARED, omnihuman_home() / "throughput.jsonl") for line in _lines(file)):
        like = abs(line.speed.tokens_per_sample / tokens_per_sample - 1) <= _LIKE
        fits = bool(work.device) or accelerator == "auto" or is_processor(line.device) == (accelerator == "cpu")
        if like and fits and line.work == (wanted if work.device else wanted | {"device": line.device}):
            found = line
    return found


def _lines(file: Path) -> Iterator[Measurement]:
    """The measurements of a table; a warning names a line that is none, such as one that was written by halves."""
    for number, line in enumerate(file.read_text(errors="replace").splitlines() if file.is_file() else [], start=1):
        try:
            entry = json.loads(line)
            speed = Speed(**entry["speed"])
            if not (isinstance(entry["work"]["device"], str) and float(speed.tokens_per_sample) > 0):
                raise ValueError("no device or no tokens")
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s, line %d is no measurement and left out (%r): remove it", file, number, error)
            continue
        yield Measurement(entry["work"], speed)


class Recorder:
    """Listens to the metrics of a stage and keeps its speed."""

    def __init__(self, report: Callable[[int, dict[str, float]], None]) -> None:
        self._report = report
        self._speeds: list[tuple[float, float]] = []
        self._peak: float | None = None

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hands metrics on, and remembers those of speed and memory."""
        self._report(step, dict(metrics))
        if _TOKENS in metrics:
            self._speeds.append((metrics[_TOKENS], metrics[_SAMPLES]))
            self._peak = next((metrics[name] for name in _MEMORY if name in metrics), None)

    def save(self, work: Work, tokens_per_sample: float, file: Path | None = None) -> None:
        """Adds the median, without the first window with its warm-up; nothing where too little was heard."""
        if len(self._speeds) < 2 or not work.device:
            return
        today = datetime.now(UTC).date().isoformat()
        tokens, samples = map(statistics.median, zip(*self._speeds[1:], strict=True))
        speed = Speed(tokens, samples, tokens_per_sample, self._peak, today)
        with (file or omnihuman_home() / "throughput.jsonl").open("a") as table:
            table.write(json.dumps({"work": asdict(work), "speed": asdict(speed)}) + "\n")
