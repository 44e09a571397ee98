"""Render files of jobs in bulk with one pinned version of the model."""

import sys
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from omnihuman.errors import UserError
from omnihuman.pipeline.flow_process import StepFailed
from omnihuman.pipeline.supervisor import run_supervised


@flow(name="render")
def render(jobs: Path = Path("jobs"), model: str = "", workers: int = 1, together: int = 1) -> None:
    """Renders what is not rendered yet of a file of jobs, or of every one in a folder; a bad file stops no other.

    Args:
        jobs: NAME.jsonl or a folder of such files; the videos of each go to renders/NAME.
        model: a version or alias; by default the champion, or what an unended batch began with. After a promotion
            the champion is another, and every ended batch is rendered anew.
        workers: processes that render.
        together: videos that each of them makes at the same time.

    Raises:
        StepFailed: with the exit code of a batch that failed (2) or is partly done (3).
    """
    if not jobs.exists():
        raise UserError(f"{jobs} does not exist: put files of jobs (NAME.jsonl) there, or name another place")
    paths = sorted(jobs.glob("*.jsonl")) if jobs.is_dir() else [jobs]
    codes = {path: batch(path, model, workers, together) for path in paths}
    for path, code in codes.items():
        if code:
            raise StepFailed(f"rendering {path}", code)


@task(name="batch", task_run_name="{jobs.name}", cache_policy=NO_CACHE)
def batch(jobs: Path, model: str, workers: int, together: int) -> int:
    """One file of jobs; returns the exit code of `omnihuman batch submit`."""
    version = ["--model", model] if model else []
    side_by_side = ["--workers", str(workers), "--together", str(together)]
    command = ["batch", "submit", str(jobs), *side_by_side, *version]
    return run_supervised([sys.executable, "-m", "omnihuman.cli", *command], Path.cwd())
