"""The arms of an ablation, each below a run of its own in MLflow, and their comparison."""

from pathlib import Path

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE

from omnihuman.config.compose import CONF
from omnihuman.pipeline.arm_report import report
from omnihuman.pipeline.arms import RESULTS, Arm, ArmResult, load_arms
from omnihuman.pipeline.flow_process import StepFailed
from omnihuman.pipeline.worktrees import clean_commit


@flow(name="ablate")
def ablate(name: str = "audio_mix", profile: str = "demo") -> str:
    """Runs each arm of conf/ablation/NAME.yaml at the present commit and returns the table that compares them.

    Raises:
        StepFailed: a step of an arm failed; the arms before it are kept.
    """
    from omnihuman.pipeline.parent_run import ablation_run

    arms = load_arms(name, profile, Path.cwd() / CONF)
    commit = clean_commit(Path.cwd())
    with ablation_run(name, profile, {"prefect_run": runtime.flow_run.id}):
        for arm in arms:
            run(name, commit, arm, profile)
    table = report(Path.cwd(), name)
    get_run_logger().info(table)
    return table


@task(name="arm", task_run_name="{arm.name}", cache_policy=NO_CACHE)
def run(name: str, commit: str, arm: Arm, profile: str) -> ArmResult:
    """One arm in a worktree of its own, where it trains only what no other arm has trained."""
    from omnihuman.pipeline.parent_run import run_tracked_arm

    log = get_run_logger()
    result = run_tracked_arm(
        Path.cwd(),
        commit,
        arm,
        profile,
        on_step=lambda step: log.info("%s %s, %.0f s", step.name, step.outcome, step.seconds),
    )
    result.save(Path.cwd() / RESULTS / name / f"{arm.name}.json")
    if result.exit_code:
        raise StepFailed(f"step {result.steps[-1].name} of arm {arm.name}", result.exit_code)
    return result
