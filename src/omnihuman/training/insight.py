"""What looks at the weights of a stage and changes nothing, as callbacks."""

from pathlib import Path

import lightning.pytorch as pl

from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Stage, Training
from omnihuman.data.shards import Encoders
from omnihuman.training.probes import Probe, Probes
from omnihuman.training.progress import Report
from omnihuman.training.validation import RAW, Validation, Weights, condition_subsets, validation_set


def insight(
    stage: Stage,
    training: Training,
    diffusion: Diffusion,
    encoded: Path,
    work: Path,
    report: Report | None,
    probe: Probe | None = None,
    weights: Weights = RAW,
) -> list[pl.Callback]:
    """Validation and probes, on every rank alike; they come after whatever changes weights at the end of a step."""
    watching: list[pl.Callback] = []
    if training.validate_every_steps:
        clips = validation_set(encoded, training.validation_clips, stage.activate)
        subsets = condition_subsets(stage.activate)
        max_text_tokens = Encoders.load(encoded / "encoders.json").max_text_tokens
        watching.append(Validation(training, stage.steps, clips, subsets, max_text_tokens, diffusion, report, weights))
    if training.probe_every_steps and probe:
        watching.append(Probes(probe, training.probe_every_steps, stage.steps, work, report))
    return watching
