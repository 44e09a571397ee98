"""Arms on a small graph with real git and DVC: what is common runs once, also side by side, killed or started again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from omnihuman import cli
from omnihuman.config.compose import compose, dump
from omnihuman.errors import UserError
from omnihuman.pipeline.ablations import Arm, Trial
from omnihuman.pipeline.arm_report import first_to_run, plan, report
from omnihuman.pipeline.arms import RESULTS, TrialResult, Work, prepare_ablation, run_ablation, run_trial
from omnihuman.pipeline.graph import Outcome, StepNode
from omnihuman.pipeline.worktrees import clean_commit, worktree

ROOT = Path(__file__).parents[1]
TWO_ARMS = """
seeds: [1]
reference: audio_50
arms:
  audio_10: [stages.2_audio.mix.audio_eligible=0.1, stages.3_pose.mix.audio_eligible=0.1]
  audio_50: [stages.2_audio.mix.audio_eligible=0.5, stages.3_pose.mix.audio_eligible=0.5]
claims:
  less: {says: less is less, arm: audio_10, metric: share, change: lower, margin: 0.1, driven_by: sound}
"""
STEPS = ("common", "differs", "measure")
DVC_YAML = """
stages:
  common:
    cmd: echo common >> $COUNTER; sleep $COMMON_SECONDS; cp code made; echo common ended >> $COUNTER
    deps: [code]
    params: [stages.1_text_image]
    outs: [made]
  differs:
    cmd: echo differs >> $COUNTER; sleep $DIFFERS_SECONDS; grep audio_eligible[:] params.yaml > different
    deps: [made]
    params: [stages.2_audio]
    outs: [different]
  measure:
    cmd: >-
      echo measure >> $COUNTER; mkdir -p reports/evaluation runs;
      printf 'item,person,metric,value\\n' > reports/evaluation/items.csv; for person in 1 2 3 4;
      do echo "$person,$person,sound/share,`head -1 different | cut -d':' -f2`" >> reports/evaluation/items.csv; done;
      echo "{\\"share\\":" `head -1 different | cut -d':' -f2` "}" > reports/evaluation.json;
      echo "{\\"step\\": \\"measure\\", \\"run_id\\": \\"0\\", \\"experiment_id\\": \\"0\\", \\"sha256\\": \\"\\","
      "\\"finished\\": \\"\\", \\"parent_run_id\\": \\"$OMNIHUMAN_PARENT_RUN\\"}" > runs/measure.json
    deps: [different]
    outs: [reports/evaluation, reports/evaluation.json, runs/measure.json]
"""


def git(folder: Path, *arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return result.stdout


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed checkout with the real configuration and three steps that write to a file outside it."""
    for name, value in {
        "OMNIHUMAN_HOME": tmp_path / "home",
        "DVC_SITE_CACHE_DIR": tmp_path / "site",
        "COUNTER": tmp_path / "counter",
        "COMMON_SECONDS": 0,
        "DIFFERS_SECONDS": 0,
    }.items():
        monkeypatch.setenv(name, str(value))
    root = tmp_path / "a project"
    root.mkdir()
    git(root, "init", "--quiet")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=root, check=True)
    (root / "conf").mkdir()
    subprocess.run(["cp", "-r", *map(str, (ROOT / "conf").glob("*")), "conf"], cwd=root, check=True)
    (root / "conf/ablation/two.yaml").write_text(TWO_ARMS)
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    autostage = false\n")
    (root / ".gitignore").write_text("/made\n/different\n/reports/\n/runs/\n")
    (root / "code").write_text("code\n")
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "params.yaml").write_text(dump(compose("tiny", conf=root / "conf")))
    (root / "dvc.lock").write_text("schema: '2.0'\n")
    commit(root)
    return root


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "a commit")


def counts() -> Counter[str]:
    path = Path(os.environ["COUNTER"])
    return Counter(path.read_text().splitlines() if path.exists() else [])


def outcomes(result: TrialResult) -> list[Outcome]:
    return [step.outcome for step in result.steps]


def worktrees(root: Path) -> list[Path]:
    """Those that git knows besides the main one, and folders that lie about."""
    lines = git(root, "worktree", "list", "--porcelain").splitlines()
    known = [Path(line.removeprefix("worktree ")) for line in lines if line.startswith("worktree ")]
    base = Path(os.environ["OMNIHUMAN_HOME"]) / "worktrees"
    return sorted({*known[1:], *(path for path in base.glob("*") if path.is_dir())})


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


