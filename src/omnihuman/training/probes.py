"""Looks at what the model makes while it trains: figures, pictures and videos every so many steps."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import lightning.pytorch as pl

from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.storage.files import publish_folder
from omnihuman.training.divided import is_divided, whole_copy
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
    """Runs a probe on rank 0 and reports its figures as `probe/NAME`.

    The other ranks go on, and wait for the first in the next step as long as ranks wait for one another. Where weights
    are divided (ZeRO-3) the probe gets a copy of its own, so that neither its passes nor its failure concern anyone
    else: that takes one copy of the weights on the first rank's processor, then on its GPU.
    """

    def __init__(self, probe: Probe, every: int, num_steps: int, work: Path, report: Report | None) -> None:
        super().__init__(every, num_steps)
        self._probe, self._work, self._report = probe, work, report

    def after_step(self, trainer: pl.Trainer, module: StageModule, step: int) -> None:
        """A probe that fails costs a picture, not the run."""
        try:
            model = whole_copy(module.model, trainer.is_global_zero) if is_divided(module.model) else module.model
            if model is None or not trainer.is_global_zero:
                return
            with (
                evaluating(model.to(module.device)),
                trainer.precision_plugin.forward_context(),
                publish_folder(probe_folder(self._work, step)) as folder,
            ):
                figures = self._probe(model, step, folder)
        except Exception:
            log.exception("the probe after step %d failed; training goes on", step)
            return
        if self._report:
            self._report(step, {PREFIX + name: value for name, value in figures.items()})
