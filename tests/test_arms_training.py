"""Arms and seeds of the real graph, counted in MLflow: killed at random and started again, nothing is trained twice."""

import json
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.small_project import clone_project, environment, marked, wait_until

from omnihuman.pipeline.arms import LOG, RESULT, RESULTS, TrialResult
from omnihuman.pipeline.graph import Outcome
from omnihuman.registry.store import connect

TWO_ARMS = """
seeds: [1, 2]
reference: audio_50
arms:
  audio_10: [stages.2_audio.mix.audio_eligible=0.1, stages.3_pose.mix.audio_eligible=0.1]
  audio_50: [stages.2_audio.mix.audio_eligible=0.5, stages.3_pose.mix.audio_eligible=0.5]
"""
PREFIXES = {"1_text_image": 2, "2_audio": 4, "3_pose": 4, "evaluate": 4}
"""Distinct ones of two arms and two seeds that differ from stage 2 on."""
DATA = ("collect", "split", "score", "caption", "duplicates", "decide", "encode")

pytestmark = [pytest.mark.slow, pytest.mark.long]


def commit_everything(clone: Path) -> None:
    (clone / "conf/ablation/two.yaml").write_text(TWO_ARMS)
    for command in (["add", "--all"], ["commit", "--quiet", "--allow-empty", "--message", "all"]):
        subprocess.run(["git", *command], cwd=clone, check=True)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_arms_and_seeds_of_the_real_graph_train_nothing_twice_though_killed(
    tmp_path: Path, with_tiny_data: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, mark = clone_project(tmp_path / "omnihuman"), uuid.uuid4().hex
    with_tiny_data(clone)
    commit_everything(clone)
    env = environment(clone, mark)
    command = [sys.executable, "-m", "omnihuman.cli", "ablate", "run", "two", "--profile", "tiny", "--parallel", "2"]
    folder = clone / RESULTS / "two"

    def in_stage_2() -> bool:
        return any("2_audio: step 1 of 4" in text(log) for log in folder.glob(f"*/*/{LOG}"))

    moments = random.Random(3)
    for kill in range(3):
        with subprocess.Popen(command, cwd=clone, env=env) as killed:
            reached = wait_until(in_stage_2, 1200) if kill == 0 else time.sleep(moments.uniform(5, 40))
            killed.kill()
        assert reached is not False
    assert subprocess.run(command, cwd=clone, env=env, check=False).returncode == 0
    assert not marked(mark)
    monkeypatch.setenv("OMNIHUMAN_HOME", env["OMNIHUMAN_HOME"])

    results = [TrialResult.load(path) for path in sorted(folder.glob(f"*/*/{RESULT}"))]
    assert len(results) == 4 and all({"opening", "pose_distance"} <= result.figures.keys() for result in results)
    assert {step.outcome for r in results for step in r.steps if step.name in DATA} == {Outcome.RESTORED}
    assert all((folder / r.trial.arm.name / f"seed-{r.trial.seed}/losses/3_pose.csv").is_file() for r in results)
    assert not [path for path in Path(env["OMNIHUMAN_HOME"], "worktrees").glob("*") if path.is_dir()]

    client = connect()
    runs = client.search_runs([client.get_experiment_by_name("omnihuman").experiment_id])
    named = Counter(run.info.run_name for run in runs)
    assert {name: named[name] for name in PREFIXES} == PREFIXES, "killed ones were taken up again"
    for run in runs:
        if run.info.run_name in PREFIXES.keys() - {"evaluate"}:
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
            assert sorted(steps) == [1, 2, 3, 4], run.info.run_name
    by_id = {run.info.run_id: run for run in runs}
    for evaluated in [run for run in runs if run.info.run_name == "evaluate"]:
        arm = by_id[evaluated.data.tags["mlflow.parentRunId"]]
        assert arm.info.run_name == f"{arm.data.tags['arm']} seed {arm.data.params['seed']}"
        assert by_id[arm.data.tags["mlflow.parentRunId"]].info.run_name == "ablation two"
        share = {"audio_10": "0.1", "audio_50": "0.5"}[arm.data.tags["arm"]]
        assert arm.data.params["ratio/audio_mix"] == share and arm.data.params["ratio/pose_mix"] == "0.5"
        assert {
            "ratio/text",
            "ratio/reference",
            "ratio/audio",
            "ratio/pose",
            "ratio/text_only",
        } <= arm.data.params.keys()
    finished = [run for run in runs if run.info.run_name.startswith("audio_") and run.info.status == "FINISHED"]
    assert len(finished) == 4 and all("opening/generated/value" in run.data.metrics for run in finished)

    again = subprocess.run(command, cwd=clone, env=env, check=False, capture_output=True, text=True)
    assert again.returncode == 0 and again.stderr.count("done already at this commit") == 4
    report = json.loads((clone / RESULTS / "two.json").read_text())
    assert len(report["runs"]) == 4 and report["claims_changed"] is False
