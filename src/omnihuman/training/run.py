"""The step `train STAGE`: resumable training of one stage, from encoded clips to published weights."""

import copy
import csv
import json
import logging
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from omnihuman.config.schema.compute import Compute
from omnihuman.data.shards import Encoders, ShardReader, place_of_shards
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import WEIGHTS, ModelDescription, load_model, save_model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.model.prediction import Departure
from omnihuman.storage.files import file_sha256, publish, publish_folder
from omnihuman.storage.work import code_key, content_key, held_work_folder
from omnihuman.training.checkpoints import Checkpoint
from omnihuman.training.dataset import training_samples
from omnihuman.training.fit import StageRun, fit
from omnihuman.training.freezing import freeze
from omnihuman.training.identity import check_same_run, of_the_weights
from omnihuman.training.packing import Division, TokenCounts
from omnihuman.training.place import Place
from omnihuman.training.probes import Probe
from omnihuman.training.progress import Report
from omnihuman.training.ranks import Ranks
from omnihuman.training.saving import LOSSES
from omnihuman.training.strategy import check_ranks
from omnihuman.training.watch import LossSpike
from omnihuman.training.zero import consolidate

log = logging.getLogger(__name__)

_CODE = (
    "training", "model", "conditions", "diffusion", "encoders", "data/shards.py", "data/speech_features.py",
    "batch.py", "keyed_random.py", "packed.py",
)  # fmt: skip
_CODE_THAT_LOOKS_ON = (
    "training/launch", "training/averaged.py", "training/evaluating.py", "training/insight.py", "training/measured.py",
    "training/plan.py", "training/probes.py", "training/profile.py", "training/progress.py", "training/throughput.py",
    "training/validation.py",
)  # fmt: skip
"""Changed, it leaves the weights as they are, so that unfinished work and running jobs go on."""


def train_stage(
    run: StageRun,
    encoded: Path,
    models: Path,
    work: Path | None = None,
    report: Report | None = None,
    compute: Compute | None = None,
    ranks: Ranks | None = None,
    probe: Probe | None = None,
) -> None:
    """Trains `run.name` from `encoded` and its parent under `models`, and publishes the folder `models`/name.

    A killed call goes on from its last checkpoint. A stage that introduces modalities for which no clip is eligible
    passes its parent's weights on and says so in its description.

    Args:
        work: where the checkpoints lie, for a caller who holds it and removes it when the result is safe; by default
            the work folder of `stage_key`.
        report: takes loss and learning rate of every step, after a resume also those from before; throughput, losses
            of the fixed triples and figures of probes where they were measured.
        compute, ranks: by default one process; all ranks call this with one and the same `work`.
        probe: looks at the model every `training.probe_every_steps` steps.

    Raises:
        UserError: there is no training clip at all, the parent is missing or of another shape, there are too many
            ranks, the work is that of another run, the loss is no number, or the disk is full.
        Preempted: a SIGTERM came, and everything is saved.
    """
    if work is None:
        with held_work_folder(stage_key(run, encoded, models)) as folder:
            train_stage(run, encoded, models, folder, report, compute, ranks, probe)
            shutil.rmtree(folder)
        return
    place = Place(encoded, work, compute or Compute(), ranks or Ranks(), report, probe)
    check_start(run, encoded, place.compute, place.ranks)
    check_same_run(run, _start_weights(run, models), place)
    samples = training_samples(encoded)
    encoders = Encoders.load(encoded / "encoders.json")
    clips = {str(shard): part["clip_id"].tolist() for shard, part in samples.groupby("shard")}
    ShardReader(place_of_shards(encoded)).check(clips, encoders)
    model, known = _initial_model(run, samples, encoded, encoders, models)
    counts = freeze(model, run.stage.frozen, run.name)
    log.info("%s: %s", run.name, counts)
    note = _why_pass_on(run, samples)
    description = ModelDescription(
        stage=run.name,
        parent=run.stage.parent or run.stage.base,
        note=note,
        num_steps=0,
        modalities=known if note else (*known, *run.stage.introduces),
        num_clips=_num_clips(samples),
        model=run.model,
        encoders=encoders,
        parameters=asdict(counts),
    )
    if note:
        log.warning("%s: %s", run.name, note)
        if place.ranks.first:
            with publish_folder(models / run.name) as folder:
                save_model(folder, model, description)
                _save_losses(folder / "loss.csv", [])
    else:
        finished = _fit_past_spikes(run, model, samples, description, place)
        if place.ranks.first:
            _publish(finished, models / run.name)
    place.ranks.wait()


def _fit_past_spikes(
    run: StageRun, model: OmniHumanTransformer, samples: pd.DataFrame, description: ModelDescription, place: Place
) -> Checkpoint:
    """`fit`, and again from the last good checkpoint, or from the first weights, after each step that is left out."""
    first_weights = copy.deepcopy(model) if run.training.on_loss_spike == "skip" else None
    while True:
        try:
            return fit(run, model, samples, description, place)
        except LossSpike as spike:
            assert first_weights is not None
            log.warning("%s: %s; going back to the last good checkpoint and leaving the step out", run.name, spike)
            model = copy.deepcopy(first_weights)


