"""The runs of an ablation: each in a worktree of its own, so that runs train only where they differ."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, Protocol

from omnihuman.config.compose import CONF, compose, dump
from omnihuman.config.load import PARAMS
from omnihuman.pipeline.ablations import Ablation, Arm, Trial, load_ablation
from omnihuman.pipeline.graph import Outcome, StepResult, run_step, steps
from omnihuman.pipeline.supervisor import end_supervised
from omnihuman.pipeline.visible_gpus import shares_of_gpus
from omnihuman.pipeline.worktrees import clean_commit, worktree
from omnihuman.storage.files import publish, publish_folder
from omnihuman.storage.work import content_key

log = logging.getLogger(__name__)
FIGURES = Path("reports/evaluation.json")
EVALUATION = Path("reports/evaluation")
MODELS = Path("models")
RUNS = Path("runs")
RESULTS = Path("reports/ablation")
"""Below it NAME/ARM/seed-S of each run, and NAME.json and NAME.html, the comparison."""
RESULT, LOG, KEPT, LOSSES = "result.json", "log.txt", "evaluation", "losses"
"""In the folder of a run: what it came to, what its steps printed, what the evaluation left, and losses/STAGE.csv."""


@dataclass(frozen=True)
class TrialResult:
    """What a run came to; `figures` and `runs` are empty where it did not get so far."""

    trial: Trial
    profile: str
    commit: str
    claims: str
    """`Ablation.claims_key` when it ran."""
    exit_code: int  # of the failed step, else 0
    steps: tuple[StepResult, ...]
    figures: dict[str, Any]  # reports/evaluation.json
    runs: dict[str, Any]  # runs/NAME.json by NAME

    def save(self, path: Path) -> None:
        """Writes the result as JSON."""
        with publish(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "TrialResult":
        """Reads what `save` wrote."""
        tree = json.loads(path.read_text(encoding="utf-8"))
        arm = tree["trial"]["arm"]
        trial = Trial(Arm(arm["name"], tuple(arm["overrides"])), tree["trial"]["seed"])
        done = tuple(StepResult(**step | {"outcome": Outcome(step["outcome"])}) for step in tree["steps"])
        return cls(**tree | {"trial": trial, "steps": done})


class RunTrial(Protocol):
    """`run_trial`, or what puts something around it."""

    def __call__(
        self,
        work: "Work",
        trial: Trial,
        env: Mapping[str, str],
        *,
        output: BinaryIO | None,
        on_step: Callable[[StepResult], None],
    ) -> TrialResult:
        """Runs one arm with one seed."""
        ...


@dataclass(frozen=True)
class Work:
    """What all runs of an ablation share."""

    root: Path
    commit: str
    """Taken once, so that work in the checkout meanwhile changes none of them."""
    ablation: Ablation
    profile: str

    def folder(self, trial: Trial) -> Path:
        """Where what is left of a run lies."""
        return self.root / RESULTS / self.ablation.name / trial.arm.name / f"seed-{trial.seed}"

    def finished(self, trial: Trial) -> TrialResult | None:
        """The result of the same run at the same commit, where it got to its end."""
        path = self.folder(trial) / RESULT
        if not path.is_file():
            return None
        result = TrialResult.load(path)
        same = (result.trial, result.profile, result.commit) == (trial, self.profile, self.commit)
        return result if same and not result.exit_code else None


def prepare_ablation(root: Path, name: str, profile: str) -> Work:
    """What is to be run, at the commit that `root` stands at.

    Raises:
        UserError: as `load_ablation`, or for uncommitted code.
    """
    ablation = load_ablation(name, profile, root / CONF)
    return Work(root, clean_commit(root), ablation, profile)


def run_trial(
    work: Work,
    trial: Trial,
    env: Mapping[str, str] | None = None,
    *,
    output: BinaryIO | None = None,
    on_step: Callable[[StepResult], None] = lambda _: None,
) -> TrialResult:
    """Runs every step of the graph with the setting of a trial, up to a failure, in a worktree.

    A killed call leaves its finished steps in the shared cache; the same call then runs none of them again. What the
    evaluation left and the losses of the stages are kept in the trial's folder.

    Args:
        env: the environment of the steps, e.g. with the arm's parent run; default: this process's.
        output: takes what the steps print; default: this process's streams.
        on_step: is told of each step when it has ended.

    Raises:
        UserError: the arm does not compose.
    """
    key = content_key(root=work.root.resolve(), commit=work.commit, profile=work.profile, overrides=trial.overrides)
    results: list[StepResult] = []
    with worktree(work.root, key, work.commit, env) as place:
        params = compose(work.profile, trial.overrides, place.folder / CONF)
        with publish(place.folder / PARAMS) as temporary:
            temporary.write_text(dump(params), encoding="utf-8")
        for step in steps(place.folder):
            results.append(run_step(place.folder, step, place.env, output))
            on_step(results[-1])
            if results[-1].exit_code:
                break
        done = not results[-1].exit_code
        if done:
            _keep(place.folder, work.folder(trial))
        return TrialResult(
            trial=trial,
            profile=work.profile,
            commit=work.commit,
            claims=work.ablation.claims_key,
            exit_code=results[-1].exit_code,
            steps=tuple(results),
            figures=_read(place.folder / FIGURES) if done else {},
            runs={path.stem: _read(path) for path in sorted((place.folder / RUNS).glob("*.json"))},
        )


def run_ablation(
    work: Work, parallel: int = 1, *, again: bool = False, run: RunTrial | None = None
) -> list[TrialResult]:
    """Runs every arm with every seed, `parallel` side by side, and saves each result below reports/ablation.

    A run that has got to its end at the same commit is not run again, unless `again`. Where there are GPUs, each of the
    runs side by side sees its share of them alone. An exception here, such as Ctrl-C, ends all processes first.

    Args:
        run: runs one trial; default: `run_trial`.
    """
    places: SimpleQueue[dict[str, str]] = SimpleQueue()
    for share in shares_of_gpus(parallel, os.environ):
        places.put(share)
    with ThreadPoolExecutor(parallel) as pool:
        one = partial(_run_and_save, work, run=run or run_trial, again=again, places=places)
        futures = [pool.submit(one, trial) for trial in work.ablation.trials]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            while wait(futures, timeout=0.5).not_done:  # again and again: a run may be between two steps
                end_supervised()
            raise


def _run_and_save(
    work: Work, trial: Trial, run: RunTrial, again: bool, places: "SimpleQueue[dict[str, str]]"
) -> TrialResult:
    if not again and (result := work.finished(trial)):
        log.info("%s: done already at this commit", trial.label)
        return result
    folder = work.folder(trial)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    path = folder / LOG
    with _taken(places) as place, path.open("wb") as output:
        result = run(work, trial, os.environ | place, output=output, on_step=partial(_tell, trial, path))
    result.save(folder / RESULT)
    return result


@contextmanager
def _taken(places: "SimpleQueue[dict[str, str]]") -> Iterator[dict[str, str]]:
    place = places.get()
    try:
        yield place
    finally:
        places.put(place)


def _keep(checkout: Path, folder: Path) -> None:
    """Copies what comparisons need: a worktree goes when its run has ended."""
    with publish_folder(folder / KEPT) as kept:
        shutil.copytree(checkout / EVALUATION, kept, dirs_exist_ok=True)
    with publish_folder(folder / LOSSES) as kept:
        for path in (checkout / MODELS).glob("*/loss.csv"):
            shutil.copyfile(path, kept / f"{path.parent.name}.csv")


def _tell(trial: Trial, output: Path, result: StepResult) -> None:
    log.info("%s: %s %s, %.0f s", trial.label, result.name, result.outcome, result.seconds)
    if result.outcome is Outcome.FAILED:
        tail = output.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        log.error("%s: exit code %d, the end of %s:\n%s", trial.label, result.exit_code, output, "\n".join(tail))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
