"""Two real nodes of SLURM on this machine: one torchrun on each, requeue, preemption, an end that leaves nothing."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.launching import end_all, job_in, last_step, programs, reported, start
from tests.slurm_cluster import cluster, missing
from tests.small_project import wait_until

from omnihuman.errors import UserError
from omnihuman.training.launch.job import JobRecord
from omnihuman.training.launch.slurm import SlurmLauncher

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(
        bool(missing()), reason=f"apt-get install slurm-wlm munge: {', '.join(missing())} is not installed"
    ),
]
PLACED = {"OMNIHUMAN_LAUNCHER": "slurm", "OMNIHUMAN_NODES": "2", "OMNIHUMAN_PROCESSES": "1"}
PLACED |= {"OMNIHUMAN_SAVE_SECONDS": "15"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Environment of a client of the cluster."""
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        yield environment


@pytest.fixture
def folder(tmp_path: Path, slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of a job; what a test that failed half way leaves is ended."""
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    place = tmp_path / "with space"
    place.mkdir()
    yield place
    end_all(place)
    if record := JobRecord.load(place / "work/job.json"):
        SlurmLauncher(job_in(place, "any", PLACED)).kill(record.id)


def client(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def job_id(folder: Path) -> str:
    record = JobRecord.load(folder / "work/job.json")
    assert record and record.launcher == "slurm"
    return record.id


def on_nodes(folder: Path) -> list[str]:
    """What runs beside the callers."""
    return [name for name in programs(folder) if name in ("torchrun", "rank")]


def goes_on(folder: Path, before: int) -> Callable[[], bool]:
    return lambda: last_step(folder) > before and reported(folder)[-1]["from"] > 0


def test_two_nodes_train_together_and_the_job_is_done(folder: Path) -> None:
    caller = start(folder, "short", **PLACED)
    said = caller.communicate(timeout=60)[1]
    assert caller.returncode == 0, said + (folder / "work/job.log").read_text()
    assert [(entry["step"], entry["ranks"]) for entry in reported(folder)] == [(step, 2) for step in range(1, 6)]
    script = (folder / "work/job.sbatch").read_text()
    assert "#SBATCH --nodes=2\n" in script and "#SBATCH --requeue\n" in script and "--gpus" not in script
    assert on_nodes(folder) == []


def state(folder: Path) -> str:
    """E.g. PENDING."""
    return client("squeue", "--noheader", "--format=%T", f"--name={job_in(folder, 'long', PLACED).name}").strip()


def waits_no_longer(folder: Path) -> None:
    """A job that was requeued would else start two minutes later."""
    assert wait_until(lambda: state(folder) == "PENDING", 60)
    time.sleep(3)  # at once the nodes would still refuse it
    client("scontrol", "update", f"JobId={job_id(folder)}", "StartTime=now", "TimeLimit=9")


def test_a_requeued_job_saves_before_and_goes_on_under_the_eyes_of_its_caller(folder: Path) -> None:
    caller = start(folder, "long", **PLACED)
    assert wait_until(lambda: last_step(folder) > 3, 60)
    client("scontrol", "requeue", job_id(folder))
    waits_no_longer(folder)
    saved = int((folder / "work/saved").read_text())
    assert wait_until(goes_on(folder, saved), 60), (folder / "work/job.log").read_text()
    assert reported(folder)[-1]["from"] == saved
    caller.send_signal(signal.SIGTERM)
    assert caller.wait(60) == 130
    assert on_nodes(folder) == []
    assert int((folder / "work/saved").read_text()) == last_step(folder), "it saved once more before it ended"
    assert state(folder) == "", "a job that its caller ends is not requeued"


def test_a_killed_caller_is_followed_by_one_that_submits_nothing(folder: Path) -> None:
    first = start(folder, "long", **PLACED)
    assert wait_until(lambda: bool(reported(folder)), 60)
    first.kill()
    first.wait()
    known = job_id(folder)
    second = start(folder, "long", **PLACED)
    assert wait_until(lambda: [entry["step"] for entry in reported(folder)].count(1) == 2, 60)
    assert client("squeue", "--noheader", "--format=%A").split() == [known]
    client("scancel", known)
    assert "ended from outside" in second.communicate(timeout=60)[1] and second.returncode == 143
    assert on_nodes(folder) == [] and (folder / "work/saved").is_file()


def test_a_job_whose_time_is_nearly_up_saves_and_requeues_itself(folder: Path) -> None:
    caller = start(folder, "long", **PLACED, OMNIHUMAN_SLURM_ARGUMENTS="--time=1")
    assert wait_until(lambda: last_step(folder) > 3, 60)
    waits_no_longer(folder)
    saved = int((folder / "work/saved").read_text())
    assert wait_until(goes_on(folder, saved), 60), (folder / "work/job.log").read_text()
    caller.send_signal(signal.SIGINT)
    assert caller.wait(60) == 130 and on_nodes(folder) == []


def test_a_job_of_higher_priority_takes_the_nodes_after_the_ranks_have_saved(folder: Path) -> None:
    caller = start(folder, "long", **PLACED, OMNIHUMAN_SLURM_ARGUMENTS="--partition=usual --comment='a b'")
    assert wait_until(lambda: last_step(folder) > 3, 60)
    client("srun", "--partition=urgent", "--nodes=2", "--ntasks-per-node=1", "true")
    saved = int((folder / "work/saved").read_text())
    waits_no_longer(folder)
    assert wait_until(goes_on(folder, saved), 60), (folder / "work/job.log").read_text()
    caller.send_signal(signal.SIGTERM)
    assert caller.wait(60) == 130 and on_nodes(folder) == []


def test_a_mistake_is_not_requeued_and_its_message_comes_through(folder: Path) -> None:
    caller = start(folder, "mistaken", **PLACED)
    said = caller.communicate(timeout=60)[1]
    assert caller.returncode == 2 and "error: the stage is mistaken" in said
    assert state(folder) == ""


def test_what_sbatch_refuses_is_said(folder: Path) -> None:
    launcher = SlurmLauncher(job_in(folder, "long", PLACED | {"OMNIHUMAN_SLURM_ARGUMENTS": "--partition=none"}))
    with pytest.raises(UserError, match=r"(?s)invalid partition.*OMNIHUMAN_SLURM_ARGUMENTS"):
        launcher.submit()
