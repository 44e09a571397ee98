"""A trace of some training steps by PyTorch's profiler, for `groups.debug=profile`."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.profiler import ProfilerActivity, profile

FOLDER = "profile"
"""In the work folder: `trace.json.gz` for Perfetto or chrome://tracing, `operators.txt` for people."""
_STEPS_BEFORE = 3
"""Left out: the first steps compile, allocate and fill caches."""
_NUM_ROWS = 40


class StepTrace(pl.Callback):
    """Traces `num_steps` batches of this process, after the first three."""

    def __init__(self, work: Path, num_steps: int) -> None:
        self._folder, self._num_steps = work / FOLDER, num_steps
        self._seen = 0
        self._profiler: profile | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begins the trace when its time has come."""
        self._seen += 1
        if self._seen == _STEPS_BEFORE + 1:
            on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profiler = profile(activities=[ProfilerActivity.CPU, *on_gpu], record_shapes=True)
            self._profiler.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ends and writes it."""
        if self._profiler is not None and self._seen == _STEPS_BEFORE + self._num_steps:
            self._write(self._profiler)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes what there is of a stage that was shorter."""
        if self._profiler is not None:
            self._write(self._profiler)

    def _write(self, profiler: profile) -> None:
        profiler.stop()
        self._profiler = None
        self._folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self._folder / "trace.json.gz"))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = profiler.key_averages().table(sort_by=by, row_limit=_NUM_ROWS)
        (self._folder / "operators.txt").write_text(table + "\n")
