"""The step `train STAGE`: resumable training of one stage, from encoded clips to published weights."""

import csv
import logging
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.model import Model
from omnihuman.config.schema.stage import Stage, Training
from omnihuman.data.manifest import read_table
from omnihuman.data.shards import Encoders, ShardReader, load_empty_text, place_of_shards
from omnihuman.errors import UserError
from omnihuman.model.checkpoint import WEIGHTS, ModelDescription, load_model, save_model
from omnihuman.model.memory import checkpoint_activations, compile_blocks
from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.model.prediction import Departure
from omnihuman.storage.files import file_sha256, publish, publish_folder
from omnihuman.storage.work import code_key, content_key, held_work_folder
from omnihuman.training.dataset import SampleSettings, StagePacks
from omnihuman.training.freezing import freeze
from omnihuman.training.module import StageModule
from omnihuman.training.packing import Division, TokenCounts
from omnihuman.training.progress import CurveReport, ProgressLines, Report
from omnihuman.training.sampling import SampleOrder
from omnihuman.training.shares import log_draws

log = logging.getLogger(__name__)
# Its announcements of absent devices and of other products would bury our own lines.
for name in ("lightning.pytorch", "pytorch_lightning", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # it is where we resume from


_SHARED_CODE = ("batch.py", "keyed_random.py", "packed.py")


@dataclass(frozen=True)
class StageRun:
    """Everything that decides the weights of one stage."""

    name: str
    stage: Stage
    training: Training
    model: Model
    diffusion: Diffusion
    seed: int


def train_stage(
    run: StageRun, encoded: Path, models: Path, work: Path | None = None, report: Report | None = None
) -> None:
    """Trains `run.name` from `encoded` and its parent under `models`, and publishes the folder `models`/name.

    A killed call goes on from its last checkpoint. A stage that introduces modalities for which no clip is eligible
    passes its parent's weights on and says so in its description.

    Args:
        work: where the checkpoints lie, for a caller who holds it and removes it when the result is safe; by default
            the work folder of `stage_key`.
        report: takes loss and learning rate of every step, after a resume also those from before.

    Raises:
        UserError: there is no training clip at all, or the parent is missing or of another shape.
    """
    if work is None:
        with held_work_folder(stage_key(run, encoded, models)) as folder:
            train_stage(run, encoded, models, folder, report)
            shutil.rmtree(folder)
        return
    encoders = Encoders.load(encoded / "encoders.json")
    samples = _training_samples(encoded)
    clips = {str(shard): part["clip_id"].tolist() for shard, part in samples.groupby("shard")}
    ShardReader(place_of_shards(encoded)).check(clips, encoders)
    model, known = _initial_model(run, samples, encoded, encoders, models)
    counts = freeze(model, run.stage.frozen, run.name)
    log.info("%s: %s", run.name, counts)
    note = _why_pass_on(run, samples)
    losses: list[float] = []
    if note:
        log.warning("%s: %s", run.name, note)
    else:
        losses = _fit(run, model, samples, encoded, encoders, work, report)
    description = ModelDescription(
        stage=run.name,
        parent=run.stage.parent or "",
        note=note,
        num_steps=len(losses),
        modalities=known if note else (*known, *run.stage.introduces),
        num_clips=_num_clips(samples),
        model=run.model,
        encoders=encoders,
        parameters=asdict(counts),
    )
    with publish_folder(models / run.name) as folder:
        save_model(folder, model, description)
        _save_losses(folder / "loss.csv", losses)


def stage_key(run: StageRun, encoded: Path, models: Path) -> str:
    """Hash of everything that decides the weights: equal keys resume from one another, and nothing else does."""
    parent = models / run.stage.parent / "model.safetensors" if run.stage.parent else None
    return content_key(
        run=asdict(run),
        code=code_key("training", "model", "conditions", "diffusion", "encoders", "data/shards.py", *_SHARED_CODE),
        shards=[file_sha256(path) for path in sorted(encoded.glob("*"))],
        parent=file_sha256(parent) if parent and parent.is_file() else "",
    )


def training_clips(encoded: Path) -> dict[str, int]:
    """Number of training clips eligible for each modality.

    Raises:
        UserError: there is none at all.
    """
    return _num_clips(_training_samples(encoded))


def _training_samples(encoded: Path) -> pd.DataFrame:
    table = read_table(encoded / "samples.parquet")
    samples = table[(table["status"] == "ok") & (table["split"] == "train")].reset_index(drop=True)
    if samples.empty:
        raise UserError(f"{encoded}: no clip of the training split is left; see reports/funnel.html for why")
    return samples


def _initial_model(
    run: StageRun, samples: pd.DataFrame, encoded: Path, encoders: Encoders, models: Path
) -> tuple[OmniHumanTransformer, tuple[str, ...]]:
    """The weights to start from, and the modalities that they know."""
    if run.stage.parent is None:
        torch.manual_seed(run.seed)
        model = OmniHumanTransformer(run.model, encoders.widths)
        if isinstance(model.prediction, Departure):
            model.prediction.latent_std.copy_(latent_std(samples, encoded))
        return model, ("text", "reference")
    if not (weights := models / run.stage.parent / WEIGHTS).is_file():
        raise UserError(
            f"stages.{run.name}.parent is {run.stage.parent}: {weights} is missing, run"
            f" `dvc repro train@{run.stage.parent}` first"
        )
    model, parent = load_model(models / run.stage.parent)
    if parent.model != run.model or parent.encoders != encoders:
        raise UserError(
            f"{models / run.stage.parent} was trained with another model or other encoders than stage {run.name} is"
            " configured for: run `dvc repro` to train the parent again"
        )
    return model.train(), parent.modalities


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


def _fit(
    run: StageRun,
    model: OmniHumanTransformer,
    samples: pd.DataFrame,
    encoded: Path,
    encoders: Encoders,
    work: Path,
    report: Report | None,
) -> list[float]:
    """Trains in place, from the last checkpoint where there is one, and returns the loss of every step."""
    order = SampleOrder(samples, run.stage, run.training.global_batch_size, run.seed, run.name)
    settings = SampleSettings(
        run.name,
        run.stage,
        run.seed,
        run.training.motion_frames_share,
        run.training.reference_pose_share,
        encoders.max_text_tokens,
        run.diffusion,
    )
    log_draws(order, samples, settings)
    tokens = TokenCounts(samples, encoders, run.model.patch_size)
    division = Division(run.stage.batching.max_tokens_per_pack, tokens=tokens)
    division.check(len(samples), run.training.global_batch_size, run.name)
    empty_text = load_empty_text(encoded)
    shards = place_of_shards(encoded)
    batches = StagePacks(samples, shards, order, settings, empty_text, tokens=tokens, encoders=encoders)
    checkpoint_activations(model, run.training.activation_checkpointing)
    if run.training.compile:
        compile_blocks(model)
    module = StageModule(model, run.training, run.diffusion, run.stage.learning_rate, run.stage.steps)
    checkpoint = work / "last.ckpt"
    if checkpoint.exists():
        batches.first_step = int(torch.load(checkpoint, weights_only=True, mmap=True)["global_step"])
    trainer = pl.Trainer(
        max_steps=run.stage.steps,
        max_epochs=-1,
        accelerator="auto",
        devices=1,
        precision=run.training.precision,  # pyright: ignore[reportArgumentType]  # checked by Lightning
        gradient_clip_val=run.training.gradient_clip,
        logger=False,
        callbacks=_callbacks(run, module, work, report),
        enable_model_summary=False,
        enable_progress_bar=False,
        default_root_dir=work,
    )
    loader = DataLoader(batches, batch_size=None)
    trainer.fit(module, loader, ckpt_path=checkpoint if checkpoint.exists() else None, weights_only=True)
    return module.losses


def _callbacks(run: StageRun, module: StageModule, work: Path, report: Report | None) -> list[pl.Callback]:
    return [
        ModelCheckpoint(work, filename="last", every_n_train_steps=run.training.checkpoint_every_steps),
        ProgressLines(run.name, run.stage.steps, run.training.log_every_steps),
        *([CurveReport(module, report)] if report else []),
    ]


def _save_losses(path: Path, losses: list[float]) -> None:
    with publish(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", "loss"])
        writer.writerows((step, f"{loss:.5f}") for step, loss in enumerate(losses, start=1))
