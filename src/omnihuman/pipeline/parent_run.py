"""MLflow's runs above those of the steps: of a whole flow, of an ablation, of an arm."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from omnihuman.config.compose import CONF, compose
from omnihuman.config.load import PARAMS, load_params
from omnihuman.pipeline.arms import FIGURES, Arm, ArmResult, load_arms, run_ablation, run_arm
from omnihuman.pipeline.graph import StepResult
from omnihuman.pipeline.worktrees import Worktree, clean_commit
from omnihuman.tracking.record import RUNS, RunRecord
from omnihuman.tracking.runs import PARENT_VARIABLE, finish, note_restored, start_parent


class ParentRun:
    """A run while it lasts."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.figures: Mapping[str, Any] = {}
        """Nested; become its metrics."""
        self.failed = False

    def env(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment of steps that run below it."""
        return {**base, PARENT_VARIABLE: self.run_id}

    def take_results(self, folder: Path) -> None:
        """After the last step: its figures become the run's, and steps that DVC skipped or restored are tagged."""
        for path in sorted((folder / RUNS).glob("*.json")):
            note_restored(self.run_id, RunRecord.load(path))
        self.figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))


@contextmanager
def flow_run(name: str, place: Worktree, tags: Mapping[str, str]) -> Iterator[ParentRun]:
    """Runs the block below a new run: FINISHED, FAILED or KILLED like the block itself.

    Raises:
        UserError: params.yaml or the tracking server is missing.
    """
    params = asdict(load_params(place.folder / PARAMS))
    with _ended(start_parent(name, params, tags, place.folder / PARAMS)) as run:
        yield run


@contextmanager
def ablation_run(name: str, profile: str, tags: Mapping[str, str]) -> Iterator[ParentRun]:
    """Like `flow_run`; the arms that this process runs in the block become its children."""
    with _ended(start_parent(f"ablation {name}", {"profile": profile}, tags)) as run:
        before = os.environ.get(PARENT_VARIABLE)
        os.environ[PARENT_VARIABLE] = run.run_id
        try:
            yield run
        finally:
            os.environ.pop(PARENT_VARIABLE)
            if before is not None:
                os.environ[PARENT_VARIABLE] = before


def run_tracked_ablation(root: Path, name: str, profile: str, parallel: int) -> list[ArmResult]:
    """Runs all arms, `parallel` of them side by side, each below a run of its own, all below the ablation's.

    Raises:
        UserError: as `omnihuman.pipeline.arms.run_ablation`, before there is any run.
    """
    load_arms(name, profile, root / CONF)
    clean_commit(root)
    with ablation_run(name, profile, {}) as run:
        results = run_ablation(root, name, profile, parallel, run_tracked_arm)
        run.failed = any(result.exit_code for result in results)
        return results


def run_tracked_arm(
    root: Path,
    arm: Arm,
    profile: str,
    *,
    output: BinaryIO | None = None,
    on_step: Callable[[StepResult], None] = lambda _: None,
) -> ArmResult:
    """Runs an arm below a run of its own, which carries the ratios of its last stage and its final figures.

    Raises:
        UserError: as `omnihuman.pipeline.arms.run_arm`.
    """
    last_stage = list(compose(profile, arm.overrides, root / CONF).stages.values())[-1]
    overrides = dict(override.split("=", 1) for override in arm.overrides)
    params = {"profile": profile, "override": overrides, "stage": asdict(last_stage)}
    with _ended(start_parent(arm.name, params, {"arm": arm.name})) as run:
        result = run_arm(root, arm, profile, run.env(os.environ), output, on_step)
        for record in result.runs.values():
            note_restored(run.run_id, RunRecord(**record))
        run.figures = result.figures
        run.failed = bool(result.exit_code)
        return result


@contextmanager
def _ended(run_id: str) -> Iterator[ParentRun]:
    run = ParentRun(run_id)
    try:
        yield run
    except Exception:
        finish(run_id, "FAILED")
        raise
    except BaseException:  # Ctrl-C, or a cancel by Prefect
        finish(run_id, "KILLED")
        raise
    finish(run_id, "FAILED" if run.failed else "FINISHED", run.figures)
