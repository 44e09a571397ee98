"""The runs of an ablation, each below a run of its own in MLflow, and their comparison."""

from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from pathlib import Path
from typing import BinaryIO

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE

from omnihuman.pipeline.ablations import Trial
from omnihuman.pipeline.arm_report import report
from omnihuman.pipeline.arms import TrialResult, Work, prepare_ablation, run_ablation
from omnihuman.pipeline.flow_process import StepFailed
from omnihuman.pipeline.graph import StepResult


@flow(name="ablate")
def ablate(name: str = "audio_mix", profile: str = "demo", parallel: int = 1, again: bool = False) -> str:
    """Runs each arm of conf/ablation/NAME.yaml with each seed at the present commit and returns the comparison.

    Raises:
        StepFailed: a step of a run failed; the others are kept.
    """
    from omnihuman.pipeline.parent_run import ablation_run

    work = prepare_ablation(Path.cwd(), name, profile)
    with ablation_run(name, profile, {"prefect_run": runtime.flow_run.id}) as parent:
        results = run_ablation(work, parallel, again=again, run=_AsTask(copy_context()))
        failed = [result for result in results if result.exit_code]
        parent.failed = bool(failed)
    if failed:
        first = failed[0]
        raise StepFailed(f"step {first.steps[-1].name} of {first.trial.label}", first.exit_code)
    table = report(Path.cwd(), name)
    get_run_logger().info(table)
    return table


class _AsTask:
    """Runs a trial as a task of the flow, from whatever thread it is called in."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __call__(
        self,
        work: Work,
        trial: Trial,
        env: Mapping[str, str],
        *,
        output: BinaryIO | None,
        on_step: Callable[[StepResult], None],
    ) -> TrialResult:
        return self._context.copy().run(run, work, trial, env, output, on_step)


@task(name="arm", task_run_name="{trial.label}", cache_policy=NO_CACHE)
def run(
    work: Work,
    trial: Trial,
    env: Mapping[str, str],
    output: BinaryIO | None,
    on_step: Callable[[StepResult], None],
) -> TrialResult:
    """One arm with one seed in a worktree of its own, where it trains only what no other run has trained."""
    from omnihuman.pipeline.parent_run import run_tracked_trial

    log = get_run_logger()

    def told(step: StepResult) -> None:
        log.info("%s %s, %.0f s", step.name, step.outcome, step.seconds)
        on_step(step)

    return run_tracked_trial(work, trial, env, output=output, on_step=told)
