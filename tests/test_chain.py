"""The whole graph in a fresh clone: drawn people, real people, bad input, kills."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import yaml
from tests.small_project import ROOT, clone_project, environment, marked

from omnihuman.data.manifest import read_table

MEDIA = ROOT.parent / "shared" / "media"

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the tracked and changed files, with a home of its own."""
    return clone_project(tmp_path_factory.mktemp("fresh clone") / "omnihuman")


def run(clone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=clone, env=environment(clone, "chain"), capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def by_the_demo(clone: Path) -> subprocess.CompletedProcess[str]:
    """What the demo said that ran in the clone."""
    result = run(clone, "omnihuman", "demo", "--profile", "tiny")
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def dvc_status(clone: Path) -> dict:
    return json.loads(run(clone, sys.executable, "-m", "dvc", "status", "--json").stdout)


def training_times(clone: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted(clone.glob("models/*/model.safetensors"))}


def frames_and_seconds(path: Path) -> tuple[int, float]:
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    with av.open(str(path)) as container:
        sound = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    return frames, sound


def test_the_chain_runs_is_clean_and_runs_nothing_twice(
    clone: Path, by_the_demo: subprocess.CompletedProcess[str]
) -> None:
    assert dvc_status(clone) == {}
    assert run(clone, "omnihuman", "config", "compose", "--check").returncode == 0
    for line in ("mouth opening follows loudness", "background against the reference", "keypoints to driving pose"):
        assert line in by_the_demo.stdout
    frames, seconds = frames_and_seconds(clone / "renders" / "demo.mp4")
    assert frames > 17, "a demo video has more than one segment"
    assert abs(frames / 25 - seconds) < 0.1  # AAC pads to whole packets

    before = training_times(clone)
    assert len(before) == 3
    again = run(clone, "omnihuman", "demo", "--profile", "tiny")
    assert again.returncode == 0 and training_times(clone) == before

    (clone / "src/omnihuman/cli/model.py").open("a").write("\n# a change elsewhere\n")
    (clone / "src/omnihuman/pipeline/summary.py").open("a").write("\n# a change elsewhere\n")
    assert dvc_status(clone) == {}
    (clone / "src/omnihuman/diffusion/loss.py").open("a").write("\n# a change of the loss\n")
    assert set(dvc_status(clone)) == {f"train@{stage}" for stage in ("1_text_image", "2_audio", "3_pose")}
    run(clone, "git", "checkout", "--quiet", "src")


@pytest.mark.usefixtures("by_the_demo")
def test_another_policy_is_reported_and_changes_nothing(clone: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in (clone / "params.yaml", clone / "reports/funnel.html")}
    now = run(clone, "omnihuman", "data", "report")
    assert (
        now.returncode == 0
        and str(json.loads((clone / "reports/funnel.json").read_text())["clips_audio"]) in now.stdout
    )
    page = tmp_path / "page.html"
    then = run(clone, "omnihuman", "data", "report", "decide.rules.lips_follow.at_least=1000", "--page", str(page))
    (audio,) = [line.split() for line in then.stdout.splitlines() if line.startswith("audio  ")]
    assert int(audio[1]) > int(audio[2]) == 0 and "lips_follow" in page.read_text()
    assert {path: path.read_bytes() for path in before} == before and not dvc_status(clone)
    wrong = run(clone, "omnihuman", "data", "report", "decide.rules.lip_follow.at_least=1")
    assert wrong.returncode == 2 and "did you mean decide.rules.lips_follow" in wrong.stderr


def locked_outputs(clone: Path) -> dict[str, str]:
    """Hash by output of every step, but of the records of runs, which differ by run id and time."""
    steps_of_lock = yaml.safe_load((clone / "dvc.lock").read_text(encoding="utf-8"))["stages"].values()
    outs = {out["path"]: out["md5"] for step in steps_of_lock for out in step["outs"]}
    return {path: md5 for path, md5 in outs.items() if not path.startswith("runs/")}


@pytest.mark.usefixtures("by_the_demo")
def test_dvc_repro_makes_the_same_as_the_flow(clone: Path, tmp_path: Path) -> None:
    by_dvc = clone_project(tmp_path / "omnihuman")
    (by_dvc / "dvc.lock").unlink(missing_ok=True)
    mark = uuid.uuid4().hex
    for command in (["omnihuman", "config", "compose", "--profile", "tiny"], [sys.executable, "-m", "dvc", "repro"]):
        env = environment(by_dvc, mark)
        result = subprocess.run(command, cwd=by_dvc, env=env, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
    assert not marked(mark)
    assert len(locked_outputs(clone)) >= 12
    assert locked_outputs(clone) == locked_outputs(by_dvc)


def killed_when(clone: Path, command: list[str], ready: Callable[[], bool], delay_seconds: float) -> None:
    """Starts a step and kills it, and all that it started, soon after it is `ready`."""
    process = subprocess.Popen(command, cwd=clone, env=environment(clone, "chain"), start_new_session=True)
    deadline = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(delay_seconds)
    assert process.poll() is None, "the step ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def checkpoints(clone: Path) -> set[Path]:
    return set((clone.parent / "home/.omnihuman/work").glob("*/checkpoints/step-*"))


@pytest.mark.usefixtures("by_the_demo")
@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.soak)])
def test_a_killed_stage_goes_on_and_ends_with_the_same_weights(clone: Path, kills: int) -> None:
    changes = [f"stages.1_text_image.steps={20 * kills}", f"seed={kills}"]
    assert run(clone, "omnihuman", "config", "compose", "--profile", "tiny", *changes).returncode == 0
    before = checkpoints(clone)
    moments = random.Random(kills)
    for _ in range(kills):
        known = checkpoints(clone)
        killed_when(
            clone,
            ["omnihuman", "train", "1_text_image"],
            lambda known=known: checkpoints(clone) != known,
            moments.uniform(0, 0.1),
        )
    resumed = run(clone, "omnihuman", "train", "1_text_image")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    weights = (clone / "models/1_text_image/model.safetensors").read_bytes()
    for checkpoint in checkpoints(clone) - before:
        shutil.rmtree(checkpoint)
    assert run(clone, "omnihuman", "train", "1_text_image").returncode == 0
    assert (clone / "models/1_text_image/model.safetensors").read_bytes() == weights


