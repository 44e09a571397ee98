"""The step `train STAGE`: resumable training of one stage, from encoded clips to published weights."""

import csv
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from omnihuman.config.schema.compute import Compute
from omnihuman.data.manifest import one_row_a_clip
from omnihuman.data.shard_reading import ShardReader, place_of_shards
from omnihuman.data.shards import Encoders
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import ModelDescription, save_model
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.storage.files import file_sha256, publish, publish_folder
from omnihuman.storage.work import code_key, content_key, held_work_folder
from omnihuman.training.checkpoints import Checkpoint
from omnihuman.training.dataset import stored_pictures, training_samples
from omnihuman.training.fit import StageRun, fit
from omnihuman.training.freezing import freeze
from omnihuman.training.identity import check_same_run, note_run, of_the_weights, run_identity
from omnihuman.training.packing import Division, TokenCounts
from omnihuman.training.place import Place
from omnihuman.training.probes import Probe
from omnihuman.training.progress import Report
from omnihuman.training.ranks import Ranks
from omnihuman.training.sampling import SampleOrder
from omnihuman.training.saving import LOSSES
from omnihuman.training.start import initial_model, start_weights
from omnihuman.training.strategy import check_ranks
from omnihuman.training.watch import LossSpike
from omnihuman.training.zero import consolidate

log = logging.getLogger(__name__)

_CODE = (
    "training", "model", "conditions", "diffusion", "encoders", "data/shards.py", "data/speech_features.py",
    "batch.py", "keyed_random.py", "packed.py",
)  # fmt: skip
_CODE_THAT_LOOKS_ON = (
    "training/launch", "training/averaged.py", "training/device.py", "training/divided.py", "training/evaluating.py",
    "training/insight.py", "training/measured.py", "training/plan.py", "training/probes.py", "training/profile.py",
    "training/progress.py", "training/throughput.py", "training/validation.py",
)  # fmt: skip
"""Changed, it leaves the weights as they are, so that unfinished work and running jobs go on."""
_TRIES = 3
"""To have a whole checkpoint of the last step."""


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
    check_start(run, encoded, models, place.compute, place.ranks)
    identity = run_identity(run, start_weights(run, models), encoded) if place.ranks.first else {}
    check_same_run(identity, place)
    samples = training_samples(encoded)
    encoders = Encoders.load(encoded / "encoders.json")
    ShardReader(place_of_shards(encoded)).check(stored_pictures(samples), encoders)
    model, known = initial_model(run, samples, encoded, encoders, models)
    counts = freeze(model, run.stage.frozen, run.name)
    note_run(identity, place)  # the parent fits, so from here on the folder is of this run
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
        midstream_share=run.training.midstream_share,
    )
    if note:
        log.warning("%s: %s", run.name, note)
        if place.ranks.first:
            with publish_folder(models / run.name) as folder:
                save_model(folder, model, description)
                _save_losses(folder / "loss.csv", [])
    else:
        models_to_begin_with = [model]
        del model  # so that the memory of an attempt that is given up is free

        def begin() -> OmniHumanTransformer:
            if models_to_begin_with:
                return models_to_begin_with.pop()
            again, _ = initial_model(run, samples, encoded, encoders, models)
            freeze(again, run.stage.frozen, run.name)
            return again

        finished = _fit_to_the_end(run, begin, samples, description, place)
        if place.ranks.first:
            _publish(finished, models / run.name)
    place.ranks.wait()


def _fit_to_the_end(
    run: StageRun,
    begin: Callable[[], OmniHumanTransformer],
    samples: pd.DataFrame,
    description: ModelDescription,
    place: Place,
) -> Checkpoint:
    """`fit`, and again from the last good checkpoint after a step that is left out, or where the last save is damaged.

    Args:
        begin: makes the model that the stage begins with.
    """
    damaged = 0
    while True:
        try:
            finished = fit(run, begin(), samples, description, place)
        except LossSpike as spike:
            log.warning("%s: %s; going back to the last good checkpoint and leaving the step out", run.name, spike)
            continue
        reached = finished.manifest.step if finished else 0
        if finished and reached >= run.stage.steps:
            return finished
        damaged += 1
        if damaged == _TRIES:
            raise UserError(
                f"{run.name}: the checkpoint of step {run.stage.steps} was damaged after it was written, {_TRIES} times"
                f" running: nothing is published. Check the disk under {place.work}, then start the stage again"
            )
        steps = run.stage.steps - reached
        log.warning("%s: training %d step(s) again, since their checkpoint is damaged", run.name, steps)


def _publish(checkpoint: Checkpoint, target: Path) -> None:
    with publish_folder(target) as folder:
        consolidate(checkpoint.folder, folder)
        _save_losses(folder / "loss.csv", json.loads((checkpoint.folder / LOSSES).read_text()))


def check_start(run: StageRun, encoded: Path, models: Path, compute: Compute, ranks: Ranks) -> None:
    """What a rank can know before it meets the others or touches a GPU.

    Raises:
        UserError: the weights to start from are missing, there is no training clip, or none so small as a phase asks
            for, there are too many ranks, or a step might not fit its packs.
    """
    start_weights(run, models)
    samples = training_samples(encoded)
    check_ranks(compute, run.training, ranks, len(one_row_a_clip(samples)))
    many_sizes = run.stage.batching.sizes == "native" or run.stage.data.pictures_share > 0
    if compute.strategy == "zero3" and ranks.size > 1 and many_sizes:
        raise UserError(
            f"compute.strategy is zero3, and stages.{run.name} has samples of many sizes in a step (batching.sizes"
            " native or data.pictures_share): ranks would gather the weights different numbers of times; set zero2, or"
            " one_size and no pictures"
        )
    order = SampleOrder(samples, run.stage, run.training.global_batch_size, run.seed, run.name)
    drawn = samples[order.expected_draws() > 0]  # where phases are low, the largest sizes are not
    tokens = TokenCounts(drawn, Encoders.load(encoded / "encoders.json"), run.model.patch_size)
    division = Division(compute.max_tokens_per_pack, ranks.size, tokens)
    division.check(run.training.global_batch_size, compute.accumulate)


def stage_key(run: StageRun, encoded: Path, models: Path) -> str:
    """Hash of everything that decides the weights: equal keys resume from one another, and nothing else does.

    Raises:
        UserError: the weights to start from are missing.
    """
    parent = start_weights(run, models)
    return content_key(
        run=of_the_weights(run),
        code=code_key(*_CODE, without=_CODE_THAT_LOOKS_ON),
        shards=[file_sha256(path) for path in sorted(encoded.glob("*"))],
        parent=file_sha256(parent) if parent else "",
    )


def training_clips(encoded: Path) -> dict[str, int]:
    """Number of training clips eligible for each modality.

    Raises:
        UserError: there is none at all.
    """
    return _num_clips(training_samples(encoded))


def _num_clips(samples: pd.DataFrame) -> dict[str, int]:
    clips = one_row_a_clip(samples)
    return {m: int(clips[f"{m}_eligible"].sum()) for m in ("audio", "pose")} | {"text": len(clips)}


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
