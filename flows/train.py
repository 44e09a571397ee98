"""The training stages and the evaluation, below one run in MLflow: that of the pipeline, or their own."""

from pathlib import Path

from prefect import flow, runtime

from flows.steps import run_all, training_steps
from omnihuman.pipeline.graph import StepResult
from omnihuman.pipeline.workplace import workplace


@flow(name="train")
def train(own_worktree: bool = False) -> list[StepResult]:
    """Runs the stages and the evaluation where they are stale.

    Args:
        own_worktree: run the committed code and configuration beside the checkout; results go to the shared cache.
    """
    from omnihuman.pipeline.parent_run import flow_run

    tags = {"prefect_run": runtime.flow_run.id}
    with workplace(Path.cwd(), own_worktree) as place, flow_run("train", place, tags, join=True) as parent:
        results = run_all(training_steps(place.folder), place.folder, parent.env(place.env))
        parent.take_results(place.folder)
        return results