PROGRAM = """
import sys
from pathlib import Path
from omnihuman.pipeline.arms import prepare_ablation, run_trial
work = prepare_ablation(Path(sys.argv[1]), "two", "tiny")
run_trial(work, work.ablation.trials[int(sys.argv[2])]).save(Path(sys.argv[3]))
"""


def started(root: Path, arm: int, result: Path) -> subprocess.Popen[str]:
    """A process of its own that runs an arm."""
    command = [sys.executable, "-c", PROGRAM, str(root), str(arm), str(result)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def below_a_run_of_its_own(work: Work, trial: Trial, env: Mapping[str, str], **told: Any) -> TrialResult:
    (work.root / "code").write_text(f"edited while {trial.label} runs\n")  # which concerns no arm
    return run_trial(work, trial, {**env, "OMNIHUMAN_PARENT_RUN": trial.label}, **told)


@pytest.mark.slow
def test_two_arms_side_by_side_run_the_common_step_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMON_SECONDS", "2")
    results = run_ablation(prepare_ablation(project, "two", "tiny"), 2, run=below_a_run_of_its_own)
    assert counts() == {"common": 1, "common ended": 1, "differs": 2, "measure": 2}
    assert sorted(outcomes(result)[0] for result in results) == [Outcome.RAN, Outcome.RESTORED]
    assert [result.figures for result in results] == [{"share": 0.1}, {"share": 0.5}]
    assert [result.runs["measure"]["parent_run_id"] for result in results] == ["audio_10 seed 1", "audio_50 seed 1"]
    assert {result.commit for result in results} == {git(project, "rev-parse", "HEAD").strip()}
    assert worktrees(project) == [] and git(project, "status", "--porcelain").strip() == "M code"
    git(project, "checkout", "--quiet", "code")

    table = report(project, "two")
    assert "not measured  less is less" in table and "an interval needs at least 2" in table
    runs = json.loads((project / RESULTS / "two.json").read_text())["runs"]
    assert [run["figures"]["share"] for run in runs] == [0.1, 0.5]

    work = prepare_ablation(project, "two", "tiny")
    assert run_ablation(work) == results, "they are done"
    again = run_ablation(work, again=True)
    assert all(outcomes(result) == [Outcome.RESTORED] * 3 for result in again)
    assert [result.figures for result in again] == [{"share": 0.1}, {"share": 0.5}]
    assert counts() == {"common": 1, "common ended": 1, "differs": 2, "measure": 2}


@pytest.mark.slow
def test_a_killed_arm_goes_on_where_it_was(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFERS_SECONDS", "60")
    process = started(project, 0, tmp_path / "result.json")
    wait_for(lambda: counts()["differs"] == 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert worktrees(project), "nobody was left to remove it"
    monkeypatch.setenv("DIFFERS_SECONDS", "0")
    work = prepare_ablation(project, "two", "tiny")
    result = run_trial(work, work.ablation.trials[0])
    assert outcomes(result) == [Outcome.RESTORED, Outcome.RAN, Outcome.RAN]
    assert counts() == {"common": 1, "common ended": 1, "differs": 2, "measure": 1}
    assert worktrees(project) == []


@pytest.mark.slow
def test_when_the_holder_of_a_step_is_killed_the_other_takes_over(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMMON_SECONDS", "60")
    holder = started(project, 0, tmp_path / "0.json")
    wait_for(lambda: counts()["common"] == 1)
    monkeypatch.setenv("COMMON_SECONDS", "0")
    other = started(project, 1, tmp_path / "1.json")
    assert other.stderr is not None
    assert "common: waiting for process" in other.stderr.readline()
    holder.kill()
    holder.communicate()
    assert other.wait(120) == 0
    other.stderr.close()
    assert outcomes(TrialResult.load(tmp_path / "1.json")) == [Outcome.RAN] * 3
    assert counts() == {"common": 2, "common ended": 1, "differs": 1, "measure": 1}


@pytest.mark.slow
def test_an_arm_that_fails_is_told_with_the_end_of_its_log_and_the_rest_runs(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    text = DVC_YAML.replace(
        "grep audio", "grep -q 'audio_eligible.*0[.]1' params.yaml && echo 'odd setting' && exit 2; grep audio"
    )
    (project / "dvc.yaml").write_text(text)
    commit(project)
    monkeypatch.chdir(project)
    assert cli.main(["ablate", "run", "two", "--profile", "tiny"]) == 3
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "audio_10 seed 1: exit code 2" in said and "odd setting" in said and "audio_50 seed 1: measure ran" in said
    assert cli.main(["ablate", "report", "two"]) == 2
    assert "1 of 2 runs of two have not come to their end as configured (audio_10 seed 1)" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_all_arms_and_removes_their_worktrees(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFERS_SECONDS", "60")
    arguments = ["ablate", "run", "two", "--profile", "tiny", "--parallel", "2"]
    process = subprocess.Popen([sys.executable, "-m", "omnihuman.cli", *arguments], cwd=project)
    wait_for(lambda: counts()["differs"] == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert worktrees(project) == []
    assert counts()["measure"] == 0


def test_uncommitted_code_is_refused_by_name(project: Path) -> None:
    (project / "params.yaml").write_text("changed: true\n")
    (project / "dvc.lock").write_text("changed: true\n")
    (project / "untracked").write_text("")
    assert clean_commit(project) == git(project, "rev-parse", "HEAD").strip()
    (project / "code").write_text("changed\n")
    (project / ".gitignore").unlink()
    with pytest.raises(UserError, match=r"no commit holds: \.gitignore, code; commit them"):
        prepare_ablation(project, "two", "tiny")
    assert not worktrees(project) and not counts()


def test_without_git_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="need a git checkout"):
        clean_commit(tmp_path)


def test_a_worktree_runs_its_own_code_shares_the_cache_and_is_removed(project: Path, tmp_path: Path) -> None:
    stale = tmp_path / "home/worktrees/stale"
    git(project, "worktree", "add", "--quiet", "--detach", str(stale))
    (project / ".dvc/config.local").write_text("[cache]\n    type = copy\n")
    with worktree(project, "key", clean_commit(project), {"PYTHONPATH": "/other", "ONE": "two"}) as place:
        assert worktrees(project) == [place.folder], "the stale one is gone"
        assert not (place.folder / "dvc.lock").exists() and (place.folder / "code").exists()
        settings = (place.folder / ".dvc/config.local").read_text()
        assert f"dir = {project / '.dvc/cache'}" in settings and "type = copy" in settings
        assert place.env["PYTHONPATH"] == f"{place.folder}/src:/other" and place.env["ONE"] == "two"
        assert place.env["OMNIHUMAN_HOME"] == str(tmp_path / "home")
    assert worktrees(project) == []


def test_steps_are_shared_until_a_parameter_differs() -> None:
    graph = {"a": StepNode(("x",), ()), "b": StepNode(("y.z",), ("a",)), "c": StepNode(("x",), ("b",))}
    params = {"one": {"x": 1, "y": {"z": 1}}, "two": {"x": 1, "y": {"z": 2}}, "three": {"x": 1, "y": {"z": 2, "w": 3}}}
    assert first_to_run(graph, params) == {
        "one": {"a": "one", "b": "one", "c": "one"},
        "two": {"a": "one", "b": "two", "c": "two"},
        "three": {"a": "one", "b": "two", "c": "two"},
    }


def test_the_plan_counts_what_arms_and_seeds_share_once() -> None:
    text = plan(ROOT, "audio_mix", "tiny")
    assert "stages.2_audio.mix.audio_eligible=0.1" in text and "claim little_audio_lowers_sync: trained on 10%" in text
    rows = {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}
    assert rows["train@1_text_image"] == ["runs", "as", "audio_10", "as", "audio_10"]
    assert rows["train@2_audio"] == ["runs"] * 3
    # Seven steps of data once, the first stage once a seed, two stages and the evaluation for each arm and seed.
    assert f"{7 + 5 * (1 + 3 * 3)} steps to run instead of {15 * 11}" in text


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    trial = Trial(Arm("a", ("seed=1",)), 3)
    result = TrialResult(trial, "tiny", "0" * 40, "key", 0, (), {"x": None}, {})
    result.save(tmp_path / "a.json")
    assert TrialResult.load(tmp_path / "a.json") == result
