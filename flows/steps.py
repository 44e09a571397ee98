"""One Prefect task for each step of dvc.yaml. Prefect says when; DVC alone knows what is stale and keeps results."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from itertools import dropwhile, takewhile
from pathlib import Path
from tempfile import TemporaryFile

from prefect import get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE

from omnihuman.pipeline.flow_process import StepFailed
from omnihuman.pipeline.graph import StepResult, run_step, steps

_LONGEST_OUTPUT = 100_000  # characters that a log keeps of one step, from the end


@task(name="step", task_run_name="{step}", cache_policy=NO_CACHE)
def run(step: str, folder: Path, env: Mapping[str, str]) -> StepResult:
    """Runs one step in a checkout if it is stale.

    Raises:
        StepFailed: with the step's exit code.
    """
    log = get_run_logger()
    with TemporaryFile() if runtime.deployment.id else nullcontext() as output:  # a worker's terminal nobody sees
        result = run_step(folder, step, env, output)
        if output:
            output.seek(0)
            log.info(output.read().decode(errors="replace").strip()[-_LONGEST_OUTPUT:])
    if result.exit_code:
        raise StepFailed(f"step {step}", result.exit_code)
    log.info("%s in %.1f s", result.outcome, result.seconds)
    return result


def run_all(names: Sequence[str], folder: Path, env: Mapping[str, str]) -> list[StepResult]:
    """Runs steps one after the other; called directly, because a cancel of submitted tasks takes four times as long."""
    return [run(name, folder, env) for name in names]


def data_steps(root: Path) -> list[str]:
    """The steps of dvc.yaml before the first training stage."""
    return list(takewhile(_is_no_stage, steps(root)))


def training_steps(root: Path) -> list[str]:
    """The training stages of dvc.yaml and what follows them."""
    return list(dropwhile(_is_no_stage, steps(root)))


def _is_no_stage(step: str) -> bool:
    return not step.startswith("train@")
