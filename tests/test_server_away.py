"""A real MLflow server goes away while a stage trains, comes back, and then holds every figure and file."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from tests.test_tracking import ROOT, Server, client, steps_of
from tests.tiny import CONFIG, write_encoded

from omnihuman.cli.probes import ProbeFiles, held_out_probe
from omnihuman.config.compose import compose, dump
from omnihuman.config.schema.diffusion import Diffusion
from omnihuman.config.schema.stage import Activation, Stage, Training
from omnihuman.tracking.runs import TrackedStep, step_run
from omnihuman.tracking.server import URI_VARIABLE
from omnihuman.training.fit import StageRun
from omnihuman.training.run import train_stage

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """In the current directory stand a params.yaml and encoded clips, of which the last two are held out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(dump(compose("tiny", [], conf=ROOT / "conf")))
    write_encoded(tmp_path / "encoded", [(True, True)] * 4)
    table = pd.read_parquet(tmp_path / "encoded/samples.parquet")
    table.loc[2:, "split"] = "test"
    table.to_parquet(tmp_path / "encoded/samples.parquet")
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(URI_VARIABLE, server.uri)
    server.start()
    yield server
    server.stop()


class NotFound(BaseHTTPRequestHandler):
    """What a gateway answers while the server behind it begins again."""

    def answer(self) -> None:
        self.send_error(404)

    do_GET = do_POST = do_PUT = answer


def not_found(port: int) -> ThreadingHTTPServer:
    gateway = ThreadingHTTPServer(("127.0.0.1", port), NotFound)
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    return gateway


def tracked_step(weights: Path) -> TrackedStep:
    return TrackedStep("2_audio", "away", {}, Path("encoded"), "digest", weights)


def test_training_goes_on_without_the_server_and_loses_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnihuman.tracking.curves._SECONDS_BETWEEN", 0.0)
    training = Training(
        global_batch_size=2, warmup_steps=2, log_every_steps=1, validate_every_steps=2, validation_clips=2,
        probe_every_steps=4,
    )  # fmt: skip
    stage = Stage(steps=12, activate=Activation(0.9, 0.9, 0.9, 0.9))
    run = StageRun("2_audio", stage, training, CONFIG, Diffusion(), seed=3)
    seen_by_server: dict[int, list[int]] = {}
    gateway: list[ThreadingHTTPServer] = []
    expected: dict[str, set[int]] = {}
    probe = held_out_probe(stage, compose("tiny", [], conf=ROOT / "conf"), Path("encoded"))
    with step_run(tracked_step(Path("models/2_audio/model.safetensors"))) as tracked:
        files = ProbeFiles(tracked)

        def report(step: int, metrics: dict[str, float]) -> None:
            if step == 3 and "loss" in metrics:
                server.stop()
            if step == 6 and "loss" in metrics:
                gateway.append(not_found(server.port))
            if step == 9 and "loss" in metrics:
                gateway[0].shutdown()
                gateway[0].server_close()
                server.start()
                seen_by_server[step] = steps_of(tracked.run_id)
            for name in metrics:
                expected.setdefault(name, set()).add(step)
            files.report(step, metrics)

        train_stage(run, Path("encoded"), Path("models"), tracked.work, report, probe=probe)
        files.send()
    assert seen_by_server[9] == [1, 2], "it was away"
    assert expected["loss"] == set(range(1, 13)) and expected["validation/text_reference_audio_pose/mean"]
    assert expected["probe/pose_gain"] == {4, 8, 12} and len(expected) > 40
    assert {name: set(steps_of(tracked.run_id, name)) for name in expected} == expected
    kept = client().list_artifacts(tracked.run_id, "probes")
    assert [file.path for file in kept] == [f"probes/step-{step:06d}" for step in (4, 8, 12)]
    of_one = {Path(file.path).name for file in client().list_artifacts(tracked.run_id, "probes/step-000004")}
    assert of_one == {"sound-contact-sheet.png", "sound.mp4", "pose-contact-sheet.png", "pose.mp4"}


KILLED = """
import time
from pathlib import Path
from omnihuman.tracking.runs import TrackedStep, step_run
import omnihuman.tracking.curves as curves
with step_run(TrackedStep("2_audio", "away", {}, Path("encoded"), "digest", Path("params.yaml"))) as tracked:
    for number in range(1, 21):
        tracked.report(number, {"seconds": 1 / number})
    tracked._curves.send()
    Path("sent").touch()
    while not Path("gone").exists():
        time.sleep(0.05)
    curves._SECONDS_BETWEEN = tracked._curves._next = 0.0
    for number in range(21, 31):
        tracked.report(number, {"seconds": 1 / number})
    Path("said").touch()
    time.sleep(300)
"""


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_killed_while_the_server_is_away_loses_no_figure(server: Server) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED], env=os.environ)
    wait_for(Path("sent"), process)
    server.stop()
    Path("gone").touch()
    wait_for(Path("said"), process)
    process.kill()
    process.wait()
    points = Path("home/work/away/mlflow_points.jsonl")
    assert len(points.read_text().splitlines()) == 10
    with points.open("a") as file:
        file.write('["seconds", 0.5, 17')  # it died in the middle of a line
    server.start()
    with step_run(tracked_step(Path("params.yaml"))) as again:
        assert steps_of(again.run_id, "seconds") == list(range(1, 21))
        for number in (30, 31):
            again.report(number, {"seconds": 2.0})
    values = {point.step: point.value for point in client().get_metric_history(again.run_id, "seconds")}
    assert values == {step: 1 / step for step in range(1, 31)} | {31: 2.0}
    assert not points.exists()
