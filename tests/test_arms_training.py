"""Arms of the real graph, counted in MLflow: killed in training and started again, nothing is trained twice."""

import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.small_project import ROOT, clone_project, environment, marked, wait_until

from omnihuman.pipeline.arms import RESULTS, ArmResult, load_arms
from omnihuman.pipeline.graph import Outcome
from omnihuman.registry.store import connect

ARMS = load_arms("audio_mix", "tiny", ROOT / "conf")

pytestmark = [pytest.mark.slow, pytest.mark.long]


def commit_everything(clone: Path) -> None:
    for command in (["add", "--all"], ["commit", "--quiet", "--allow-empty", "--message", "all"]):
        subprocess.run(["git", *command], cwd=clone, check=True)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_two_arms_of_the_real_graph_train_nothing_twice_though_killed(
    tmp_path: Path, with_tiny_data: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clone, mark = clone_project(tmp_path / "omnihuman"), uuid.uuid4().hex
    with_tiny_data(clone)
    commit_everything(clone)
    env = environment(clone, mark)
    arguments = ["ablate", "run", "audio_mix", "--profile", "tiny", "--parallel", "2"]
    command = [sys.executable, "-m", "omnihuman.cli", *arguments]
    folder = clone / RESULTS / "audio_mix"
    logs = [folder / f"{arm.name}.log" for arm in ARMS]
    killed = subprocess.Popen(command, cwd=clone, env=env)
    in_stage_2 = wait_until(lambda: any("2_audio: step 1 of 4" in text(log) for log in logs), 300)
    killed.kill()
    killed.wait()
    assert in_stage_2
    assert subprocess.run(command, cwd=clone, env=env, check=False).returncode == 0
    assert not marked(mark)
    monkeypatch.setenv("OMNIHUMAN_HOME", env["OMNIHUMAN_HOME"])

    results = [ArmResult.load(folder / f"{arm.name}.json") for arm in ARMS]
    before_the_kill = ("collect", "split", "score", "caption", "decide", "encode", "train@1_text_image")
    outcomes_of = {step.name: Counter(r.steps[i].outcome for r in results) for i, step in enumerate(results[0].steps)}
    assert all(outcomes_of[step] == {Outcome.RESTORED: 2} for step in before_the_kill)
    assert all({"opening", "pose_distance"} <= result.figures.keys() for result in results)
    assert not [path for path in Path(env["OMNIHUMAN_HOME"], "worktrees").glob("*") if path.is_dir()]

    client = connect()
    runs = client.search_runs([client.get_experiment_by_name("omnihuman").experiment_id])
    named = Counter(run.info.run_name for run in runs)
    assert named["1_text_image"] == 1, "both arms restored it"
    assert named["2_audio"] == named["3_pose"] == 2, "the killed one was taken up again"
    for run in runs:
        if run.info.run_name in {"1_text_image", "2_audio", "3_pose"}:
            steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
            assert sorted(steps) == [1, 2, 3, 4], run.info.run_name
    parents = {run.info.run_id: run for run in runs}
    (stage_2, _) = [run for run in runs if run.info.run_name == "2_audio"]
    arm = parents[stage_2.data.tags["mlflow.parentRunId"]]
    assert arm.info.run_name in {arm.name for arm in ARMS}
    assert parents[arm.data.tags["mlflow.parentRunId"]].info.run_name == "ablation audio_mix"
