"""What training is handed from above: how it looks at its videos, and where their files go."""

import logging
from collections.abc import Mapping
from pathlib import Path

from omnihuman.config.schema.root import Params
from omnihuman.config.schema.stage import Stage
from omnihuman.tracking.runs import StepRun
from omnihuman.tracking.server import impatient
from omnihuman.training.probes import PREFIX, Probe, probe_folder

log = logging.getLogger(__name__)
_SENT = ".sent"
"""Marks a folder of files that the run has."""


def held_out_probe(stage: Stage, params: Params, encoded: Path) -> Probe | None:
    """Lip sync and pose on held-out clips, as far as the stage trains them; None where it trains neither."""
    modalities = [name for name in ("audio", "pose") if getattr(stage.activate, name) > 0]
    if not modalities:
        return None

    from omnihuman.data.shards import Encoders
    from omnihuman.evaluation.probe import probe
    from omnihuman.inference.generator import Generator
    from omnihuman.model.omnihuman import OmniHumanTransformer

    def run(model: OmniHumanTransformer, _: int, folder: Path) -> Mapping[str, float]:
        generator = Generator(model, Encoders.load(encoded / "encoders.json"), params.sampling)
        return probe(generator, encoded, modalities, params.seed, folder)

    return run


class ProbeFiles:
    """Takes metrics on to a run, and with those of a probe its files, each folder once.

    A server that is away must not stop training: what could not be sent is sent with the next, or at the end.
    """

    def __init__(self, run: StepRun) -> None:
        self._run = run

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one step."""
        self._run.report(step, metrics)
        if any(name.startswith(PREFIX) for name in metrics):
            try:
                with impatient():
                    self.send()
            except Exception as error:
                log.warning("the files of the probe after step %d wait: %s", step, error)

    def send(self) -> None:
        """Sends what has not been sent, also from before a kill."""
        for folder in sorted(probe_folder(self._run.work, 0).parent.glob("step-*")):
            if not (folder / _SENT).exists():
                self._run.log_folder(folder, f"{folder.parent.name}/{folder.name}")
                (folder / _SENT).touch()
