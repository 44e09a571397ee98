"""Processes on this machine, by torchrun, in a session of their own: a lost terminal does not end them."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import psutil

from omnihuman.training.launch.job import JOB_VARIABLE, NODE_MODULE, Job, JobRecord

_SECONDS_TO_LEAVE = 10.0
"""Beyond saving: for torchrun to notice, and for processes to unload."""


class LocalLauncher:
    """Starts, finds and ends the processes of one job. They are told by the work folder in their environment, because
    ranks have sessions of their own, and the caller that finds them again is not their parent."""

    poll_seconds = 0.2

    def __init__(self, job: Job) -> None:
        self._job = job

    def find(self) -> str | None:
        """Process id of torchrun."""
        for process in self._members():
            with suppress(psutil.Error):  # it ended meanwhile
                if NODE_MODULE in process.cmdline():
                    return str(process.pid)
        return None

    def submit(self) -> JobRecord:
        """Starts torchrun; ranks whose torchrun was killed would write into the same checkpoints, and end first."""
        self.kill("")
        self._job.exit_file.unlink(missing_ok=True)
        command = self._job.torchrun(["--standalone"])
        with self._job.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self._job.checkout,
                env=os.environ | {JOB_VARIABLE: str(self._job.work)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return JobRecord.now(self._job, str(process.pid), command)

    def exit_code(self, job_id: str) -> int | None:
        """None while torchrun lives; then nothing else of the job does."""
        if self._runs(int(job_id)):
            return None
        self.kill(job_id)
        return self._job.exit_code()

    def end(self, job_id: str) -> None:
        """torchrun hands TERM on to its ranks and waits while they save."""
        with suppress(psutil.Error):
            if self._runs(int(job_id)):
                psutil.Process(int(job_id)).send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self._job.placement.save_seconds + _SECONDS_TO_LEAVE
        while self._runs(int(job_id)) and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        self.kill(job_id)

    def kill(self, job_id: str) -> None:
        """Ends every process that carries this job."""
        while members := self._members():
            for process in members:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(members, timeout=_SECONDS_TO_LEAVE)

    def _members(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_member(process)]

    def _runs(self, pid: int) -> bool:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # where it is our own child, so that no zombie is left
        try:
            return self._is_member(psutil.Process(pid))
        except psutil.NoSuchProcess:
            return False

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            living = process.status() != psutil.STATUS_ZOMBIE
            return living and process.environ().get(JOB_VARIABLE) == str(self._job.work)
        except psutil.Error:  # it has gone, or is another user's
            return False
