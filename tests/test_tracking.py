"""Runs in a real MLflow store: what they hold, that they go on where they were killed, and what happens without one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from tests.tiny import DESCRIPTION, random_model, write_encoded

from omnihuman import cli
from omnihuman.config.compose import compose, dump
from omnihuman.errors import UserError
from omnihuman.evaluation.held_out_scores import values
from omnihuman.model.checkpoint import save_model
from omnihuman.tracking.record import RunRecord, record_path
from omnihuman.tracking.runs import PARENT_VARIABLE, TrackedStep, finish, note_restored, start_parent, step_run
from omnihuman.tracking.server import EXPERIMENT, prepare, tracking_uri
from omnihuman.tracking.values import flat_figures, flat_parameters, folder_md5, git_tags
from omnihuman.training.module import StageModule

ROOT = Path(__file__).parents[1]
SETTINGS = {"stage": {"activate": {"audio": 0.9}, "mix": {"audio_eligible": None}, "steps": 4}, "seed": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own for the tests of this file, with nothing set that would lead elsewhere."""
    home = tmp_path_factory.mktemp("home of runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIHUMAN_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.delenv(PARENT_VARIABLE, raising=False)
        yield home


@pytest.fixture
def project(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: params.yaml of the profile tiny and a file that stands for weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(dump(compose("tiny", [], conf=ROOT / "conf")))
    (tmp_path / "weights").write_bytes(b"weights")
    return tmp_path


def step(key: str, name: str = "2_audio") -> TrackedStep:
    return TrackedStep(name, key, SETTINGS, Path("data"), "d41d8cd98f00b204e9800998ecf8427e.dir", Path("weights"))


def client() -> MlflowClient:
    return MlflowClient(tracking_uri())


def steps_of(run_id: str, metric: str = "loss") -> list[int]:
    return sorted(point.step for point in client().get_metric_history(run_id, metric))


def status_of(run_id: str) -> str:
    return client().get_run(run_id).info.status


def unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_settings_and_figures_become_flat() -> None:
    parameters = flat_parameters({**SETTINGS, "model": {"rope_axes": (4, 6)}, "note": "x" * 300})
    expected = {"ratio/audio": "0.9", "steps": "4", "seed": "3", "model/rope_axes": "4, 6", "note": "x" * 250}
    assert parameters == expected
    figures = {"clips": 4, "opening": {"null": {"value": 0.5, "low": None}}}
    assert flat_figures(figures) == {"clips": 4.0, "opening/null/value": 0.5}


@pytest.mark.slow
def test_a_folders_digest_is_dvcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    for name in ("b/a", "b!", "a.txt", "ä"):
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_text(name)
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "folder"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    recorded = yaml.safe_load((tmp_path / "folder.dvc").read_text())["outs"][0]["md5"]
    assert folder_md5(tmp_path / "folder") == recorded and len(recorded) <= 36


def test_the_commit_and_whether_code_differs(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=n", "-c", "user.email=n@example.org", *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    assert git_tags(tmp_path) == {}
    git("init", "--quiet")
    for name in ("code.py", "params.yaml"):
        (tmp_path / name).write_text("1")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    (tmp_path / "params.yaml").write_text("2")
    assert git_tags(tmp_path) == {"mlflow.source.git.commit": git("rev-parse", "HEAD"), "git_dirty": "false"}
    (tmp_path / "code.py").write_text("2")
    assert git_tags(tmp_path)["git_dirty"] == "true"


def test_a_record_is_read_as_written_or_named(tmp_path: Path) -> None:
    path = record_path("2_audio", tmp_path)
    with pytest.raises(UserError, match="dvc repro"):
        RunRecord.load(path)
    record = RunRecord("2_audio", "run", "1", "", "hash", "2026-01-01T00:00:00+00:00")
    record.save(path)
    assert path == tmp_path / "runs/2_audio.json" and RunRecord.load(path) == record
    path.write_text('{"run_id": "run"}')
    with pytest.raises(UserError, match="not the record of a run"):
        RunRecord.load(path)


def test_each_training_step_and_evaluate_leave_a_record_on_which_nothing_depends() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert "runs/${key}.json" in stages["train"]["do"]["outs"] and "runs/evaluate.json" in stages["evaluate"]["outs"]
    deps = [dep for stage in stages.values() for dep in stage.get("do", stage).get("deps", [])]
    assert deps and not [dep for dep in deps if dep.startswith("runs")]


@pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite:///mlflow.db", "postgresql://host/db"])
def test_only_a_server_or_an_absolute_file(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match=f"MLFLOW_TRACKING_URI is '{uri}'"):
        prepare()


def test_a_file_that_is_no_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_text("This is a letter, not a database. " * 40)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match=r"mlflow\.db: file is not a database"):
        prepare()


@pytest.mark.slow
def test_four_processes_make_one_store_at_once_in_spite_of_mlruns(tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("experiment_id: 0\n")
    environment = os.environ | {"OMNIHUMAN_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": ""}
    program = "from omnihuman.tracking.server import prepare; print(prepare())"
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    ids = [process.communicate(timeout=300)[0].split() for process in starts]
    assert [process.returncode for process in starts] == [0] * 4
    assert len({tuple(one) for one in ids}) == 1 and len(ids[0]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "mlruns"]
    found = MlflowClient(f"sqlite:///{tmp_path}/home/mlflow/mlflow.db").get_experiment_by_name(EXPERIMENT)
    assert found is not None and found.artifact_location == (tmp_path / "home/mlflow/artifacts").as_uri()


@pytest.mark.slow
def test_a_step_is_a_child_with_all_that_made_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = start_parent("pipeline", {"ratio": {"audio": 0.9}}, {"why": "test"}, Path("params.yaml"))
    monkeypatch.setenv(PARENT_VARIABLE, parent)
    with step_run(step("all")) as tracked:
        tracked.log_figures({"opening": {"value": 0.7, "low": 0.6, "high": None}})
        work = tracked.work
    run = client().get_run(tracked.run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "2_audio" and not work.exists()
    assert run.data.params == {"ratio/audio": "0.9", "steps": "4", "seed": "3"}
    assert run.data.tags["mlflow.parentRunId"] == parent and run.data.tags["content_key"] == "all"
    assert run.data.metrics == {"opening/value": 0.7, "opening/low": 0.6}
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == "d41d8cd98f00b204e9800998ecf8427e.dir"
    kept = client().download_artifacts(run.info.run_id, "params.yaml", str(project / "runs"))
    assert Path(kept).read_text() == (project / "params.yaml").read_text()
    record = RunRecord.load(record_path("2_audio"))
    assert (record.run_id, record.parent_run_id) == (tracked.run_id, parent)
    assert record.sha256 == run.data.tags["model_sha256"] and len(record.sha256) == 64

    assert not note_restored(parent, record), "the step ran under this parent"
    later = start_parent("later", {}, {})
    assert note_restored(later, record)
    assert client().get_run(later).data.tags["restored/2_audio"] == tracked.run_id
    finish(later, figures={"opening": {"value": 0.7}})
    assert client().get_run(later).data.metrics == {"opening/value": 0.7} and status_of(later) == "FINISHED"


KILLED_STEP = """
import os, signal, sys, time
from pathlib import Path
from omnihuman.tracking.runs import TrackedStep, step_run
with step_run(TrackedStep("2_audio", sys.argv[1], {}, Path("data"), "digest", Path("weights"))) as tracked:
    for number in range(1, 31):
        tracked.report(number, {"loss": 1 / number})
        if number == 20:
            tracked._curves.send()
    Path("ready").write_text(tracked.run_id)
    time.sleep(300)
"""


def killed(key: str, sent: signal.Signals) -> str:
    """A step that reports 30 steps, sends 20 of them and gets a signal; returns the id of its run."""
    process = subprocess.Popen([sys.executable, "-c", KILLED_STEP, key])
    deadline = time.monotonic() + 120
    while not (Path("ready").exists() and Path("ready").read_text()) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(sent)
    process.wait(60)
    return Path("ready").read_text()


@pytest.mark.slow
def test_a_killed_step_goes_on_in_its_run_and_doubles_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = start_parent("killed pipeline", {}, {})
    monkeypatch.setenv(PARENT_VARIABLE, first)
    run_id = killed("resumed", signal.SIGKILL)
    assert status_of(run_id) == "RUNNING" and steps_of(run_id) == list(range(1, 21))
    finish(first, "KILLED")
    assert (status_of(run_id), status_of(first)) == ("KILLED", "KILLED"), "a parent leaves no child as running"

    second = start_parent("second pipeline", {}, {})
    monkeypatch.setenv(PARENT_VARIABLE, second)
    with step_run(step("resumed")) as tracked:
        assert status_of(tracked.run_id) == "RUNNING"
        for number in range(1, 2501):
            tracked.report(number, {"loss": 1 / number})
    assert tracked.run_id == run_id and status_of(run_id) == "FINISHED"
    assert steps_of(run_id) == list(range(1, 2501))
    assert client().get_run(run_id).data.tags["mlflow.parentRunId"] == second
    with step_run(step("resumed")) as again:
        pass
    assert again.run_id != run_id, "a finished step that runs once more is a new run"


@pytest.mark.slow
def test_ends_are_told_apart(project: Path) -> None:
    for error, status in (
        (UserError("wrong"), "FAILED"),
        (ZeroDivisionError(), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
    ):
        with pytest.raises(type(error)), step_run(step("ends")) as tracked:
            raise error
        assert status_of(tracked.run_id) == status and not record_path("2_audio").exists()
    assert status_of(killed("terminated", signal.SIGTERM)) == "KILLED"


@pytest.mark.slow
def test_an_unknown_parent_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PARENT_VARIABLE, "0" * 32)
    with pytest.raises(UserError, match=PARENT_VARIABLE), step_run(step("orphan")):
        pytest.fail("the step began")


@pytest.mark.slow
def test_a_real_stage_is_interrupted_and_goes_on(store: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_encoded(project / "data/encoded", [(True, True), (True, False), (False, False)])
    done: list[int] = []
    original = StageModule.training_step

    def interrupted_at_step_four(self: StageModule, batch: object, index: int) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(index)
        return original(self, batch, index)

    monkeypatch.setattr(StageModule, "training_step", interrupted_at_step_four)
    assert cli.main(["train", "1_text_image"]) == 130
    (run,) = client().search_runs([prepare()], "tags.step = '1_text_image'")
    assert run.info.status == "KILLED" and steps_of(run.info.run_id) == [1, 2, 3]
    monkeypatch.setattr(StageModule, "training_step", original)
    assert cli.main(["train", "1_text_image"]) == 0
    (run,) = client().search_runs([prepare()], "tags.step = '1_text_image'")
    assert run.info.status == "FINISHED" and steps_of(run.info.run_id) == [1, 2, 3, 4]
    curve = (project / "models/1_text_image/loss.csv").read_text().splitlines()[1:]
    logged = sorted(client().get_metric_history(run.info.run_id, "loss"), key=lambda point: point.step)
    assert [f"{point.step},{point.value:.5f}" for point in logged] == curve
    assert steps_of(run.info.run_id, "learning_rate") == [1, 2, 3, 4]
    params = run.data.params
    assert params["num_clips/audio"] == "2" and params["model/width"] and params["ratio/reference"] == "0.7"
    assert run.inputs.dataset_inputs[0].dataset.digest == folder_md5(project / "data/encoded")
    assert not (store / "work" / run.data.tags["content_key"]).exists()


@pytest.mark.slow
def test_evaluation_is_a_run_with_figures_and_pictures(project: Path) -> None:
    write_encoded(project / "data/encoded", [(True, True)] * 3, split="test")
    (project / "models/3_pose").mkdir(parents=True)
    save_model(project / "models/3_pose", random_model(), DESCRIPTION)
    assert cli.main(["evaluate"]) == 0
    record = RunRecord.load(record_path("evaluate"))
    run = client().get_run(record.run_id)
    reports = project / "reports"
    figures = flat_figures(json.loads((reports / "evaluation.json").read_text()))
    measured = flat_figures(values(reports / "evaluation/metrics.json"))
    assert run.data.metrics == figures | measured and {"metric/sound/flicker", "metric/pose/flicker"} <= set(measured)
    assert run.data.metrics["clips_by_sound"] == 3
    kept = {Path(file.path).name for file in client().list_artifacts(record.run_id, "evaluation")}
    assert {"sound-contact-sheet.png", "sound-0.mp4", "pose-contact-sheet.png"} <= kept
    assert run.data.tags["model_sha256"] == record.sha256 and run.data.params["evaluated"] == "3_pose"


@pytest.mark.slow
def test_without_a_server_nothing_begins(project: Path) -> None:
    write_encoded(project / "data/encoded", [(True, True)])
    closed = f"http://127.0.0.1:{unused_port()}"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for uri in (closed, "http://no.such.host.invalid:5000", address):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MLFLOW_TRACKING_URI", uri)
                start = time.monotonic()
                with pytest.raises(UserError, match=f"MLFLOW_TRACKING_URI is {uri}, but no MLflow server"):
                    prepare()
                assert time.monotonic() - start < 15
    command = [sys.executable, "-m", "omnihuman.cli", "train", "1_text_image"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": closed}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "Traceback" not in result.stderr and not result.stdout
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    assert not (project / "models").exists() and not (project / "runs").exists()


class Server:
    """`mlflow server` on a port of its own; the same store each time it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, unused_port()
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        places = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--artifacts-destination"]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_TRACKING_URI": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *places, str(self.folder / "artifacts")],
            cwd=self.folder, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self._process.poll() is None
            time.sleep(0.2)

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.mark.slow
def test_a_server_that_goes_away_costs_no_point(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "server").mkdir()
    server = Server(project / "server")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setattr("omnihuman.tracking.curves._SECONDS_BETWEEN", 0.0)
    server.start()
    try:
        with pytest.raises(UserError, match="no longer keeps runs"), step_run(step("away")) as tracked:
            tracked.report(1, {"loss": 1.0})
            server.stop()
            tracked.report(2, {"loss": 0.5})
        assert tracked.work.is_dir(), "what the step has done must not be lost with the server"
        server.start()
        with step_run(step("away")) as again:
            for number in (1, 2, 3):
                again.report(number, {"loss": 1 / number})
        assert again.run_id == tracked.run_id and steps_of(again.run_id) == [1, 2, 3]
        assert [file.path for file in client().list_artifacts(again.run_id)] == ["params.yaml"]
        assert list((project / "server/artifacts").rglob("params.yaml")), "a server keeps artifacts where it wants"
    finally:
        server.stop()
