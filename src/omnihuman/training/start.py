"""The weights that a stage starts from: its parent's, those of an imported base, or random ones."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from omnihuman.data.manifest import one_row_a_clip
from omnihuman.data.shard_reading import ShardReader, place_of_shards
from omnihuman.data.shards import Encoders
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import WEIGHTS, load_model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.model.prediction import Departure
from omnihuman.training.fit import StageRun


def start_weights(run: StageRun, models: Path) -> Path | None:
    """The file of the weights that a stage starts from; None: it starts from random ones.

    Raises:
        UserError: it is missing.
    """
    start = _start(run, models)
    if start is None or (start / WEIGHTS).is_file():
        return start and start / WEIGHTS
    if run.stage.parent:
        raise UserError(
            f"stages.{run.name}.parent is {run.stage.parent}: {start / WEIGHTS} is missing, run"
            f" `dvc repro train@{run.stage.parent}` first"
        )
    raise UserError(
        f"stages.{run.name}.base is {run.stage.base}: {start / WEIGHTS} is missing, make it with `omnihuman checkpoint"
        " import`, or name the folder of an imported base"
    )


def initial_model(
    run: StageRun, samples: pd.DataFrame, encoded: Path, encoders: Encoders, models: Path
) -> tuple[OmniHumanTransformer, tuple[str, ...]]:
    """The model to start from, in float32, and the modalities that it knows; each call makes the same weights.

    Raises:
        UserError: the weights are missing, damaged or of another model or other encoders.
    """
    start = _start(run, models)
    if start is None:
        torch.manual_seed(run.seed)
        model = OmniHumanTransformer(run.model, encoders.widths)
        if isinstance(model.prediction, Departure):
            model.prediction.latent_std.copy_(latent_std(samples, encoded))
        return model, ("text", "reference")
    start_weights(run, models)
    model, parent = load_model(start)
    if run.stage.parent and (parent.model != run.model or parent.encoders != encoders):
        raise UserError(
            f"{start} was trained with another model or other encoders than stage {run.name} is configured for: run"
            " `dvc repro` to train the parent again"
        )
    if parent.model != run.model or not parent.encoders.same_networks(encoders):
        raise UserError(
            f"{start}, the base of stage {run.name}, was imported for another model or other encoders than are"
            " configured: import it again with the present model.* and encode.*"
        )
    return model.train(), tuple(dict.fromkeys((*parent.modalities, "text", "reference")))


def _start(run: StageRun, models: Path) -> Path | None:
    if run.stage.parent:
        return models / run.stage.parent
    return Path(run.stage.base).expanduser() if run.stage.base else None


def latent_std(samples: pd.DataFrame, encoded: Path) -> torch.Tensor:
    """Root mean square [C] of the latents, from at most 64 clips spread over the samples, at their largest."""
    clips = one_row_a_clip(samples)
    chosen = clips.iloc[:: max(1, len(clips) // 64)].head(64)
    shards = ShardReader(place_of_shards(encoded))
    squares = [
        np.square(shards.clip(row["shard"], row["clip_id"]).latents.astype(np.float64)).mean(axis=(0, 2, 3, 4))
        for row in chosen.to_dict("records")
    ]
    return torch.from_numpy(np.sqrt(np.mean(squares, axis=0))).float().clamp(min=1e-3)
