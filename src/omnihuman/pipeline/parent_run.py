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
from omnihuman.config.schema.stage import Stage
from omnihuman.pipeline.ablations import Trial
from omnihuman.pipeline.arms import FIGURES, TrialResult, Work, prepare_ablation, run_ablation, run_trial
from omnihuman.pipeline.graph import StepResult
from omnihuman.pipeline.release import Release
from omnihuman.pipeline.worktrees import Worktree
from omnihuman.tracking.entries import open_client
from omnihuman.tracking.record import RUNS, RunRecord
from omnihuman.tracking.runs import PARENT_VARIABLE, finish, note_restored, start_parent
from omnihuman.tracking.server import server_errors


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

    def take_release(self, release: Release) -> None:
        """Names the version that was registered, and what became of it."""
        with server_errors():
            client = open_client()
            client.set_tag(self.run_id, "release", release.said)
            if release.candidate:
                client.set_tag(self.run_id, "model_version", str(release.candidate.version))


@contextmanager
def flow_run(name: str, place: Worktree, tags: Mapping[str, str], *, join: bool = False) -> Iterator[ParentRun]:
    """Runs the block below a new run: FINISHED, FAILED or KILLED like the block itself.

    Args:
        join: where there is a run above already, such as the pipeline's, that one is the block's, and is not ended.

    Raises:
        UserError: params.yaml or the tracking server is missing.
    """
    above = os.environ.get(PARENT_VARIABLE)
    if join and above:
        yield ParentRun(above)
        return
    params = asdict(load_params(place.folder / PARAMS))
    with _ended(start_parent(name, params, tags, place.folder / PARAMS)) as run, _parent_of_all(run):
        yield run


@contextmanager
def ablation_run(name: str, profile: str, tags: Mapping[str, str]) -> Iterator[ParentRun]:
    """Like `flow_run`; the arms that this process runs in the block become its children."""
    with _ended(start_parent(f"ablation {name}", {"profile": profile}, tags)) as run, _parent_of_all(run):
        yield run


def run_tracked_ablation(
    root: Path, name: str, profile: str, parallel: int = 1, *, again: bool = False
) -> list[TrialResult]:
    """Runs every arm with every seed, `parallel` side by side, each below a run of its own, all below the ablation's.

    Raises:
        UserError: as `omnihuman.pipeline.arms.prepare_ablation`, before there is any run.
    """
    work = prepare_ablation(root, name, profile)
    with ablation_run(name, profile, {"claims": work.ablation.claims_key}) as run:
        results = run_ablation(work, parallel, again=again, run=run_tracked_trial)
        run.failed = any(result.exit_code for result in results)
        return results


def run_tracked_trial(
    work: Work,
    trial: Trial,
    env: Mapping[str, str],
    *,
    output: BinaryIO | None = None,
    on_step: Callable[[StepResult], None] = lambda _: None,
) -> TrialResult:
    """Runs a trial below a run of its own, which carries its seed, the ratios of its last stage and its final figures.

    Raises:
        UserError: as `omnihuman.pipeline.arms.run_trial`.
    """
    composed = compose(work.profile, trial.overrides, work.root / CONF)
    params = {"profile": work.profile, "seed": trial.seed, "ratio": _ratios(list(composed.stages.values())[-1])}
    named = dict(override.split("=", 1) for override in trial.arm.overrides)
    params |= {"override": {key: value for key, value in named.items() if not key.startswith(("stages.", "groups."))}}
    tags = {"arm": trial.arm.name, "ablation": work.ablation.name, "overrides": " ".join(trial.overrides)}
    with _ended(start_parent(trial.label, params, tags)) as run:
        result = run_trial(work, trial, run.env(env), output=output, on_step=on_step)
        for record in result.runs.values():
            note_restored(run.run_id, RunRecord(**record))
        run.figures = result.figures
        run.failed = bool(result.exit_code)
        return result


def _ratios(stage: Stage) -> dict[str, float | None]:
    """All shares that arms differ in, each once: MLflow's parallel coordinates begin with what differs."""
    mix = {"audio_mix": stage.mix.audio_eligible, "pose_mix": stage.mix.pose_eligible}
    return {**asdict(stage.activate), **mix, "text_only": stage.data.text_only_fraction}


@contextmanager
def _parent_of_all(run: ParentRun) -> Iterator[None]:
    """Every run that this process begins in the block, or a process that it starts, becomes a child."""
    before = os.environ.get(PARENT_VARIABLE)
    os.environ[PARENT_VARIABLE] = run.run_id
    try:
        yield
    finally:
        os.environ.pop(PARENT_VARIABLE)
        if before is not None:
            os.environ[PARENT_VARIABLE] = before


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
