"""The flow of an ablation: runs side by side as tasks, and nothing left behind when it is cancelled."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.small_project import MARK, ROOT, environment, marked, wait_until
from tests.test_arms import commit, counts, project, worktrees

from omnihuman.pipeline.arms import RESULTS
from omnihuman.pipeline.services import flow_environment

__all__ = ["project"]
FLOW = (
    "import sys; from omnihuman.pipeline.flow_process import as_command; from flows.ablate import ablate;"
    "sys.exit(as_command(lambda: print(ablate('two', 'tiny', parallel=2))))"
)

pytestmark = [pytest.mark.slow, pytest.mark.long]


def flow(project: Path, mark: str, **settings: str) -> subprocess.Popen[str]:
    """A process of its own that runs the flow in the project."""
    shutil.copytree(ROOT / "flows", project / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "prefect.yaml", project)
    commit(project)
    names = ("OMNIHUMAN_HOME", "DVC_SITE_CACHE_DIR", "COUNTER", "COMMON_SECONDS", "DIFFERS_SECONDS")
    env = environment(project, mark) | {name: os.environ[name] for name in names} | settings | {MARK: mark}
    command = [sys.executable, "-c", FLOW]
    return subprocess.Popen(command, cwd=project, env=flow_environment(env), stdout=subprocess.PIPE, text=True)


def test_the_flow_runs_arms_side_by_side_and_compares_them(project: Path) -> None:
    with flow(project, uuid.uuid4().hex, COMMON_SECONDS="2") as process:
        said, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert "two: profile tiny" in said and "share" in said
    assert counts() == {"common": 1, "common ended": 1, "differs": 2, "measure": 2}
    assert (project / RESULTS / "two.html").is_file() and not worktrees(project)


def test_a_cancelled_flow_leaves_no_process_and_no_worktree(project: Path) -> None:
    mark = uuid.uuid4().hex
    with flow(project, mark, DIFFERS_SECONDS="600") as process:
        try:
            assert wait_until(lambda: counts()["differs"] == 2, 300)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert wait_until(lambda: not marked(mark), 30), marked(mark)
    assert not worktrees(project) and counts()["measure"] == 0
