"""The flows run what dvc.yaml says, hand on how it ended, and leave nothing behind."""

import logging
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from flows import ablate, pipeline, prepare_data, release, render, steps, train
from mlflow import MlflowClient
from tests.small_project import ROOT, environment, make_project, marked, wait_until

from omnihuman.config.compose import compose, dump
from omnihuman.errors import UserError
from omnihuman.pipeline import graph
from omnihuman.pipeline.flow_process import StepFailed, _without_traceback, as_command
from omnihuman.pipeline.release import Candidate, NotPromoted, Release, promote_candidate
from omnihuman.pipeline.services import flow_environment
from omnihuman.pipeline.workplace import workplace
from omnihuman.registry import aliases

FLOWS = {
    module.__name__.partition(".")[2]: getattr(module, module.__name__.partition(".")[2])
    for module in (ablate, pipeline, prepare_data, release, render, train)
}
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]


def test_the_flows_run_the_steps_of_dvc_repro() -> None:
    data, training = steps.data_steps(ROOT), steps.training_steps(ROOT)
    assert [*data, *training] == graph.steps(ROOT)
    assert data[0] == "collect" and data[-1] == "encode" and training[-1] == "evaluate"
    assert [name.partition("@")[0] for name in training[:-1]] == ["train"] * 3


def test_flows_import_nothing_that_computes() -> None:
    program = (
        f"import sys; import {', '.join(f'flows.{name}' for name in FLOWS)};"
        "print([name for name in ('torch', 'mlflow', 'lightning') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_flow_is_deployed_and_some_run_by_themselves() -> None:
    assert {name for name in FLOWS} == {deployment["entrypoint"].partition(":")[2] for deployment in DEPLOYMENTS}
    assert sum(bool(deployment.get("schedules")) for deployment in DEPLOYMENTS) >= 2


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["entrypoint"].split("/")[1])
def test_deployments_give_parameters_that_their_flow_takes(deployment: dict) -> None:
    file, _, name = deployment["entrypoint"].partition(":")
    assert (ROOT / file).is_file() and file == f"flows/{name}.py"
    FLOWS[name].validate_parameters(deployment.get("parameters", {}))
    with pytest.raises(Exception, match="not_there"):
        FLOWS[name].validate_parameters({"not_there": 1})
    assert deployment["work_pool"] == {"name": "omnihuman"}


def ending(error: BaseException) -> Callable[..., None]:
    def flow(*_: object, **__: object) -> None:
        raise error

    return flow


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StepFailed("step encode", 3), 3, ""),
        (UserError("what, where, remedy"), 2, "error: what, where, remedy\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_flows_end_is_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert as_command(ending(error)) == code
        assert capsys.readouterr().err == said
        with pytest.raises(ZeroDivisionError):
            as_command(ending(ZeroDivisionError()))
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("error", "kept"), [(StepFailed("step x", 2), False), (ZeroDivisionError(), True)])
def test_only_a_defect_is_logged_with_its_traceback(error: Exception, kept: bool) -> None:
    record = logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "", None, (type(error), error, None))
    assert _without_traceback(record) and bool(record.exc_info) == kept


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_a_named_server_that_does_not_answer_is_one_message(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}/api"
    with pytest.raises(UserError, match=f"PREFECT_API_URL is {address}, but no Prefect server answers"):
        flow_environment({"PREFECT_API_URL": address})
    before = (ROOT / "params.yaml").read_bytes()
    env = os.environ | {"PREFECT_API_URL": address, "OMNIHUMAN_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "omnihuman.cli", "demo", "--profile", "tiny"],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 2 and address in result.stderr and "Traceback" not in result.stderr
    assert (ROOT / "params.yaml").read_bytes() == before


CANDIDATE = Candidate("omnihuman", 3, "0" * 64, Path("model"))
UNUSABLE = UserError("version 3 does not render")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UserError("uncommitted changes"), Release(None, False, "not released: uncommitted changes")),
        (NotPromoted(CANDIDATE, UNUSABLE), Release(CANDIDATE, False, "not promoted: version 3 does not render")),
    ],
)
def test_a_pipeline_says_why_there_is_no_champion(
    error: UserError, expected: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "release", ending(error))
    assert pipeline.release_or_reason() == expected


def test_what_stops_a_promotion_does_not_hide_the_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aliases, "promote", ending(UNUSABLE))
    monkeypatch.chdir(ROOT)
    with pytest.raises(NotPromoted, match=str(UNUSABLE)) as stopped:
        promote_candidate(CANDIDATE)
    assert stopped.value.candidate == CANDIDATE


def bare_checkout(folder: Path) -> Path:
    """What `omnihuman demo` reads before its flow begins."""
    folder.mkdir()
    (folder / "dvc.yaml").touch()
    (folder / "params.yaml").write_text("of the run that holds the checkout\n")
    (folder / "conf").symlink_to(ROOT / "conf")
    return folder


