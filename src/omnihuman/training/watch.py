"""What follows a loss that is no number or jumps: a stop that names the clips, or a way back to before it."""

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from omnihuman.config.schema.stage import Training
from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.training.dataset import StagePacks
from omnihuman.training.ranks import Ranks
from omnihuman.training.skipping import TakenSteps

_RECENT = 50
"""Steps whose median a spike is measured by; fewer than a fifth of them tell nothing yet."""
_MOST_SKIPPED = 20
"""Steps left out of one stage before it stops after all: then it is not the data."""


class LossSpike(Exception):
    """The step is to be left out and training to go back to the last good checkpoint."""


@dataclass(frozen=True)
class LossWatch:
    """Judges the loss of each step, alike on every rank."""

    config: Training
    ranks: Ranks
    order: TakenSteps
    packs: StagePacks
    samples: pd.DataFrame
    skipped: "SkippedSteps"

    def judge(self, before: list[float], loss: float, micro_losses: list[float]) -> None:
        """Returns when the loss is sound.

        Args:
            before: losses of the steps before.
            loss: of the step, over all ranks.
            micro_losses: this rank's parts of it.

        Raises:
            UserError: it is not, and the stage is to stop; names step and clips.
            LossSpike: it is not, and the step is to be left out.
        """
        if problem := self._problem(before, loss):
            self._refuse(problem, len(before), micro_losses)

    def judge_gradient(self, step: int) -> None:
        """As `judge`, of a step whose gradient is no number although its loss is one."""
        self._refuse("the gradient is no number", step, [0.0] * len(self.packs.draws(step)))

    def _refuse(self, problem: str, step: int, micro_losses: list[float]) -> None:
        clips = ", ".join(self._clips(step, micro_losses))
        said = f"{problem} at step {step + 1}, whose samples are of the clips {clips}"
        if self.config.on_loss_spike == "skip" and len(self.skipped.positions) < _MOST_SKIPPED:
            self.skipped.add(self.order.position(step))
            raise LossSpike(said)
        raise UserError(
            f"{said}: nothing is published and the last checkpoint stays. Look at these clips, lower the stage's"
            " learning_rate or training.gradient_clip, or set training.on_loss_spike=skip to leave such steps out"
        )

    def _problem(self, before: list[float], loss: float) -> str:
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        recent = before[-_RECENT:]
        if not self.config.loss_spike_factor or len(recent) < _RECENT // 5:
            return ""
        usual = statistics.median(recent)
        if loss <= self.config.loss_spike_factor * usual:
            return ""
        return f"the loss is {loss:.4g}, above {self.config.loss_spike_factor:g} times the usual {usual:.4g}"

    def _clips(self, step: int, micro_losses: list[float]) -> list[str]:
        """Clips of the micro-steps whose loss is no number, on any rank; of all where every loss is a number."""
        broken = [number for number, loss in enumerate(micro_losses) if not math.isfinite(loss)]
        somewhere = any(self.ranks.gather(bool(broken)))
        wanted = broken if somewhere else range(len(micro_losses))
        of_packs = self.packs.draws(step)
        rows = {draw.row for number in wanted for draw in of_packs[number]}
        names = [str(self.samples.iloc[row]["clip_id"]) for row in rows]
        return sorted({name for part in self.ranks.gather(names) for name in part})


class SkippedSteps:
    """Steps of the sample order that are left out, in a file that outlives the process."""

    def __init__(self, work: Path, ranks: Ranks) -> None:
        self._path, self._ranks = work / "skipped_steps.json", ranks
        stored = json.loads(self._path.read_text()) if ranks.first and self._path.is_file() else []
        self.positions: tuple[int, ...] = tuple(ranks.of_first(stored))

    def add(self, position: int) -> None:
        """Leaves one more out, from the next start on."""
        self.positions = tuple(sorted({*self.positions, position}))
        if self._ranks.first:
            with publish(self._path) as temporary:
                temporary.write_text(json.dumps(self.positions))
