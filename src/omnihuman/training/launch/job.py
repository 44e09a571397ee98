"""One stage as a job of several processes: its command, and the files by which its caller knows it."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from omnihuman.storage.files import publish
from omnihuman.training.launch.placement import Placement

NODE_MODULE = "omnihuman.training.launch.node"
JOB_VARIABLE = "OMNIHUMAN_JOB"
"""Every process of a job carries its work folder here, by which all of them are found again."""
ENDED_FROM_OUTSIDE = 143
"""128 + SIGTERM: the job saved and ended because somebody asked it to."""


@dataclass(frozen=True)
class Job:
    """What to run, and where. Paths are absolute and, with several nodes, the same on each of them."""

    stage: str
    encoded: Path
    models: Path
    work: Path
    checkout: Path
    placement: Placement
    accelerator: str = "auto"
    """As in `compute.accelerator`: `cuda` asks SLURM or Kubernetes for one GPU a process."""
    rank_module: str = "omnihuman.cli.rank"

    @property
    def name(self) -> str:
        """Of this work in this place, for queues: a name of DNS of at most 63 characters."""
        stage = "".join(c if c.isalnum() else "-" for c in self.stage.lower())
        return f"omnihuman-{stage[:32]}-{hashlib.sha256(str(self.work).encode()).hexdigest()[:12]}"

    @property
    def record(self) -> Path:
        """Launcher, id, time and command of the last submission."""
        return self.work / "job.json"

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.work / "job.log"

    @property
    def exit_file(self) -> Path:
        """The exit code, once it has ended by itself."""
        return self.work / "job.exit"

    @property
    def metrics(self) -> Path:
        """One line of JSON a step, by rank 0."""
        return self.work / "metrics.jsonl"

    def torchrun(self, meeting: list[str], python: str = sys.executable) -> list[str]:
        """The command of one node.

        Args:
            meeting: torchrun's options by which the nodes find one another.
        """
        return [
            *(python, "-m", NODE_MODULE, str(self.exit_file)),
            *meeting,
            f"--nnodes={self.placement.nodes}",
            f"--nproc-per-node={self.placement.processes}",
            f"--shutdown-timeout={self.placement.save_seconds}",
            *("-m", self.rank_module, self.stage),
            *("--encoded", str(self.encoded), "--models", str(self.models), "--work", str(self.work)),
        ]

    def exit_code(self) -> int:
        """Of a job that is no longer there."""
        return int(self.exit_file.read_text()) if self.exit_file.is_file() else ENDED_FROM_OUTSIDE


MEETING = ["--rdzv-backend=c10d", "--rdzv-conf=read_timeout=600,join_timeout=1800"]
"""torchrun's options for several nodes, the first of which may come ten minutes late. Where they meet stands in the
environment (PET_RDZV_ENDPOINT, PET_RDZV_ID), because the one who submits does not know it."""


@dataclass(frozen=True)
class JobRecord:
    """A submission, as kept in the work folder."""

    launcher: str
    id: str
    submitted: str
    command: list[str]
    models: str
    """Where it publishes."""

    @staticmethod
    def now(job: Job, job_id: str, command: list[str]) -> "JobRecord":
        """Of this moment."""
        moment = datetime.now(UTC).isoformat(timespec="seconds")
        return JobRecord(job.placement.launcher, job_id, moment, command, str(job.models))

    def save(self, path: Path) -> None:
        """Publishes it as JSON."""
        with publish(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(path: Path) -> "JobRecord | None":
        """What `save` wrote, None where there is nothing."""
        return JobRecord(**json.loads(path.read_text())) if path.is_file() else None


class Launcher(Protocol):
    """Starts a job somewhere and knows how it is."""

    poll_seconds: float

    def find(self) -> str | None:
        """Id of the live job of this work, also where nobody has recorded it."""
        ...

    def submit(self) -> JobRecord:
        """Starts the job; what an earlier one left is removed before."""
        ...

    def exit_code(self, job_id: str) -> int | None:
        """None while the job waits or runs."""
        ...

    def end(self, job_id: str) -> None:
        """Asks the job to save and end, and returns when nothing of it is left."""
        ...

    def kill(self, job_id: str) -> None:
        """Ends the job at once."""
        ...