@pytest.mark.skipif(not MEDIA.is_dir(), reason="shared/media with real clips is not here")
def test_real_people_run_through_the_same_graph(clone: Path) -> None:
    rights = ["collect.licence=unknown", "collect.consent_basis=unknown", "collect.rights_holder=unknown"]
    result = run(clone, "omnihuman", "demo", "--profile", "tiny", "--data", str(MEDIA / "talk"), *rights)
    assert result.returncode == 0, result.stderr[-3000:]
    assert dvc_status(clone) == {}
    assert run(clone, "omnihuman", "config", "compose", "--check").returncode == 0
    decisions = read_table(clone / "data" / "decisions.parquet")
    assert set(decisions["modality"]) == {"text", "reference", "audio", "pose"}
    assert decisions.query("modality == 'text'")["eligible"].any()
    assert not decisions.query("modality == 'pose'")["eligible"].any()
    assert (decisions[~decisions["eligible"]]["first_fail"] != "").all()
    note = json.loads((clone / "models/3_pose/model.json").read_text())["note"]
    assert "no training clip is eligible for pose" in note
    frames, seconds = frames_and_seconds(clone / "renders" / "demo.mp4")
    assert frames > 17 and abs(frames / 25 - seconds) < 0.1


@pytest.mark.parametrize(("content", "said"), [(None, "no such"), ("empty", "no video"), ("text", "no video")])
def test_a_bad_folder_is_one_message_and_exit_code_two(
    clone: Path, tmp_path: Path, content: str | None, said: str
) -> None:
    folder = tmp_path / "videos"
    if content:
        folder.mkdir()
    if content == "text":
        (folder / "readme.txt").write_text("no video here")
    rights = ["collect.licence=unknown", "collect.consent_basis=unknown", "collect.rights_holder=unknown"]
    result = run(clone, "omnihuman", "demo", "--profile", "tiny", "--data", str(folder), *rights)
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert str(folder) in result.stderr and "Traceback" not in result.stderr and len(errors) == 1
    assert said in result.stderr.lower()


def test_params_of_the_repository_are_the_demo_profile() -> None:
    assert yaml.safe_load((ROOT / "params.yaml").read_text())["profile"] == "demo"
