"""Checkpoints under kills, signals, damage and a full disk; losses that are no numbers or jump."""

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from tests.rank_project import STAGE, Ranks, losses, work, write_project
from tests.small_project import wait_until
from tests.tiny import CONFIG, write_encoded

from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Stage as StageConfig
from omnihuman.config.schema.stage import Training
from omnihuman.data.manifest import SAMPLES, read_table, write_table
from omnihuman.errors import UserError
from omnihuman.training.checkpoints import Checkpoints, damage
from omnihuman.training.ranks import Ranks as RanksHere
from omnihuman.training.run import StageRun, train_stage

pytestmark = pytest.mark.slow


def published(folder: Path, name: str) -> bytes:
    return (folder / name / "models" / STAGE / "model.safetensors").read_bytes()


def steps(folder: Path, name: str) -> list[str]:
    return sorted(path.name for path in (work(folder, name) / "checkpoints").iterdir())


def under_way(folder: Path, name: str) -> bool:
    """Whether a checkpoint is being written, or was when its writer died."""
    return any((work(folder, name) / "checkpoints").glob(".*.partial"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project, and in `whole` what an uninterrupted process makes of it; a checkpoint at every step."""
    folder = write_project(
        tmp_path_factory.mktemp("checkpoints"),
        training__ema_decay=0.9,
        training__checkpoint_every_steps=1,
        training__keep_every_steps=4,
        stage__steps=12,
    )
    Ranks(folder, 0, "whole").end_with(0)
    return folder


def test_the_policy_keeps_the_newest_and_every_so_many(folder: Path) -> None:
    assert steps(folder, "whole") == [f"step-{step:08d}" for step in (4, 8, 11, 12)]


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_killed_at_random_moments_ends_with_the_same_weights(folder: Path, kills: int) -> None:
    moments, name = random.Random(kills), f"killed-{kills}"
    while_writing = 0
    for kill in range(kills):
        before = len(losses(folder, name))
        ranks = Ranks(folder, 0, name)
        wait_until(lambda before=before, ranks=ranks: len(losses(folder, name)) > before or not ranks.alive(), 60)
        time.sleep(moments.uniform(0, 0.1))
        while kill % 2 == 0 and ranks.alive() and not under_way(folder, name):
            time.sleep(0.001)
        ranks.send(signal.SIGKILL)
        ranks.codes()
        while_writing += under_way(folder, name)
    assert while_writing, "no kill came while a checkpoint was written"
    Ranks(folder, 0, name).end_with(0)
    assert losses(folder, name) == losses(folder, "whole")
    assert published(folder, name) == published(folder, "whole")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(folder: Path) -> None:
    ranks = Ranks(folder, 0, "damaged")
    assert wait_until(lambda: len(losses(folder, "damaged")) >= 5, 60)
    ranks.send(signal.SIGTERM)
    assert "told to stop, saved step" in ranks.end_with(143)
    newest = max((work(folder, "damaged") / "checkpoints").iterdir())
    content = bytearray((newest / "state").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "state").write_bytes(content)
    said = Ranks(folder, 0, "damaged").end_with(0)
    assert f"{newest}/state does not fit its checksum" in said
    assert f"goes on after step {int(newest.name[5:]) - 1}" in said
    assert published(folder, "damaged") == published(folder, "whole")


@pytest.mark.parametrize("times", [1, 3])
def test_a_last_checkpoint_that_is_damaged_is_trained_again_and_never_passed_over(
    times: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoded, models, kept = tmp_path / "encoded", tmp_path / "models", tmp_path / "work"
    write_encoded(encoded, [(True, True), (False, False)])
    training = Training(global_batch_size=2, checkpoint_every_steps=2, warmup_steps=2)
    run = StageRun(STAGE, StageConfig(steps=4), training, CONFIG, Diffusion(), seed=3)
    train_stage(run, encoded, tmp_path / "whole", tmp_path / "work of the whole")
    damaged = 0

    def spoil_last(step: int, metrics: dict[str, float]) -> None:
        """Called when the step's checkpoint is written."""
        nonlocal damaged
        if step == 4 and "loss" in metrics and damaged < times:
            damaged += 1
            state = kept / "checkpoints/step-00000004/state"
            state.write_bytes(state.read_bytes()[:-1])

    if times == 1:
        train_stage(run, encoded, models, kept, spoil_last)
        assert "training 2 step(s) again, since their checkpoint is damaged" in caplog.text
        published = (models / STAGE / "model.safetensors").read_bytes()
        assert published == (tmp_path / "whole" / STAGE / "model.safetensors").read_bytes()
    else:
        with pytest.raises(UserError, match="step 4 was damaged after it was written, 3 times running"):
            train_stage(run, encoded, models, kept, spoil_last)
        assert not models.exists()
    assert damaged == times


def test_a_file_that_nobody_listed_and_a_full_disk_in_any_writers_words(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, RanksHere(), keep=2, keep_every_steps=0)
    with checkpoints.new(1, "single") as partial:
        (partial / "state").write_text("weights")
    folder = checkpoints.folder / "step-00000001"
    assert not damage(folder)
    (folder / "ema-00007.safetensors").write_text("of another run")
    assert damage(folder).endswith("ema-00007.safetensors is not in its manifest.json")
    words = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(UserError, match="make room"), checkpoints.new(2, "single"):
        raise SafetensorError(words)
    assert not list(checkpoints.folder.glob(".*")), "half a checkpoint was left"


def test_a_full_disk_keeps_the_last_good_checkpoint(folder: Path) -> None:
    ranks = Ranks(folder, 0, "full")
    assert wait_until(lambda: len(losses(folder, "full")) >= 2, 60)
    ranks.send(signal.SIGTERM)
    ranks.end_with(143)
    before = steps(folder, "full")
    said = Ranks(folder, 0, "full", max_file_bytes=20_000).end_with(2)
    assert "could not be written" in said and "make room" in said
    assert steps(folder, "full") == before
    Ranks(folder, 0, "full").end_with(0)
    assert published(folder, "full") == published(folder, "whole")


def test_work_of_another_run_is_refused(folder: Path) -> None:
    original = (folder / "params.yaml").read_text()
    try:
        write_project(folder, model__width=64, model__rope_axes=[8, 12, 12], training__ema_decay=0.9, stage__steps=12)
        said = Ranks(folder, 0, "whole").end_with(2)
        assert "model.width is 64, but was 32 when" in said and "set it back" in said
    finally:
        (folder / "params.yaml").write_text(original)
    table = folder / "encoded" / "samples.parquet"
    content = table.read_bytes()
    try:
        write_table(read_table(table).drop(index=3).to_dict("records"), SAMPLES, table)
        assert "data is '" in Ranks(folder, 0, "whole").end_with(2)
    finally:
        table.write_bytes(content)


def test_what_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    common = {"compute__strategy": "zero2", "compute__processes_per_node": 2}
    write_project(tmp_path, **common, training__global_batch_size=1)
    said = Ranks(tmp_path, 2, "batch").end_with(2)
    assert said.count("training.global_batch_size is 1") == 1 and "start at most 1 ranks" in said
    write_project(tmp_path, compute__strategy="single")
    assert "compute.strategy is single, but 2 processes" in Ranks(tmp_path, 2, "single").end_with(2)
    write_project(tmp_path, **common, training__optimizer="muon")
    assert "set training.optimizer=adamw" in Ranks(tmp_path, 2, "muon").end_with(2)


def test_more_ranks_than_clips_is_refused_before_anything_begins(tmp_path: Path) -> None:
    write_encoded(tmp_path / "encoded", [(True, True)])
    write_project(tmp_path, compute__strategy="zero2", compute__processes_per_node=2)
    said = Ranks(tmp_path, 2, "ranks").end_with(2)
    assert said.count("2 ranks for 1 training clip(s): start at most 1 ranks, or encode more") == 1
    assert not work(tmp_path, "ranks").exists()


def spoil(folder: Path, factor: float) -> None:
    """Multiplies the latents of clip-2, and drops nothing else."""
    path = folder / "encoded" / "shard-00000.safetensors"
    tensors = load_file(path)
    names = [name for name in tensors if name.startswith("clip-2") and name.endswith("latents")]
    assert len(names) == 1
    tensors[names[0]] = (tensors[names[0]].astype(np.float32) * factor).astype(np.float16)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(("factor", "said"), [(float("nan"), "the loss is nan"), (60.0, "times the usual")])
def test_a_bad_clip_is_named_and_its_steps_left_out(tmp_path: Path, factor: float, said: str) -> None:
    changes = {
        "model__prediction": "velocity", "training__loss_spike_factor": 5.0, "training__global_batch_size": 1,
        "stage__steps": 24,
    }  # fmt: skip
    write_project(tmp_path, **changes)
    spoil(tmp_path, factor)
    stopped = Ranks(tmp_path, 0, "stopped").end_with(2)
    assert said in stopped and "samples are of the clips clip-2:" in stopped and "on_loss_spike=skip" in stopped
    assert not (tmp_path / "stopped" / "models" / STAGE).exists()

    write_project(tmp_path, **changes, training__on_loss_spike="skip")
    skipping = Ranks(tmp_path, 0, "skipping").end_with(0)
    assert "going back to the last good checkpoint" in skipping
    skipped = json.loads((work(tmp_path, "skipping") / "skipped_steps.json").read_text())
    assert skipped and len(losses(tmp_path, "skipping")) == 24
    judged = losses(tmp_path, "skipping")[10:]  # before, nobody knows what is usual
    assert max(judged) < 5 * np.median(judged)


@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_ranks_leave_a_step_out_together(strategy: str, tmp_path: Path) -> None:
    write_encoded(tmp_path / "encoded", [(True, True)] * 8)
    write_project(
        tmp_path, model__prediction="velocity", training__global_batch_size=2, training__on_loss_spike="skip",
        stage__steps=6, compute__strategy=strategy, compute__processes_per_node=2,
    )  # fmt: skip
    spoil(tmp_path, float("nan"))
    said = Ranks(tmp_path, 2, "ranks").end_with(0)
    skipped = json.loads((work(tmp_path, "ranks") / "skipped_steps.json").read_text())
    assert said.count("going back to the last good checkpoint") == len(skipped) > 0
    assert len(losses(tmp_path, "ranks")) == 6 and np.isfinite(losses(tmp_path, "ranks")).all()
    assert STAGE in (tmp_path / "ranks" / "models").joinpath(STAGE, "model.json").read_text()
