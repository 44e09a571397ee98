"""Batches by the command line and in processes that are killed and interrupted."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from scipy.io import wavfile
from tests.batches import ROOT, moments, prepared, random_version, write_jobs

from omnihuman import cli
from omnihuman.errors import UserError
from omnihuman.inference.provenance import sidecar_path
from omnihuman.media.probe import probe
from omnihuman.registry.origin import Origin
from omnihuman.registry.store import CHAMPION, MODEL_NAME, connect
from omnihuman.registry.versions import ModelVersion
from omnihuman.rendering.ledger import Ledger
from omnihuman.rendering.manifest import Manifest
from omnihuman.rendering.submit import enter, run
from omnihuman.rendering.worker import PARTIAL, Policy, work
from omnihuman.storage.files import file_sha256

pytest_plugins = ["tests.batch_fixtures"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose MLflow store holds one version that is champion, as `registry promote` leaves it."""
    folder = tmp_path_factory.mktemp("home")
    version = random_version(folder / "stored/artifacts", 1)
    description = file_sha256(version.folder / "model.json")
    origin = Origin(version.sha256, description, "", "", "", "", "", "", False, "3_pose", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIHUMAN_HOME", str(folder))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        client = connect()
        client.create_registered_model(MODEL_NAME)
        client.create_model_version(MODEL_NAME, source=(folder / "stored").as_uri(), tags=origin.tags())
        client.set_registered_model_alias(MODEL_NAME, CHAMPION, "1")
    return folder


@pytest.fixture
def checkout(inputs: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, where we are, and a home with a champion."""
    monkeypatch.setenv("OMNIHUMAN_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.chdir(inputs)
    (inputs / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return inputs


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`omnihuman batch ...` as a process group of its own."""
    command = [sys.executable, "-m", "omnihuman.cli", "batch", *arguments]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def wait_for(ready: Any, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 300
    while not ready():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.02)


def item_states(output: Path) -> list[str]:
    return [item.state for item in Ledger(output).items()] if (output / "ledger.sqlite").is_file() else []


def rendering_now(output: Path) -> bool:
    return bool(list((output / PARTIAL).glob("*/*"))) if (output / PARTIAL).is_dir() else False


def long_jobs(folder: Path, count: int) -> Path:
    """Jobs that take seconds each, so that a test can come between."""
    wavfile.write(folder / "long.wav", 16000, np.zeros(16000 * 4, np.int16))
    return write_jobs(folder, *({"image": "a.png", "audio": "long.wav", "seed": seed} for seed in range(count)))


@pytest.mark.slow
def test_the_command_line_from_submission_to_report(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jobs(checkout, {"image": "a.png", "output": "a.mp4"}, {"image": "bad.png", "output": "bad.mp4"})
    (checkout / "bad.png").write_text("no picture")
    output = Path("renders/jobs")

    def batch(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["batch", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, out, _ = batch("submit", "jobs.jsonl", "--dry-run")
    assert code == 0 and "omnihuman version 1" in out and not output.parent.exists()
    assert "line 1: a.mp4 would be rendered" in out and "2 to render, 0 done already" in out
    assert batch("submit", "jobs.jsonl", "--no-wait")[0] == 0 and item_states(output) == ["pending", "pending"]
    code, out, err = batch("work", str(output))
    assert code == 3 and "dead: bad.mp4: picture" in out and "1 done, 1 dead; renders/jobs/report.html" in out
    assert "1 of 2: a.mp4 in " in err and "2 of 2: bad.mp4 is dead: picture" in err

    code, out, _ = batch("submit", "jobs.jsonl", "--dry-run")
    assert code == 0 and "line 1: a.mp4 is done already" in out and "1 to render, 1 done already" in out
    code, out, _ = batch("status", str(output))
    assert code == 0 and out.splitlines()[0].split() == ["video", "state", "attempts", "seconds", "told"]
    assert "bad.mp4  dead" in out and "1 done, 1 dead" in out
    code, out, _ = batch("redrive", str(output))
    assert code == 0 and "1 dead job is pending" in out and item_states(output) == ["done", "pending"]
    before = moments(output)
    assert batch("submit", "jobs.jsonl")[0] == 3 and moments(output) == before

    (output / "ledger.sqlite").unlink()
    for verb in ("status", "work", "redrive"):
        code, out, err = batch(verb, str(output))
        assert code == 2 and not out and "ledger.sqlite is missing: submit the jobs again" in err
    assert batch("submit", "jobs.jsonl")[0] == 3 and moments(output) == before


@pytest.mark.slow
def test_the_users_mistakes_are_one_message_and_exit_code_2(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = write_jobs(checkout, {"image": "a.png"})
    (checkout / "file").touch()
    for arguments, said in (
        (("submit", "none.jsonl"), "jobs none.jsonl: No such file"),
        (("submit", jobs.name, "--model", "9"), "has no version 9"),
        (("submit", jobs.name, "--output", "file"), "file: cannot be written"),
        (("work", "nowhere"), "nowhere/manifest.json: No such file"),
        (("status", "nowhere"), "nowhere/manifest.json: No such file"),
        (("redrive", "nowhere"), "nowhere/manifest.json: No such file"),
    ):
        assert cli.main(["batch", *arguments]) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: ") and said in err and not out
    assert not (checkout / "renders").exists()


def killed_while_rendering(process: subprocess.Popen[str], output: Path, number: int) -> tuple[int, str]:
    """Sends a signal to the whole group in the middle of a video, and returns exit code and standard error."""
    wait_for(lambda: rendering_now(output), process)
    os.killpg(process.pid, number)
    error = process.communicate(timeout=300)[1]
    return process.returncode, error


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs, output = long_jobs(checkout, 2), checkout / "videos"
    process = started(checkout, "submit", jobs.name, "--output", "videos", "--lease", "4")
    killed_while_rendering(process, output, signal.SIGKILL)
    (killed,) = (item for item in Ledger(output).items() if item.state == "leased")
    published = [path for path in output.rglob("*.mp4") if PARTIAL not in path.parts]
    assert all(sidecar_path(path).is_file() for path in published), "no half file"

    assert cli.main(["batch", "work", "videos", "--lease", "4"]) == 0
    assert "2 done" in capsys.readouterr().out
    after = {item.id: item for item in Ledger(output).items()}
    assert after[killed.id].attempt == 2 and {item.state for item in after.values()} == {"done"}
    for item in Manifest.load(output).items:
        assert item.finished_in(output) == list(item.outputs) and probe(output / item.outputs[0]).num_frames == 100
    assert not list((output / PARTIAL).iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "number"),
    [
        ("--workers=1", signal.SIGINT),
        ("--workers=2", signal.SIGINT),
        ("--workers=1", signal.SIGTERM),
        ("--together=2", signal.SIGTERM),
    ],
)
def test_an_interrupt_gives_the_item_back_and_the_next_submission_goes_on(
    checkout: Path, option: str, number: int
) -> None:
    jobs, output = long_jobs(checkout, 2), checkout / "videos"
    submit = ("submit", jobs.name, "--output", "videos", option)
    code, error = killed_while_rendering(started(checkout, *submit), output, number)
    assert code == 130 and error.endswith("interrupted\n") and "Traceback" not in error
    assert set(item_states(output)) <= {"pending", "done"} and "pending" in item_states(output)
    assert {item.attempt for item in Ledger(output).items() if item.state == "pending"} == {0}
    assert not list((output / PARTIAL).iterdir())
    assert cli.main(["batch", *submit]) == 0 and item_states(output) == ["done", "done"]


@pytest.mark.slow
def test_a_worker_process_that_is_killed_is_replaced(
    inputs: Path,
    version: ModelVersion,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    batch, output = prepared(long_jobs(inputs, 4), tmp_path / "videos", version), tmp_path / "videos"
    enter(batch)
    killer = threading.Thread(target=kill_one_worker, args=(output,))
    killer.start()
    report = run(batch, 2, 4.0)
    killer.join()
    assert report.exit_code == 0 and max(outcome.attempts for outcome in report.outcomes) == 2
    assert "Traceback" not in capfd.readouterr().err, "the workers end in peace"
    assert all(item.finished_in(output) for item in batch.manifest.items)


def kill_one_worker(output: Path) -> None:
    wait_for(lambda: rendering_now(output))
    owner = next(item.owner for item in Ledger(output).items() if item.state == "leased")
    os.kill(int(owner.rpartition(":")[2]), signal.SIGKILL)


@pytest.mark.slow
def test_workers_that_cannot_load_the_model_are_one_message(
    inputs: Path, version: ModelVersion, tmp_path: Path
) -> None:
    batch = prepared(write_jobs(inputs, {"image": "a.png"}, {"image": "b.png"}), tmp_path / "videos", version)
    enter(batch)
    (version.folder / "model.json").unlink()
    with pytest.raises(UserError, match=r"model\.json is missing"):
        run(batch, 2, 60.0)


@pytest.mark.slow
def test_what_does_not_fit_into_memory_is_tried_once_more(inputs: Path, version: ModelVersion, tmp_path: Path) -> None:
    """With 2 GB beyond what is in use, a video 300 times enlarged does not fit; the next one is rendered."""
    huge = {"image": "a.png", "output": "huge.mp4", "parameters": {"upscale": 300}}
    output = tmp_path / "videos"
    batch = prepared(write_jobs(inputs, huge, {"image": "b.png", "output": "b.mp4"}), output, version)
    enter(batch)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30, limits[1]))
        work(output, version.folder, Policy(backoff_seconds=0.05, max_attempts=9), lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    first, second = Ledger(output).items()
    assert (first.state, first.attempt, second.state) == ("dead", 2, "done"), first.error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--workers", "0"), "'0' is no whole number"), (("--lease", "0.1"), "no number of seconds")],
)
def test_wrong_options_are_told_before_anything(
    arguments: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["batch", "submit", "jobs.jsonl", *arguments])
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("submit", "work", "status", "redrive"):
        with pytest.raises(SystemExit) as end:
            cli.main(["batch", verb, "--help"])
        assert end.value.code == 0 and f"usage: omnihuman batch {verb}" in capsys.readouterr().out
