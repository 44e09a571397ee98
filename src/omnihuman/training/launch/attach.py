"""The launcher inside the step: submits a job or finds the live one, follows it, and ends it when it is ended."""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from omnihuman.training.launch.job import ENDED_FROM_OUTSIDE, Job, JobRecord, Launcher
from omnihuman.training.launch.kubernetes import KubernetesLauncher
from omnihuman.training.launch.local import LocalLauncher
from omnihuman.training.launch.slurm import SlurmLauncher

log = logging.getLogger(__name__)
Report = Callable[[int, Mapping[str, float]], None]
"""Takes the number of a finished step, from 1 on, and its metrics by name."""


class JobFailed(Exception):
    """A job ended with another code than 0, which is the command's too; what its ranks said stands above."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


_LAUNCHERS = {"local": LocalLauncher, "slurm": SlurmLauncher, "kubernetes": KubernetesLauncher}


def launcher_of(job: Job) -> Launcher:
    """The one that the placement names."""
    return _LAUNCHERS[job.placement.launcher](job)


def run_job(job: Job, report: Report) -> None:
    """Runs a job to its end: attaches to the live one of this work, or submits it.

    A caller that is killed leaves the job running, and a second call finds it. Ctrl-C, and TERM where it raises
    KeyboardInterrupt, end the job; once more ends it without saving.

    Args:
        report: takes the metrics of every step, after a resume also those from before.

    Raises:
        JobFailed: it ended with another code than 0.
        UserError: it could not be submitted.
    """
    attached, record = _follow(job, report), JobRecord.load(job.record)
    if attached and (record is None or record.models != str(job.models)):
        log.info("%s: another checkout had submitted that job; publishing here too", job.stage)
        _follow(job, report)  # goes on from the last checkpoint, with nothing left to train


def _follow(job: Job, report: Report) -> bool:
    """Sees one job through; whether it ran already."""
    launcher = launcher_of(job)
    output = _NewLines(job.log)
    output.skip()
    metrics = _NewLines(job.metrics)
    try:
        live = launcher.find()
        if live:
            log.info("%s: attached to the running job %s", job.stage, live)
        job_id = live or _submit(job, launcher)
        while (code := launcher.exit_code(job_id)) is None:
            _relay(output, metrics, report)
            time.sleep(launcher.poll_seconds)
    except KeyboardInterrupt:
        _end(launcher)
        raise
    finally:
        _relay(output, metrics, report)
    if code == ENDED_FROM_OUTSIDE:
        raise JobFailed(code, f"the job {job_id} was ended from outside; call again, and it goes on where it saved")
    if code:
        raise JobFailed(code, f"the job {job_id} ended with exit code {code}: see {job.log}")
    return bool(live)


def _submit(job: Job, launcher: Launcher) -> str:
    record = launcher.submit()
    record.save(job.record)
    log.info("%s: job %s (%s), log in %s", job.stage, record.id, record.launcher, job.log)
    return record.id


def _end(launcher: Launcher) -> None:
    job_id = launcher.find()  # which may have been submitted without our knowing its id yet
    if job_id:
        log.info("ending job %s, which saves first", job_id)
        try:
            launcher.end(job_id)
        except KeyboardInterrupt:
            launcher.kill(job_id)


def _relay(output: "_NewLines", metrics: "_NewLines", report: Report) -> None:
    for line in output.take():
        print(line, file=sys.stderr, flush=True)
    for line in metrics.take():
        try:
            entry = json.loads(line)
        except ValueError:  # a killed writer left the half of a line
            continue
        report(entry["step"], entry["metrics"])


class _NewLines:
    """The whole lines that a file has got since the last look."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def skip(self) -> None:
        """Leaves out what is there now."""
        self._offset = self._path.stat().st_size if self._path.is_file() else 0

    def take(self) -> list[str]:
        """Without their ends."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            block = file.read()
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace").splitlines()
