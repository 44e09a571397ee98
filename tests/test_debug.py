"""Presets for finding faults: what they set, and that the trace of a stage is kept beside its run."""

import gzip
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tests.rank_project import STAGE, write_project
from tests.small_project import ROOT

from omnihuman.config.compose import compose
from omnihuman.errors import UserError
from omnihuman.pipeline.graph import nodes
from omnihuman.tracking.record import RunRecord
from omnihuman.training.profile import StepTrace

CONF = ROOT / "conf"


def test_a_preset_comes_after_the_profile_and_before_overrides() -> None:
    usual, limited = compose("demo", conf=CONF), compose("demo", ["groups.debug=limit"], CONF)
    assert {stage.steps for stage in limited.stages.values()} == {4} and limited.model == usual.model
    assert usual.stages["2_audio"].steps == 460
    own = compose("demo", ["stages.2_audio.steps=7", "groups.debug=limit"], CONF)
    assert own.stages["2_audio"].steps == 7 and own.overrides == ("stages.2_audio.steps=7", "groups.debug=limit")
    with pytest.raises(UserError, match=r"unknown debug 'overfti'.*did you mean overfit"):
        compose("demo", ["groups.debug=overfti"], CONF)


def test_overfitting_turns_every_condition_on_that_a_stage_knows() -> None:
    stages = compose("demo", ["groups.debug=overfit"], CONF).stages
    on = {
        name: {key for key, share in asdict(stage.activate).items() if share == 1.0} for name, stage in stages.items()
    }
    assert on == {
        "1_text_image": {"text", "reference"},
        "2_audio": {"text", "reference", "audio"},
        "3_pose": {"text", "reference", "audio", "pose"},
    }


def test_a_trace_changes_no_weight_and_so_no_step_of_the_graph() -> None:
    usual, traced = asdict(compose("demo", conf=CONF)), asdict(compose("demo", ["groups.debug=profile"], CONF))
    assert traced["compute"].pop("profile_steps") == 4 and usual["compute"].pop("profile_steps") == 0
    assert traced["compute"] == usual["compute"]
    assert not [name for name, node in nodes(ROOT).items() if "compute" in node.params]


@pytest.mark.slow
def test_the_trace_of_a_stage_is_kept_beside_its_run(tmp_path: Path) -> None:
    write_project(tmp_path, compute__profile_steps=2, compute__accelerator="cpu", compute__strategy="single")
    (tmp_path / "data").mkdir()
    (tmp_path / "encoded").rename(tmp_path / "data/encoded")
    home = tmp_path / "home"
    variables = {"OMNIHUMAN_HOME": str(home), "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "omnihuman.cli", "train", STAGE]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    client = MlflowClient(f"sqlite:///{home / 'mlflow/mlflow.db'}")
    run_id = RunRecord.load(tmp_path / f"runs/{STAGE}.json").run_id
    kept = Path(client.download_artifacts(run_id, "profile", str(tmp_path)))
    events = json.loads(gzip.decompress((kept / "trace.json.gz").read_bytes()))["traceEvents"]
    steps = [event for event in events if event.get("name", "").startswith("Optimizer.step")]
    assert len(steps) == 2, "two batches were traced"
    assert "aten::" in (kept / "operators.txt").read_text()


def test_a_stage_shorter_than_its_trace_leaves_what_there_is(tmp_path: Path) -> None:
    trace = StepTrace(tmp_path, num_steps=9)
    for _ in range(4):
        trace.on_train_batch_start(None, None, None, 0)  # pyright: ignore[reportArgumentType]
        trace.on_train_batch_end(None, None, None, None, 0)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "profile").exists()
    trace.on_train_end(None, None)  # pyright: ignore[reportArgumentType]
    assert sorted(path.name for path in (tmp_path / "profile").iterdir()) == ["operators.txt", "trace.json.gz"]
