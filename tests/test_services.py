"""The local services: what goes wrong is one message; what is started works, and ends without a trace."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.small_project import environment, make_project, marked, wait_until

from omnihuman.errors import UserError
from omnihuman.pipeline import services as local
from omnihuman.pipeline.services import Ports


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def omnihuman(*arguments: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "omnihuman.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_taken_port_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "prefect.yaml").touch()
    env = os.environ | {"OMNIHUMAN_HOME": str(tmp_path / "home")}
    ports = {"prefect": free_port(), "mlflow": free_port()}
    with socket.create_server(("127.0.0.1", ports[name])):
        options = [f"--{server}-port={port}" for server, port in ports.items()]
        result = omnihuman("up", *options, folder=tmp_path, env=env)
    assert result.returncode == 2 and result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert f"port {ports[name]} of 127.0.0.1, for {name}" in result.stderr and f"--{name}-port" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["up"], 2, "no prefect.yaml"),
        (["up", "--mlflow-port", "70000"], 2, "70000"),
        (["up", "--mlflow-port", "4200"], 2, "--mlflow-port"),
        (["down"], 0, "nothing is running"),
    ],
)
def test_where_nothing_is_to_start_or_stop(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    result = omnihuman(*arguments, folder=tmp_path, env=os.environ | {"OMNIHUMAN_HOME": str(tmp_path / "home")})
    assert result.returncode == code and said in result.stdout + result.stderr and "Traceback" not in result.stderr


def test_a_worker_that_ends_while_one_looks_is_not_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path))
    local.folder().mkdir()
    (local.folder() / "ports.json").write_text(json.dumps({"prefect": free_port(), "mlflow": free_port()}))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
    monkeypatch.setattr(local, "_marked", lambda: [process])
    assert local.running() is None


def test_a_worker_that_dies_is_named_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIHUMAN_HOME", str(tmp_path))
    monkeypatch.setattr(local, "_prepared_store", lambda _: "")
    monkeypatch.setattr(local, "_bootstrap", lambda *_: None)
    monkeypatch.setattr(local, "_answers", lambda _: True)
    monkeypatch.setattr(local, "_start", lambda *_: psutil.Popen([sys.executable, "-c", ""]))
    with pytest.raises(UserError, match=r"worker does not start, see .*worker\.log"):
        local._start_all(tmp_path, Ports(free_port(), free_port()))


_OPEN = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")


class Services:
    """The services of a small project, and their Prefect server's API."""

    def __init__(self, project: Path, mark: str) -> None:
        self.project, self.mark = project, mark
        self.env = environment(project, mark)
        self.ports = Ports(free_port(), free_port())
        self.idle: list[list[str]] = []
        self.options = [f"--prefect-port={self.ports.prefect}", f"--mlflow-port={self.ports.mlflow}"]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.ports.addresses['PREFECT_API_URL']}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        for tries_left in reversed(range(10)):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    content = answer.read()
                return json.loads(content) if content else None
            except urllib.error.HTTPError as error:
                if error.code != 503 or not tries_left:  # SQLite is busy: Prefect's own client tries again, too
                    pytest.fail(f"{method} {path}: {error.code} {error.read().decode()}\n{self.logs()}")
                time.sleep(0.5)
        return None

    def begin(self) -> None:
        """Brings them to where every test finds them: up, idle, good input; anew where the last one left them else.

        Prefect would hold a killed run for running, and its deployment's only slot for taken.
        """
        (self.project / "input").write_text("good")
        if marked(self.mark) and wait_until(self.is_idle, 60):
            return
        self.end()
        shutil.rmtree(self.project.parent / "home/.omnihuman/services", ignore_errors=True)
        started = omnihuman("up", *self.options, folder=self.project, env=self.env)
        assert started.returncode == 0, started.stderr + self.logs()
        assert f"export PREFECT_API_URL=http://127.0.0.1:{self.ports.prefect}/api" in started.stdout
        self.idle = sorted(marked(self.mark))

    def end(self) -> None:
        omnihuman("down", folder=self.project, env=self.env)

    def is_idle(self) -> bool:
        """Whether the services alone run, as after their start: no flow, no step."""
        return sorted(marked(self.mark)) == self.idle

    def logs(self) -> str:
        """The end of each service's log."""
        files = sorted((self.project.parent / "home/.omnihuman/services").glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-3000:]}" for file in files)

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        return self.api("POST", "flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [deployment]}}})

    def withdraw_schedules(self, deployment: str) -> None:
        """With the runs that wait: the next one to get the deployment's only slot would take the next test's input."""
        for schedule in self.api("GET", f"deployments/{deployment}/schedules"):
            self.api("DELETE", f"deployments/{deployment}/schedules/{schedule['id']}")

        def none_is_open() -> bool:
            still_open = [run for run in self.runs(deployment) if run["state_type"] in _OPEN]
            for run in still_open:
                if run["state_type"] == "SCHEDULED":
                    self.api("DELETE", f"flow_runs/{run['id']}")
            return not still_open

        assert wait_until(none_is_open, 60), self.runs(deployment)


@pytest.fixture(scope="module")
def started_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    services = Services(make_project(tmp_path_factory.mktemp("services") / "with space"), uuid.uuid4().hex)
    yield services
    services.end()


@pytest.fixture
def services(started_once: Services) -> Services:
    started_once.begin()
    return started_once


@pytest.mark.slow
def test_up_again_says_so(services: Services) -> None:
    before = sorted(marked(services.mark))
    again = omnihuman("up", folder=services.project, env=services.env)
    assert again.returncode == 0 and "up already" in again.stdout
    assert f"MLFLOW_TRACKING_URI=http://127.0.0.1:{services.ports.mlflow}" in again.stdout
    assert sorted(marked(services.mark)) == before
    limit = services.api("GET", "v2/concurrency_limits/promote-omnihuman")
    assert limit["limit"] == 1 and limit["active"]
    assert {row["name"] for row in services.api("POST", "deployments/filter", {})} >= {"local", "nightly", "weekly"}


@pytest.mark.slow
def test_a_schedule_of_15_seconds_fires_and_completes_within_60(services: Services) -> None:
    deployment = services.api("GET", "deployments/name/prepare_data/local")["id"]
    begin = time.monotonic()
    services.api("POST", f"deployments/{deployment}/schedules", [{"active": True, "schedule": {"interval": 15}}])
    try:
        assert wait_until(lambda: any(r["state_type"] == "COMPLETED" for r in services.runs(deployment)), 60)
    finally:
        print(f"after {time.monotonic() - begin:.1f} s")
        services.withdraw_schedules(deployment)
    assert (services.project / "encoded").read_text() == "good"


@pytest.mark.slow
def test_a_cancelled_run_leaves_no_process(services: Services) -> None:
    deployment = services.api("GET", "deployments/name/prepare_data/local")["id"]
    (services.project / "input").write_text("sleep")
    run = services.api("POST", f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
    assert wait_until(lambda: any("time.sleep(600)" in " ".join(command) for command in marked(services.mark)), 90)
    services.api("POST", f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}, "force": True})
    assert wait_until(services.is_idle, 60), marked(services.mark)
    wait_until(lambda: services.api("GET", f"flow_runs/{run}")["state_type"] == "CANCELLED", 30)
    assert services.api("GET", f"flow_runs/{run}")["state_type"] == "CANCELLED", services.logs()


@pytest.mark.slow
def test_down_leaves_no_process_even_of_a_running_step(services: Services) -> None:
    deployment = services.api("GET", "deployments/name/prepare_data/local")["id"]
    (services.project / "input").write_text("sleep until down")
    services.api("POST", f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    assert wait_until(lambda: any("time.sleep(600)" in " ".join(command) for command in marked(services.mark)), 90)
    begin = time.monotonic()
    result = omnihuman("down", folder=services.project, env=services.env)
    print(result.stdout, f"{time.monotonic() - begin:.1f} s")
    assert result.returncode == 0 and "stopped" in result.stdout
    assert not marked(services.mark)
    for port in (services.ports.prefect, services.ports.mlflow):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port))
    assert "nothing is running" in omnihuman("down", folder=services.project, env=services.env).stdout
