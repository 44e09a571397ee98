"""Progress of a stage: a bar on a terminal, lines elsewhere, and its curves to whoever keeps them."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from tqdm import tqdm

from omnihuman.training.module import StageModule

_LINE_SECONDS = 20.0

Report = Callable[[int, dict[str, float]], None]
"""Takes the number of a finished step, from 1 on, and its metrics by name."""


class EverySteps(pl.Callback, ABC):
    """Does something after every so many steps and after the last, once each however many batches a step takes."""

    def __init__(self, every: int, num_steps: int) -> None:
        self._every, self._num_steps = every, num_steps
        self._done = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks whether a step has just ended, and which."""
        step = trainer.global_step
        if step > self._done and (step % self._every == 0 or step == self._num_steps):
            self._done = step
            assert isinstance(pl_module, StageModule)
            self.after_step(trainer, pl_module, step)

    @abstractmethod
    def after_step(self, trainer: pl.Trainer, module: StageModule, step: int) -> None:
        """Called on every rank."""


class ProgressLines(pl.Callback):
    """Shows step, loss and time left on stderr."""

    def __init__(self, stage: str, num_steps: int, log_every_steps: int) -> None:
        self._stage, self._num_steps, self._every = stage, num_steps, log_every_steps
        self._bar: tqdm | None = None
        self._last_line = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins where the run does, which a resumed one does in the middle."""
        first = trainer.global_step
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._num_steps, initial=first, desc=self._stage, unit="step", file=sys.stderr)
        elif first:
            print(f"{self._stage}: goes on after step {first}", file=sys.stderr)
        self._first, self._start = first, time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar, or prints a line every twenty seconds and at the end."""
        step, now = trainer.global_step, time.monotonic()
        if step == self._first:  # of the first step, not all micro-steps are done
            return
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if step % self._every == 0:
                self._bar.set_postfix(loss=f"{float(trainer.callback_metrics['loss']):.3f}")
        elif now - self._last_line >= _LINE_SECONDS or step == self._num_steps:
            self._last_line = now
            left = (now - self._start) / (step - self._first) * (self._num_steps - step)
            loss = float(trainer.callback_metrics["loss"])
            line = f"{self._stage}: step {step} of {self._num_steps}, loss {loss:.3f}, about {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()


class CurveReport(pl.Callback):
    """Hands on loss and learning rate of every step; a resumed run hands on again what its checkpoint holds."""

    def __init__(self, module: StageModule, report: Report) -> None:
        self._module, self._report = module, report
        self._told = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What was not handed on when the run was killed would else be missing."""
        self._told = trainer.global_step
        for step in range(1, self._told + 1):
            self._report(step, self._module.metrics(step))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step that has just ended, told once however many batches it took."""
        if trainer.global_step > self._told:
            self._told = trainer.global_step
            self._report(self._told, self._module.metrics(self._told))
