"""A caller of `run_job` in a process of its own, which a test can kill, and what it leaves.

Run as `-m tests.launching STAGE FOLDER`: trains a stage of `tests.launched_rank` where the environment says.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from tests.small_project import MARK, ROOT, marked

from omnihuman.config.schema.compute import Compute
from omnihuman.training.launch.attach import JobFailed, run_job
from omnihuman.training.launch.job import Job
from omnihuman.training.launch.placement import placement


def job_in(folder: Path, stage: str, environment: dict[str, str] | None = None) -> Job:
    """A job of the stand-in rank whose folders lie in `folder`."""
    placed = placement(
        Compute("cpu", "zero2", processes_per_node=2), os.environ if environment is None else environment
    )
    (folder / "work").mkdir(exist_ok=True)
    return Job(
        stage, folder / "encoded", folder / "models", folder / "work", ROOT, placed, "cpu", "tests.launched_rank"
    )


def start(folder: Path, stage: str, **variables: str) -> subprocess.Popen[str]:
    """The caller; everything that it starts carries the folder as its mark."""
    command = [sys.executable, "-m", "tests.launching", stage, str(folder)]
    environment = os.environ | {MARK: str(folder), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"} | variables
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def reported(folder: Path) -> list[dict]:
    """What all callers were told about steps, in order."""
    file = folder / "reported"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def last_step(folder: Path) -> int:
    """Of the ranks, 0 before the first."""
    file = folder / "work/metrics.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def programs(folder: Path) -> list[str]:
    """The living processes that carry the mark, by what they run."""
    kinds = {"tests.launching": "caller", "omnihuman.training.launch.node": "torchrun", "tests.launched_rank": "rank"}
    return sorted(
        next((kind for module, kind in kinds.items() if module in line), Path(line[0]).name)
        for line in marked(str(folder))
        if line
    )


def end_all(folder: Path) -> None:
    """Whatever a test that has failed half way left running."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == str(folder):
                process.kill()


def main(stage: str, folder: Path) -> int:
    """Exit code as of `omnihuman train`."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):  # which tests that run in the background inherit ignored
        signal.signal(number, interrupt)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with (folder / "reported").open("a", buffering=1) as file:
        try:
            run_job(
                job_in(folder, stage), lambda step, metrics: print(json.dumps({"step": step, **metrics}), file=file)
            )
        except JobFailed as error:
            print(error, file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
