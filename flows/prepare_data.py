"""From raw videos to encoded clips: collect, split, score, caption, decide, encode."""

from pathlib import Path

from prefect import flow

from flows.steps import data_steps, run_all
from omnihuman.pipeline.graph import StepResult
from omnihuman.pipeline.workplace import workplace


@flow(name="prepare_data")
def prepare_data(own_worktree: bool = False) -> list[StepResult]:
    """Runs the data steps that are stale.

    Args:
        own_worktree: run the committed code and configuration beside the checkout; results go to the shared cache.
    """
    with workplace(Path.cwd(), own_worktree) as place:
        return run_all(data_steps(place.folder), place.folder, place.env)
