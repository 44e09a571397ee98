"""A job of SLURM: a written sbatch script, srun with one torchrun a node, requeued until the stage is trained."""

import getpass
import logging
import shlex
import subprocess
import time
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from omnihuman.errors import UserError
from omnihuman.storage.files import publish
from omnihuman.training.launch.job import ENDED_FROM_OUTSIDE, JOB_VARIABLE, MEETING, Job, JobRecord

log = logging.getLogger(__name__)
_FORGOTTEN = "FORGOTTEN"  # SLURM drops a job some minutes after its end
_ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"),
    *("PREEMPTED", "REVOKED", _FORGOTTEN),
}
_SECONDS_TO_CANCEL = 120.0


class SlurmLauncher:
    """Submits, finds and ends one job by sbatch, squeue and scancel. The folders are on a file system that the nodes
    share."""

    poll_seconds = 2.0

    def __init__(self, job: Job) -> None:
        self._job = job
        self._script = job.work / "job.sbatch"
        self._ending = job.work / "job.ending"

    def find(self) -> str | None:
        """By name, so that a submission whose caller was killed before it noted the id is found too."""
        selection = [f"--user={getpass.getuser()}", f"--name={self._job.name}"]
        found = _run(["squeue", "--noheader", "--format=%A", *selection])
        if found.returncode:
            raise UserError(f"squeue: {found.stderr.strip()}; call again once SLURM answers")
        return next(iter(found.stdout.split()), None)

    def submit(self) -> JobRecord:
        """Writes the script and hands it to sbatch.

        Raises:
            UserError: there is no sbatch here, or it refuses.
        """
        for file in (self._job.exit_file, self._ending):
            file.unlink(missing_ok=True)
        with publish(self._script) as temporary:
            temporary.write_text(self.script())
        submitted = _run(["sbatch", "--parsable", str(self._script)])
        if submitted.returncode:
            raise UserError(
                f"sbatch refused {self._script}: {submitted.stderr.strip()}; set OMNIHUMAN_SLURM_ARGUMENTS, e.g."
                " '--partition=gpu --account=lab --time=2-0'"
            )
        job_id = submitted.stdout.strip().partition(";")[0]  # ID;CLUSTER where there are several
        return JobRecord.now(self._job, job_id, ["sbatch", str(self._script)])

    def script(self) -> str:
        """The text of the sbatch script."""
        port = 20_000 + int(self._job.name[-4:], 16) % 10_000  # below the ports that systems give out by themselves
        folder = Path(__file__).parent
        environment = Environment(
            loader=FileSystemLoader(folder), undefined=StrictUndefined, keep_trailing_newline=True
        )
        return environment.get_template("slurm.sbatch.jinja").render(
            script=self._script,
            options=self._options(),
            variable=JOB_VARIABLE,
            work=shlex.quote(str(self._job.work)),
            exit_file=shlex.quote(str(self._job.exit_file)),
            ending=shlex.quote(str(self._ending)),
            port=port,
            patience=self._job.placement.save_seconds,
            command=shlex.join(self._job.torchrun(MEETING)),
        )

    def exit_code(self, job_id: str) -> int | None:
        """None while SLURM holds it in its queue, which a requeued job never leaves."""
        state, code = _look(job_id)
        if state == _FORGOTTEN:
            return self._job.exit_code()
        if state not in _ENDED:
            return None
        return code or (0 if state == "COMPLETED" else ENDED_FROM_OUTSIDE)

    def end(self, job_id: str) -> None:
        """TERM to the ranks of a running job, and cancellation once they have saved."""
        self._ending.touch()  # or the script would requeue a job that saved
        if _look(job_id)[0] == "RUNNING":
            _run(["scancel", "--signal=TERM", job_id])
            _wait_until_ended(job_id, self._job.placement.save_seconds)
        self.kill(job_id)

    def kill(self, job_id: str) -> None:
        """Cancels the job."""
        self._ending.touch()
        _run(["scancel", job_id])
        _wait_until_ended(job_id, _SECONDS_TO_CANCEL)

    def _options(self) -> list[str]:
        job, placed = self._job, self._job.placement
        gpus = [f"--gpus-per-node={placed.processes}"] if job.accelerator == "cuda" else []
        return [
            f"--job-name={job.name}",
            f"--nodes={placed.nodes}",
            "--ntasks-per-node=1",
            *gpus,
            f"--chdir={shlex.quote(str(job.checkout))}",
            f"--output={shlex.quote(str(job.log))}",
            "--open-mode=append",
            "--requeue",
            f"--signal=TERM@{placed.save_seconds}",
            *filter(None, [" ".join(placed.slurm_arguments.splitlines())]),
        ]


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(
            f"OMNIHUMAN_LAUNCHER is slurm, but there is no {command[0]} here: run this on a node that submits jobs"
        ) from error


def _look(job_id: str) -> tuple[str, int]:
    """State of a job, such as PENDING or COMPLETED, and its exit code so far."""
    shown = _run(["scontrol", "--oneliner", "show", "job", job_id])
    if "Invalid job id" in shown.stderr:
        return _FORGOTTEN, 0
    fields = dict(field.split("=", 1) for field in shown.stdout.split() if "=" in field)
    if "JobState" not in fields:  # a controller that does not answer says nothing about the job
        log.warning("scontrol: %s", shown.stderr.strip())
        return "UNKNOWN", 0
    return fields["JobState"], int(fields["ExitCode"].partition(":")[0])


def _wait_until_ended(job_id: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _look(job_id)[0] not in _ENDED and time.monotonic() < deadline:
        time.sleep(0.5)
