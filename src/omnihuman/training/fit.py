"""Training of one stage on this rank: from the newest good checkpoint to its last step."""

import json
import logging
import warnings
from dataclasses import dataclass

import lightning.pytorch as pl
import pandas as pd

from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.model import Model
from omnihuman.config.schema.stage import Stage, Training
from omnihuman.data.shard_reading import place_of_shards
from omnihuman.data.shards import Encoders, load_empty_text
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import ModelDescription
from omnihuman.model.memory import checkpoint_activations, compile_blocks
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.checkpoints import Checkpoint, Checkpoints
from omnihuman.training.cost import cost_of_draws
from omnihuman.training.dataset import SampleSettings, StagePacks
from omnihuman.training.ema import WeightAverage
from omnihuman.training.insight import insight
from omnihuman.training.loading import LoadedPacks
from omnihuman.training.module import StageModule
from omnihuman.training.packing import Division, TokenCounts
from omnihuman.training.place import Place
from omnihuman.training.profile import StepTrace
from omnihuman.training.progress import CurveReport, ProgressLines
from omnihuman.training.sampling import SampleOrder
from omnihuman.training.saving import LOSSES, SaveCheckpoints
from omnihuman.training.shares import log_draws
from omnihuman.training.skipping import Order, TakenSteps
from omnihuman.training.strategy import trainer_arguments, trains_on_gpu
from omnihuman.training.throughput import Throughput, TimedPacks
from omnihuman.training.watch import LossWatch, SkippedSteps
from omnihuman.training.zero import reshard

log = logging.getLogger(__name__)
# Its announcements of absent devices and of other products would bury our own lines.
for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", "The `srun` command is available")  # ranks are launched by torchrun, also by SLURM
warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\)")  # Lightning's own use of torch


@dataclass(frozen=True)
class StageRun:
    """Everything that decides the weights of one stage."""

    name: str
    stage: Stage
    training: Training
    model: Model
    diffusion: Diffusion
    seed: int


def fit(
    run: StageRun,
    model: OmniHumanTransformer,
    samples: pd.DataFrame,
    description: ModelDescription,
    place: Place,
) -> Checkpoint | None:
    """Trains in place, from the newest good checkpoint where there is one, and returns the newest good one.

    It is that of the last step, unless this has been damaged since it was written.

    Args:
        description: lies in every checkpoint with its number of steps, so that each can become a model.

    Raises:
        UserError: the loss is no number, the disk is full, or a loader worker was killed; the message says what to do.
        LossSpike: the step is left out from the next call on, which needs the first weights again.
        Preempted: a SIGTERM came.
    """
    training, ranks = run.training, place.ranks
    checkpoints = Checkpoints(place.work, ranks, training.keep_checkpoints, training.keep_every_steps)
    newest = _fitting(checkpoints, place)
    if newest is not None and newest.manifest.step >= run.stage.steps:
        return newest
    skipped = SkippedSteps(place.work, ranks)
    order = SampleOrder(samples, run.stage, training.global_batch_size, run.seed, run.name)
    steps = TakenSteps(order, skipped.positions)
    settings = _sample_settings(run, description.encoders)
    if ranks.first:
        log_draws(order, samples, settings)
    packs = _packs(run, samples, steps, settings, description.encoders, place)
    packs.first_step = newest.manifest.step if newest else 0
    trained = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    checkpoint_activations(model, training.activation_checkpointing)
    if training.compile:
        compile_blocks(model)
    watch = LossWatch(training, ranks, steps, packs, samples, skipped)
    module = StageModule(
        model,
        training,
        run.diffusion,
        run.stage.learning_rate,
        run.stage.steps,
        watch,
        ranks,
        place.compute.accumulate,
    )
    if newest:
        module.losses = json.loads((newest.folder / LOSSES).read_text())
    with LoadedPacks(packs, place.compute.loader_workers, pin=trains_on_gpu(place.compute)) as loaded:
        timed = TimedPacks(loaded, run.model, description.encoders.widths, trained.__contains__)
        trainer = pl.Trainer(
            max_steps=run.stage.steps,
            max_epochs=-1,
            logger=False,
            callbacks=_callbacks(run, module, place, checkpoints, newest, description, timed),
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=place.work,
            **trainer_arguments(place.compute, training, ranks, from_universal=newest is not None and newest.universal),
        )
        trainer.fit(module, timed, ckpt_path=newest.state if newest else None, weights_only=True)
    return checkpoints.newest()


def _packs(
    run: StageRun, samples: pd.DataFrame, steps: Order, settings: SampleSettings, encoders: Encoders, place: Place
) -> StagePacks:
    """What this rank computes of every step."""
    compute, ranks = place.compute, place.ranks
    tokens = TokenCounts(samples, encoders, run.model.patch_size)
    cost = cost_of_draws(samples, encoders, run.model, settings, tokens)
    return StagePacks(
        samples,
        place_of_shards(place.encoded),
        steps,
        settings,
        load_empty_text(place.encoded),
        Division(compute.max_tokens_per_pack, ranks.size, tokens, cost),
        ranks.rank,
        encoders=encoders,
        packs_per_step=compute.accumulate,
    )


def _fitting(checkpoints: Checkpoints, place: Place) -> Checkpoint | None:
    """The newest good checkpoint, made over where another number of ranks wrote it."""
    newest, ranks = checkpoints.newest(), place.ranks
    if newest is None:
        return None
    if newest.manifest.strategy != place.compute.strategy:
        raise UserError(
            f"compute.strategy is {place.compute.strategy}, but {newest.folder} was written with"
            f" {newest.manifest.strategy}: set it back, or remove {checkpoints.folder} to begin the stage again"
        )
    if newest.manifest.num_ranks in (0, ranks.size):
        return newest
    if ranks.first:
        log.warning("%s is of %d rank(s), here are %d", newest.folder, newest.manifest.num_ranks, ranks.size)
        reshard(newest.folder)
    ranks.wait()
    return _fitting(checkpoints, place)  # what was made may be damaged, and the one before it of other ranks again


def _sample_settings(run: StageRun, encoders: Encoders) -> SampleSettings:
    return SampleSettings(
        run.name,
        run.stage,
        run.seed,
        run.training.motion_frames_share,
        run.training.reference_pose_share,
        encoders.max_text_tokens,
        run.diffusion,
        run.training.midstream_share,
    )


def _callbacks(
    run: StageRun,
    module: StageModule,
    place: Place,
    checkpoints: Checkpoints,
    resumed: Checkpoint | None,
    description: ModelDescription,
    packs: TimedPacks,
) -> list[pl.Callback]:
    """In the order in which they see the end of a step.

    Its time ends first; the average changes before it is looked at and saved; what is saved has been looked at.
    """
    decay, folder = run.training.ema_decay, resumed.folder if resumed else None
    average = WeightAverage(module.model, decay, place.ranks, folder) if decay else None
    first = place.ranks.first
    steps, report = run.stage.steps, place.report if first else None
    traced = place.compute.profile_steps if first else 0
    return [
        *([StepTrace(place.work, traced)] if traced else []),
        Throughput(packs, run.training, steps, place.ranks, place.work, report),
        *([average] if average else []),
        *insight(run.stage, run.training, run.diffusion, place, average),
        SaveCheckpoints(module, run.training, place.compute, place.ranks, checkpoints, average, description),
        *([ProgressLines(run.name, steps, run.training.log_every_steps)] if first else []),
        *([CurveReport(module, report)] if report else []),
    ]