def test_what_a_run_starts_does_not_wait_for_it(tmp_path: Path) -> None:
    program = (
        "from pathlib import Path; from omnihuman.pipeline.workplace import workplace\n"
        "with workplace(Path.cwd()): print('in')"
    )
    with workplace(bare_checkout(tmp_path / "checkout")) as place, workplace(place.folder) as inner:
        command = [sys.executable, "-c", program]
        result = subprocess.run(command, cwd=inner.folder, env=inner.env, capture_output=True, text=True, timeout=60)
    assert result.stdout == "in\n"


def test_a_demo_waits_for_the_checkout_and_leaves_its_params_alone(tmp_path: Path) -> None:
    before = dict(os.environ)
    checkout = bare_checkout(tmp_path / "checkout")
    command = [sys.executable, "-m", "omnihuman.cli", "demo", "--profile", "tiny"]
    with workplace(checkout), subprocess.Popen(command, cwd=checkout, env=before, stderr=subprocess.PIPE) as second:
        assert second.stderr
        try:
            said = second.stderr.readline().decode()
        finally:
            second.kill()
    assert said.startswith(f"checkout {checkout}: waiting for process {os.getpid()}")
    assert (checkout / "params.yaml").read_text() == "of the run that holds the checkout\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("flows") / "with space")


def as_flow(code: str) -> list[str]:
    program = f"import sys; from omnihuman.pipeline.flow_process import as_command; {code}"
    return [sys.executable, "-c", program]


PREPARE = as_flow("from flows.prepare_data import prepare_data; sys.exit(as_command(prepare_data))")


@pytest.mark.slow
@pytest.mark.parametrize(("content", "code"), [("good", 0), ("bad", 2)])
def test_a_flow_hands_on_how_its_steps_ended(project: Path, content: str, code: int) -> None:
    mark = uuid.uuid4().hex
    (project / "input").write_text(content)
    env = flow_environment(environment(project, mark))
    result = subprocess.run(PREPARE, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    assert (code or (project / "encoded").is_file()) and not marked(mark)
    assert ("step collect ended with exit code 2" in result.stderr) == bool(code)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process(project: Path, number: signal.Signals) -> None:
    """The demo's process between the terminal and the flow, its temporary server, a step that does not heed TERM."""
    mark = uuid.uuid4().hex
    (project / "input").write_text(f"sleep {number}")
    program = as_flow(
        "import os; from pathlib import Path; from omnihuman.pipeline.services import flow_environment;"
        "from omnihuman.pipeline.supervisor import run_supervised;"
        f"sys.exit(run_supervised({PREPARE!r}, Path.cwd(), flow_environment(os.environ)))"
    )
    process = subprocess.Popen(program, cwd=project, env=environment(project, mark), stderr=subprocess.DEVNULL)
    assert wait_until(lambda: any("time.sleep(600)" in " ".join(command) for command in marked(mark)), 180)
    assert len(marked(mark)) >= 6
    process.send_signal(number)
    process.wait(timeout=60)
    assert wait_until(lambda: not marked(mark), 30), marked(mark)


PIPELINE = """
import sys
from pathlib import Path
from flows import pipeline, release
from omnihuman.pipeline import release as registry, sample
from omnihuman.pipeline.flow_process import as_command
from omnihuman.pipeline.release import Candidate, Release
from omnihuman.pipeline.step_lock import open_lock, try_lock

def register(root):
    with open_lock(root / ".dvc/tmp/flow.lock") as descriptor:
        assert not try_lock(descriptor), "the checkout is held between the steps"
    return Candidate("omnihuman", 3, "0" * 64, root)

registry.register_checkout = register
registry.promote_candidate = lambda candidate, override: Release(candidate, True, "is the champion")
release.server_address = lambda: "the temporary server, which nobody has prepared"
sample.render_sample = lambda version: None
pipeline.summary = lambda reports, models, video, release: f"version {release.candidate.version} {release.said}"
sys.exit(as_command(pipeline.pipeline))
"""


@pytest.mark.slow
def test_a_pipeline_is_one_run_and_promotes_on_any_server(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project / "params.yaml").write_text(dump(compose("tiny", conf=ROOT / "conf")))
    (project / "reports").mkdir()
    (project / "reports/evaluation.json").write_text('{"opening": 0.5}')
    env = flow_environment(environment(project, uuid.uuid4().hex))
    command = [sys.executable, "-c", PIPELINE]
    result = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "version 3 is the champion" in result.stdout, result.stderr[-3000:]
    client = MlflowClient(f"sqlite:///{env['OMNIHUMAN_HOME']}/mlflow/mlflow.db")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert (run.info.run_name, run.info.status) == ("pipeline", "FINISHED")
    assert run.data.metrics["opening"] == 0.5 and run.data.tags["model_version"] == "3"
    assert set((project / "parents").read_text().split()) == {run.info.run_id}
