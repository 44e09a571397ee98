"""When a checkpoint is written, and how a process that is told to stop ends."""

import json
import signal
import sys
import threading
from dataclasses import replace
from functools import partial
from typing import Any

import lightning.pytorch as pl
from safetensors.torch import save_file

from omnihuman.config.schema.compute import Compute
from omnihuman.config.schema.stage import Training
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import ModelDescription, save_description
from omnihuman.training.checkpoints import STATE, Checkpoints
from omnihuman.training.ema import WeightAverage, fragments
from omnihuman.training.freezing import UNCHANGED, unchanged_tensors
from omnihuman.training.module import StageModule
from omnihuman.training.ranks import Ranks
from omnihuman.training.strategy import keeps_unchanged_apart

LOSSES = "losses.json"
"""In a checkpoint: mean loss of every step."""
PREEMPTED = 128 + signal.SIGTERM
"""Exit code after a SIGTERM: all is saved, start the same command again."""


class Preempted(SystemExit):
    """A SIGTERM came, and everything is saved."""

    def __init__(self) -> None:
        super().__init__(PREEMPTED)


class SaveCheckpoints(pl.Callback):
    """Saves every so many steps, at the last one, and before a process that was told to stop ends."""

    def __init__(
        self,
        module: StageModule,
        training: Training,
        compute: Compute,
        ranks: Ranks,
        checkpoints: Checkpoints,
        average: WeightAverage | None,
        description: ModelDescription,
    ) -> None:
        self._module, self._training, self._compute, self._ranks = module, training, compute, ranks
        self._checkpoints, self._average, self._description = checkpoints, average, description
        self._step = 0
        self._handler: Any = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Keeps what the stage leaves as it is, before DeepSpeed or Lightning round the weights."""
        unchanged = unchanged_tensors(self._module.model)
        if unchanged and keeps_unchanged_apart(self._compute):
            self._checkpoints.share(UNCHANGED, partial(save_file, unchanged))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on a SIGTERM waits for the end of the step."""
        self._step = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGTERM, self._stop)

    def _stop(self, *_: Any) -> None:
        self._module.stop_wanted = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro-step of a step."""
        step, last = trainer.global_step, trainer.max_steps
        if step == self._step:
            return
        self._step = step
        stopping = self._module.stopping and step < last
        if stopping or step == last or step % self._training.checkpoint_every_steps == 0:
            self._save(trainer, step)
        if stopping:
            if self._ranks.first:
                stage = self._description.stage
                print(f"{stage}: told to stop, saved step {step}; start it again to go on", file=sys.stderr, flush=True)
            raise Preempted

    def _check_weights(self, step: int) -> None:
        """Raises `UserError` on all ranks where a weight of any is no number: such a checkpoint would serve nobody."""
        own = fragments(self._module.model, self._ranks.rank)
        broken = [piece.name for piece in own if not piece.values.isfinite().all()]
        if names := sorted({name for part in self._ranks.gather(broken) for name in part}):
            raise UserError(
                f"after step {step} {len(names)} weights hold values that are no numbers, first {', '.join(names[:3])}:"
                " nothing is saved and the last checkpoint stays. Lower the stage's learning_rate or"
                " training.gradient_clip, and start it again"
            )

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        self._check_weights(step)
        with self._checkpoints.new(step, self._compute.strategy) as folder:
            trainer.save_checkpoint(folder / STATE)
            if self._average is not None:
                self._average.save(folder)
            if self._ranks.first:
                (folder / LOSSES).write_text(json.dumps(self._module.losses))
                save_description(folder, replace(self._description, num_steps=step))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Gives the signal back."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None
