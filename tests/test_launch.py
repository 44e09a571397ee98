"""Jobs of several processes: real torchrun, real ranks that meet by gloo; whatever ends, nothing is left."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from kubernetes_validate import validate
from mlflow import MlflowClient
from tests.launching import end_all, job_in, last_step, programs, reported, start
from tests.rank_project import STAGE, write_project
from tests.small_project import MARK, ROOT, marked, wait_until

from omnihuman.config.schema.compute import Compute
from omnihuman.errors import UserError
from omnihuman.tracking.record import RunRecord
from omnihuman.training.launch.attach import run_job
from omnihuman.training.launch.job import NODE_MODULE, JobRecord
from omnihuman.training.launch.kubernetes import KubernetesLauncher
from omnihuman.training.launch.placement import placement, trains_here

TWO = Compute("cpu", "zero2", processes_per_node=2)
KUBERNETES = {
    "OMNIHUMAN_LAUNCHER": "kubernetes",
    "OMNIHUMAN_KUBERNETES_IMAGE": "registry.example/omnihuman:1",
    "OMNIHUMAN_KUBERNETES_CLAIM": "training",
    "OMNIHUMAN_KUBERNETES_MOUNT": str(ROOT.parent),
}
WHOLE = ["rank", "rank", "sleep", "sleep", "torchrun"]


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """Ends what a test that failed half way leaves."""
    yield
    end_all(tmp_path)


def test_the_environment_places_and_the_configuration_fills_in() -> None:
    assert trains_here(placement(Compute(), {}), Compute())
    assert placement(TWO, {}).world_size == 2 and not trains_here(placement(TWO, {}), TWO)
    placed = placement(TWO, {"OMNIHUMAN_LAUNCHER": "slurm", "OMNIHUMAN_NODES": "3", "OMNIHUMAN_PROCESSES": "8"})
    assert (placed.launcher, placed.world_size) == ("slurm", 24)
    one = {"OMNIHUMAN_LAUNCHER": "slurm"}
    assert not trains_here(placement(Compute(), one), Compute())


@pytest.mark.parametrize(
    ("compute", "environment", "said"),
    [
        (TWO, {"OMNIHUMAN_LAUNCHER": "pbs"}, "local, slurm, kubernetes"),
        (TWO, {"OMNIHUMAN_PROCESSES": "two"}, "OMNIHUMAN_PROCESSES is 'two'"),
        (TWO, {"OMNIHUMAN_SAVE_SECONDS": "0"}, "OMNIHUMAN_SAVE_SECONDS is '0'"),
        (TWO, {"OMNIHUMAN_NODES": "2"}, "OMNIHUMAN_LAUNCHER to slurm or kubernetes"),
        (Compute(), {"OMNIHUMAN_PROCESSES": "2"}, "groups.compute=zero2"),
        (TWO, {"OMNIHUMAN_LAUNCHER": "kubernetes"}, "OMNIHUMAN_KUBERNETES_CLAIM"),
        (TWO, KUBERNETES | {"OMNIHUMAN_KUBERNETES_CLAIM": "My_claim"}, "lower-case"),
        (TWO, KUBERNETES | {"OMNIHUMAN_KUBERNETES_MOUNT": "data"}, "absolute path"),
        (TWO, KUBERNETES | {"OMNIHUMAN_KUBERNETES_SECRET": "a b"}, "OMNIHUMAN_KUBERNETES_SECRET is 'a b'"),
    ],
)
def test_a_placement_that_cannot_be_is_one_message(compute: Compute, environment: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        placement(compute, environment)


@pytest.mark.slow
def test_two_ranks_train_report_every_step_and_leave_nothing(tmp_path: Path) -> None:
    caller = start(tmp_path, "short")
    assert caller.wait(60) == 0, caller.stderr and caller.stderr.read()
    assert [(entry["step"], entry["ranks"]) for entry in reported(tmp_path)] == [(step, 2) for step in range(1, 6)]
    assert (tmp_path / "models/short/ranks").read_text() == f"2 {tmp_path / 'work'}"
    record = JobRecord.load(tmp_path / "work/job.json")
    assert record and record.launcher == "local" and record.id.isdigit()
    assert "--nproc-per-node=2" in record.command and record.submitted
    assert programs(tmp_path) == [], "the processes that the ranks left behind have ended too"


@pytest.mark.slow
def test_a_ranks_exit_code_and_message_come_through(tmp_path: Path) -> None:
    caller = start(tmp_path, "mistaken")
    said = caller.communicate(timeout=60)[1]
    assert caller.returncode == 2 and "error: the stage is mistaken" in said and "Traceback" not in said
    assert programs(tmp_path) == []


@pytest.mark.slow
def test_a_killed_caller_leaves_the_job_and_the_next_attaches_and_ends_it(tmp_path: Path) -> None:
    first = start(tmp_path, "long")
    assert wait_until(lambda: bool(reported(tmp_path)), 60)
    record = json.loads((tmp_path / "work/job.json").read_text())
    first.kill()
    first.wait()
    assert programs(tmp_path) == WHOLE
    (tmp_path / "work/job.json").unlink()  # it is found without, too

    second = start(tmp_path, "long")
    assert wait_until(lambda: [entry["step"] for entry in reported(tmp_path)].count(1) == 2, 60)
    assert programs(tmp_path) == sorted(["caller", *WHOLE]), "nothing was started a second time"
    assert psutil.pid_exists(int(record["id"]))
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 130
    assert programs(tmp_path) == []
    saved = int((tmp_path / "work/saved").read_text())
    assert saved == last_step(tmp_path), "every rank saved at the same step before it ended"

    third = start(tmp_path, "long")
    assert wait_until(lambda: last_step(tmp_path) > saved, 60)
    assert json.loads((tmp_path / "work/metrics.jsonl").read_text().splitlines()[-1])["metrics"]["from"] == saved
    third.send_signal(signal.SIGINT)
    assert third.wait(60) == 130 and programs(tmp_path) == []


@pytest.mark.slow
def test_whoever_attaches_to_the_job_of_another_checkout_gets_the_model_too(tmp_path: Path) -> None:
    first = start(tmp_path, "middle")
    assert wait_until(lambda: bool(reported(tmp_path)), 60)
    first.kill()
    first.wait()
    seen: list[int] = []
    job = replace(job_in(tmp_path, "middle", {}), models=tmp_path / "elsewhere")
    run_job(job, lambda step, _: seen.append(step))
    assert (tmp_path / "models/middle/ranks").is_file() and (tmp_path / "elsewhere/middle/ranks").is_file()
    assert seen[:3] == [1, 2, 3] and programs(tmp_path) == []


@pytest.mark.slow
def test_ranks_of_a_killed_torchrun_end_and_the_next_call_starts_again(tmp_path: Path) -> None:
    caller = start(tmp_path, "long")
    assert wait_until(lambda: last_step(tmp_path) > 3, 60)
    os.kill(int(json.loads((tmp_path / "work/job.json").read_text())["id"]), signal.SIGKILL)
    assert "ended from outside" in caller.communicate(timeout=60)[1] and caller.returncode == 143
    assert programs(tmp_path) == []
    second = start(tmp_path, "short")
    assert second.wait(60) == 0 and programs(tmp_path) == []


@pytest.mark.slow
def test_whoever_interrupts_twice_does_not_wait_for_ranks_that_do_not_end(tmp_path: Path) -> None:
    caller = start(tmp_path, "long")
    assert wait_until(lambda: last_step(tmp_path) > 3, 60)
    for process in psutil.process_iter(["cmdline"]):
        if {"tests.launched_rank", str(tmp_path / "work")} <= set(process.info["cmdline"] or []):
            process.suspend()
    caller.send_signal(signal.SIGINT)
    assert not wait_until(lambda: caller.poll() is not None, 3), "it waits while ranks save"
    caller.send_signal(signal.SIGINT)
    assert caller.wait(30) == 130 and programs(tmp_path) == []


def test_names_fit_every_queue_and_tell_works_apart(tmp_path: Path) -> None:
    names = {job_in(folder, "1_Text_image" + 50 * "x", {}).name for folder in (tmp_path, tmp_path / "work")}
    assert len(names) == 2 and all(len(name) <= 63 and name.startswith("omnihuman-1-text-image") for name in names)


def rendered(folder: Path, accelerator: str = "cpu", **variables: str) -> tuple[dict, dict]:
    """Service and Job of a work in `folder`."""
    environment = KUBERNETES | {"OMNIHUMAN_NODES": "2", "OMNIHUMAN_KUBERNETES_MOUNT": "/"} | variables
    job = replace(job_in(folder, "short", environment), accelerator=accelerator)
    service, indexed = yaml.safe_load_all(KubernetesLauncher(job).text())
    return service, indexed


def test_the_rendered_job_is_valid_and_says_what_was_asked(tmp_path: Path) -> None:
    service, job = rendered(tmp_path, "cuda", OMNIHUMAN_PROCESSES="8", OMNIHUMAN_KUBERNETES_NAMESPACE="video")
    for document in (service, job):
        validate(document, "1.31", strict=True)
        assert document["metadata"]["namespace"] == "video"
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["selector"].items() <= (
        job["spec"]["template"]["metadata"]["labels"].items()
    )
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert pod["subdomain"] == service["metadata"]["name"] and pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert "resources" not in rendered(tmp_path)[1]["spec"]["template"]["spec"]["containers"][0]


def test_pods_are_told_where_shards_lie_and_get_keys_by_a_secrets_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    told = {
        "OMNIHUMAN_SHARDS": "s3://bucket/v1",
        "AWS_ENDPOINT_URL": "http://store:9000",
        "AWS_DEFAULT_REGION": "eu-north-1",
        "OMNIHUMAN_GPU_HOUR_PRICE": "2.5",
        "OMNIHUMAN_PEAK_TFLOPS": "989",
    }
    secret = {
        "AWS_ACCESS_KEY_ID": "not-for-a-file",
        "AWS_SECRET_ACCESS_KEY": "nor-this",
        "AWS_SESSION_TOKEN": "or-this",
    }
    for name, value in (told | secret).items():
        monkeypatch.setenv(name, value)
    _, job = rendered(tmp_path, OMNIHUMAN_KUBERNETES_SECRET="shards")
    container = job["spec"]["template"]["spec"]["containers"][0]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    assert told.items() <= given.items() and "AWS_REGION" not in given, "and nothing that is not set"
    assert container["envFrom"] == [{"secretRef": {"name": "shards"}}]
    assert not any(value in yaml.safe_dump(job) for value in secret.values()) and not secret.keys() & given.keys()
    assert "envFrom" not in rendered(tmp_path)[1]["spec"]["template"]["spec"]["containers"][0]


def test_folders_that_pods_would_not_see_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not below OMNIHUMAN_KUBERNETES_MOUNT"):
        rendered(tmp_path, OMNIHUMAN_KUBERNETES_MOUNT=str(tmp_path))


def test_without_kubectl_the_file_is_written_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    job = job_in(tmp_path, "short", KUBERNETES | {"OMNIHUMAN_KUBERNETES_MOUNT": "/"})
    with pytest.raises(UserError, match=str(tmp_path / "work/job.yaml")):
        run_job(job, lambda *_: None)
    assert len(list(yaml.safe_load_all((tmp_path / "work/job.yaml").read_text()))) == 2


def test_a_cluster_that_does_not_answer_gets_no_second_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(f"#!/bin/sh\necho $3 >> {tmp_path}/asked; echo 'no route to host' >&2; exit 1\n")
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{kubectl.parent}{os.pathsep}{os.environ['PATH']}")
    job = job_in(tmp_path, "short", KUBERNETES | {"OMNIHUMAN_KUBERNETES_MOUNT": "/"})
    with pytest.raises(UserError, match="could not ask the cluster"):
        run_job(job, lambda *_: None)
    assert not (tmp_path / "work/job.yaml").exists(), "it was submitted"


@pytest.mark.slow
def test_the_containers_command_meets_the_other_pod_and_trains(tmp_path: Path) -> None:
    """Both pods of the rendered Job as processes of this machine; only the name of the service leads here instead."""
    _, job = rendered(tmp_path, OMNIHUMAN_PROCESSES="1")
    container = job["spec"]["template"]["spec"]["containers"][0]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {each["name"]: each["value"] for each in container["env"]}
    variables |= {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    variables |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    pods = [
        subprocess.Popen(
            container["command"],
            cwd=container["workingDir"],
            env=os.environ | variables | {"JOB_COMPLETION_INDEX": index, MARK: str(tmp_path)},
        )
        for index in ("1", "0")  # the first comes last
    ]
    assert [pod.wait(60) for pod in pods] == [0, 0]
    assert (tmp_path / "models/short/ranks").read_text().startswith("2 ")
    assert last_step(tmp_path) == 5 and programs(tmp_path) == []


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_command_finds_its_ranks_again_and_ends_the_stage(tmp_path: Path) -> None:
    """The real command with ZeRO on two real ranks; the run in MLflow has every step, and once."""
    write_project(
        tmp_path, stage__steps=80, compute__strategy="zero2", compute__processes_per_node=2, compute__accelerator="cpu"
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "encoded").rename(tmp_path / "data/encoded")
    home = tmp_path / "home"
    variables = {"OMNIHUMAN_HOME": str(home), "PYTHONPATH": str(ROOT / "src"), MARK: str(tmp_path)}
    command = [sys.executable, "-m", "omnihuman.cli", "train", STAGE]

    def run() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=tmp_path, env=os.environ | variables)

    def steps() -> int:
        return sum(len(file.read_text().splitlines()) for file in home.glob("work/*/metrics.jsonl"))

    first = run()
    assert wait_until(lambda: steps() > 2, 100), "the operator of DeepSpeed may be compiled before"
    first.kill()
    first.wait()
    (torchrun,) = [line for line in marked(str(tmp_path)) if NODE_MODULE in line]
    second = run()
    assert wait_until(lambda: sum("omnihuman.cli" in line for line in marked(str(tmp_path))) == 1, 30)
    assert [line for line in marked(str(tmp_path)) if NODE_MODULE in line] == [torchrun], "it submitted nothing"
    assert second.wait(200) == 0 and marked(str(tmp_path)) == []
    assert (tmp_path / "models" / STAGE / "model.safetensors").is_file()
    record = RunRecord.load(tmp_path / f"runs/{STAGE}.json")
    client = MlflowClient(f"sqlite:///{home / 'mlflow/mlflow.db'}")
    assert [metric.step for metric in client.get_metric_history(record.run_id, "loss")] == list(range(1, 81))
    assert client.get_run(record.run_id).data.tags["processes"] == "2"
    assert not list(home.glob("work/*/metrics.jsonl")), "the work folder goes once the stage is published"