def _publish(checkpoint: Checkpoint, target: Path) -> None:
    with publish_folder(target) as folder:
        consolidate(checkpoint.folder, folder)
        _save_losses(folder / "loss.csv", json.loads((checkpoint.folder / LOSSES).read_text()))


def check_start(run: StageRun, encoded: Path, compute: Compute, ranks: Ranks) -> None:
    """What a rank can know before it meets the others or touches a GPU.

    Raises:
        UserError: there is no training clip, there are too many ranks, or a step might not fit its packs.
    """
    samples = training_samples(encoded)
    check_ranks(compute, run.training, ranks, len(samples))
    many_sizes = run.stage.batching.sizes == "native" or run.stage.data.pictures_share > 0
    if compute.strategy == "zero3" and ranks.size > 1 and many_sizes:
        raise UserError(
            f"compute.strategy is zero3, and stages.{run.name} has samples of many sizes in a step (batching.sizes"
            " native or data.pictures_share): ranks would gather the weights different numbers of times; set zero2, or"
            " one_size and no pictures"
        )
    tokens = TokenCounts(samples, Encoders.load(encoded / "encoders.json"), run.model.patch_size)
    division = Division(compute.max_tokens_per_pack, ranks.size, tokens)
    division.check(run.training.global_batch_size, compute.accumulate)


def stage_key(run: StageRun, encoded: Path, models: Path) -> str:
    """Hash of everything that decides the weights: equal keys resume from one another, and nothing else does."""
    parent = _start_weights(run, models)
    return content_key(
        run=of_the_weights(run),
        code=code_key(*_CODE, without=_CODE_THAT_LOOKS_ON),
        shards=[file_sha256(path) for path in sorted(encoded.glob("*"))],
        parent=file_sha256(parent) if parent and parent.is_file() else "",
    )


def _start(run: StageRun, models: Path) -> Path | None:
    """The folder of the model that a stage starts from; None: it starts from random weights."""
    if run.stage.parent:
        return models / run.stage.parent
    return Path(run.stage.base).expanduser() if run.stage.base else None


def _start_weights(run: StageRun, models: Path) -> Path | None:
    start = _start(run, models)
    return start / WEIGHTS if start else None


def training_clips(encoded: Path) -> dict[str, int]:
    """Number of training clips eligible for each modality.

    Raises:
        UserError: there is none at all.
    """
    return _num_clips(training_samples(encoded))


def _initial_model(
    run: StageRun, samples: pd.DataFrame, encoded: Path, encoders: Encoders, models: Path
) -> tuple[OmniHumanTransformer, tuple[str, ...]]:
    """The weights to start from, and the modalities that they know."""
    start = _start(run, models)
    if start is None:
        torch.manual_seed(run.seed)
        model = OmniHumanTransformer(run.model, encoders.widths)
        if isinstance(model.prediction, Departure):
            model.prediction.latent_std.copy_(latent_std(samples, encoded))
        return model, ("text", "reference")
    if run.stage.parent and not (start / WEIGHTS).is_file():
        raise UserError(
            f"stages.{run.name}.parent is {run.stage.parent}: {start / WEIGHTS} is missing, run"
            f" `dvc repro train@{run.stage.parent}` first"
        )
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


def _num_clips(samples: pd.DataFrame) -> dict[str, int]:
    return {m: int(samples[f"{m}_eligible"].sum()) for m in ("audio", "pose")} | {"text": len(samples)}


def latent_std(samples: pd.DataFrame, encoded: Path) -> torch.Tensor:
    """Root mean square [C] of the latents, from at most 64 clips spread over the samples."""
    chosen = samples.iloc[:: max(1, len(samples) // 64)].head(64)
    shards = ShardReader(place_of_shards(encoded))
    squares = [
        np.square(shards.clip(row["shard"], row["clip_id"]).latents.astype(np.float64)).mean(axis=(0, 2, 3, 4))
        for row in chosen.to_dict("records")
    ]
    return torch.from_numpy(np.sqrt(np.mean(squares, axis=0))).float().clamp(min=1e-3)


def _why_pass_on(run: StageRun, samples: pd.DataFrame) -> str:
    """One sentence when the stage has no newly eligible data, else empty."""
    if not run.stage.introduces or any(samples[f"{modality}_eligible"].any() for modality in run.stage.introduces):
        return ""
    missing = " or ".join(run.stage.introduces)
    return f"no training clip is eligible for {missing}: the weights of {run.stage.parent} pass on"


def _save_losses(path: Path, losses: list[float]) -> None:
    with publish(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss"])
        writer.writerows((step, f"{loss:.5f}") for step, loss in enumerate(losses, start=1))
