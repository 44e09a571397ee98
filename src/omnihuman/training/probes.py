"""Looks at what the model makes while it trains: figures, pictures and videos every so many steps."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning.pytorch as pl
from torch import nn

from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.storage.files import publish_folder
from omnihuman.training.evaluating import evaluating
from omnihuman.training.module import StageModule
from omnihuman.training.progress import EverySteps, Report

log = logging.getLogger(__name__)
PREFIX = "probe/"

Probe = Callable[[OmniHumanTransformer, int, Path], Mapping[str, float]]
"""Takes the model in evaluation mode, the step and an empty folder for files; returns figures by name.

It is handed in from above: training knows neither how a video is made nor how it is measured.
"""


def probe_folder(work: Path, step: int) -> Path:
    """Where the files of a step's probe lie."""
    return work / "probes" / f"step-{step:06d}"


class Probes(EverySteps):
    """Runs a probe and reports its figures as `probe/NAME`.

    Rank 0 alone does, except where weights are divided (ZeRO-3): there each pass gathers them from every rank, so all
    make the same videos and only those of rank 0 are kept.
    """

    def __init__(self, probe: Probe, every: int, num_steps: int, work: Path, report: Report | None) -> None:
        super().__init__(every, num_steps)
        self._probe, self._work, self._report = probe, work, report

    def after_step(self, trainer: pl.Trainer, module: StageModule, step: int) -> None:
        """A probe that fails costs a picture, not the run."""
        if not (trainer.is_global_zero or _is_divided(module)):
            return
        try:
            with evaluating(module.model), trainer.precision_plugin.forward_context():
                if trainer.is_global_zero:
                    with publish_folder(probe_folder(self._work, step)) as folder:
                        figures = self._probe(module.model, step, folder)
                else:
                    with tempfile.TemporaryDirectory() as folder:
                        figures = self._probe(module.model, step, Path(folder))
        except Exception:
            log.exception("the probe after step %d failed; training goes on", step)
            return
        if self._report and trainer.is_global_zero:
            self._report(step, {PREFIX + name: value for name, value in figures.items()})


def _is_divided(module: nn.Module) -> bool:
    return any(hasattr(parameter, "ds_id") for parameter in module.parameters())
