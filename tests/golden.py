"""The losses that a change of form must leave as they are: `make golden` writes them anew after a change of meaning.

The demo's model and recipe, three steps of each stage from its parent's weights, on fixed clips of noise, in float32 on
one thread.
"""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tests.tiny import write_encoded

from omnihuman.config.compose import compose
from omnihuman.training.fit import StageRun
from omnihuman.training.run import train_stage

FILE = Path(__file__).with_name("golden_losses.json")
_CONF = Path(__file__).parents[1] / "conf"
_STEPS = 3
_ELIGIBLE = [(True, True), (True, False), (False, True), (False, False), (True, True), (True, True)]
_HELD_OUT = 2


def golden_losses(folder: Path) -> dict[str, dict[str, list[float]]]:
    """Training and validation losses of every stage, by stage and name; `folder` is empty and `$OMNIHUMAN_HOME` too."""
    encoded = folder / "encoded"
    write_encoded(encoded, _ELIGIBLE)
    table = pd.read_parquet(encoded / "samples.parquet")
    table.loc[len(table) - _HELD_OUT :, "split"] = "test"
    table.to_parquet(encoded / "samples.parquet")
    params = compose("demo", [], conf=_CONF)
    training = replace(
        params.training, warmup_steps=1, validate_every_steps=_STEPS, validation_clips=_HELD_OUT, probe_every_steps=0
    )
    losses: dict[str, dict[str, list[float]]] = {}
    for name, stage in params.stages.items():
        of_stage: dict[str, list[float]] = {}

        def report(_: int, metrics: dict[str, float], of_stage: dict[str, list[float]] = of_stage) -> None:
            for metric, value in metrics.items():
                if metric == "loss" or (metric.startswith("validation") and metric.endswith("/mean")):
                    of_stage.setdefault(metric, []).append(float(np.float32(value)))

        run = StageRun(name, replace(stage, steps=_STEPS), training, params.model, params.diffusion, params.seed)
        train_stage(run, encoded, folder / "models", folder / "work" / name, report)
        losses[name] = of_stage
    return losses


def _write() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OMNIHUMAN_HOME"] = folder
        losses = golden_losses(Path(folder))
    FILE.write_text(json.dumps(losses, indent=2) + "\n")


if __name__ == "__main__":
    _write()
