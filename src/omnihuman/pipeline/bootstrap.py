"""What a Prefect server needs before a worker starts: the work pool, the limits, the deployments of prefect.yaml.

`python -m omnihuman.pipeline.bootstrap` from the project's folder, for the server at `$PREFECT_API_URL`, at any time.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker

from omnihuman.pipeline.services import POOL, PROMOTION_LIMIT

INBOX = Path("jobs")
"""Where the hourly rendering looks for files of jobs; an empty one is no mistake."""


def bootstrap(root: Path) -> int:
    """Creates what is missing and applies the deployments of `root`; returns the exit code of the latter."""
    with get_client(sync_client=True) as client:
        try:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            pass
    limit_promotions()
    (root / INBOX).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    env = os.environ | {"OMNIHUMAN_ROOT": str(root)}
    return subprocess.run(command, cwd=root, env=env, check=False).returncode


def limit_promotions() -> None:
    """Lets the server allow one promotion at a time; a flow on a server that was never bootstrapped needs it, too."""
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # two processes may create it at once
        client.upsert_global_concurrency_limit_by_name(PROMOTION_LIMIT, 1)


if __name__ == "__main__":
    sys.exit(bootstrap(Path.cwd()))
