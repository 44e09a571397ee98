"""Arms of an ablation: one setting each, run in a worktree of its own, so that arms train only where they differ."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from omnihuman.config.compose import CONF, compose, dump
from omnihuman.config.load import PARAMS, read_yaml
from omnihuman.config.strict import unknown_key
from omnihuman.errors import UserError
from omnihuman.pipeline.graph import Outcome, StepResult, run_step, steps
from omnihuman.pipeline.supervisor import end_supervised
from omnihuman.pipeline.worktrees import clean_commit, worktree
from omnihuman.storage.files import publish
from omnihuman.storage.work import content_key

log = logging.getLogger(__name__)
FIGURES = Path("reports/evaluation.json")
RUNS = Path("runs")
RESULTS = Path("reports/ablation")
"""Below it NAME/ARM.json and ARM.log of each arm, and NAME.json, the comparison."""


@dataclass(frozen=True)
class Arm:
    """One setting of an ablation."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class ArmResult:
    """What one run of an arm came to; `figures` and `runs` are empty where it did not get so far."""

    arm: Arm
    profile: str
    commit: str
    exit_code: int  # of the failed step, else 0
    steps: tuple[StepResult, ...]
    figures: dict[str, Any]  # reports/evaluation.json
    runs: dict[str, Any]  # runs/NAME.json by NAME

    def save(self, path: Path) -> None:
        """Writes the result as JSON."""
        with publish(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "ArmResult":
        """Reads what `save` wrote."""
        tree = json.loads(path.read_text(encoding="utf-8"))
        arm = Arm(tree["arm"]["name"], tuple(tree["arm"]["overrides"]))
        done = tuple(StepResult(**step | {"outcome": Outcome(step["outcome"])}) for step in tree["steps"])
        return cls(**tree | {"arm": arm, "steps": done})


class RunArm(Protocol):
    """`run_arm`, or what puts something around it."""

    def __call__(
        self,
        root: Path,
        commit: str,
        arm: Arm,
        profile: str,
        *,
        output: BinaryIO | None,
        on_step: Callable[[StepResult], None],
    ) -> ArmResult:
        """Runs one arm."""
        ...


def load_arms(name: str, profile: str, conf: Path = CONF) -> tuple[Arm, ...]:
    """The arms of conf/ablation/NAME.yaml, each of which composes with the profile.

    Raises:
        UserError: no such file, a key or type that is not known, an arm that does not compose or is there twice.
    """
    folder = conf / "ablation"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"unknown ablation {name!r}, one of {', '.join(known) or 'none'}; add {folder / name}.yaml")
    where = f"conf/ablation/{name}.yaml"
    tree = read_yaml(folder / f"{name}.yaml")
    for key in tree.keys() - {"arms"}:
        raise unknown_key(str(key), where, ["arms"])
    entries = tree.get("arms")
    if not isinstance(entries, dict) or len(entries) < 2:
        raise UserError(f"{where}: arms is {entries!r}, expected at least two lines `name: [key=value, ...]`")
    arms = tuple(_arm(str(arm), overrides, where) for arm, overrides in entries.items())
    _check_composes(arms, profile, conf, where)
    return arms


def _arm(name: str, overrides: Any, where: str) -> Arm:
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise UserError(f"{where}: an arm is called {name!r}; use small letters, digits and _")
    if not isinstance(overrides, list) or not all(isinstance(override, str) for override in overrides):
        raise UserError(f"{where}: arms.{name} is {overrides!r}, expected a list of key=value")
    return Arm(name, tuple(overrides))


def _check_composes(arms: tuple[Arm, ...], profile: str, conf: Path, where: str) -> None:
    seen: dict[str, str] = {}
    for arm in arms:
        try:
            params = asdict(compose(profile, arm.overrides, conf))
        except UserError as error:
            raise UserError(f"{where}: arms.{arm.name}: {error}") from error
        setting = content_key(**{key: value for key, value in params.items() if key != "overrides"})
        if setting in seen:
            raise UserError(f"{where}: arms.{arm.name} is the same setting as arms.{seen[setting]}; remove one")
        seen[setting] = arm.name


def run_arm(
    root: Path,
    commit: str,
    arm: Arm,
    profile: str,
    env: Mapping[str, str] | None = None,
    output: BinaryIO | None = None,
    on_step: Callable[[StepResult], None] = lambda _: None,
) -> ArmResult:
    """Runs every step of the graph with the arm's setting in a worktree of a commit of `root`, up to a failure.

    A killed call leaves its finished steps in the shared cache; the same call then runs none of them again.

    Args:
        commit: taken once for all arms, so that work in the checkout meanwhile changes none of them.
        env: the environment of the steps, e.g. with the arm's parent run; default: this process's.
        output: takes what the steps print; default: this process's streams.
        on_step: is told of each step when it has ended.

    Raises:
        UserError: the arm does not compose.
    """
    key = content_key(root=root.resolve(), commit=commit, profile=profile, overrides=arm.overrides)
    results: list[StepResult] = []
    with worktree(root, key, commit, env) as place:
        text = dump(compose(profile, arm.overrides, place.folder / CONF))
        with publish(place.folder / PARAMS) as temporary:
            temporary.write_text(text, encoding="utf-8")
        for step in steps(place.folder):
            results.append(run_step(place.folder, step, place.env, output))
            on_step(results[-1])
            if results[-1].exit_code:
                break
        return ArmResult(
            arm=arm,
            profile=profile,
            commit=commit,
            exit_code=results[-1].exit_code,
            steps=tuple(results),
            figures=_read(place.folder / FIGURES) if not results[-1].exit_code else {},
            runs={path.stem: _read(path) for path in sorted((place.folder / RUNS).glob("*.json"))},
        )


def run_ablation(
    root: Path,
    name: str,
    profile: str,
    parallel: int = 1,
    run: RunArm | None = None,
) -> list[ArmResult]:
    """Runs all arms of an ablation, `parallel` of them side by side, and saves each result below reports/ablation.

    An exception here, such as Ctrl-C, ends every arm's processes first.

    Args:
        run: runs one arm; default: `run_arm` in this process's environment.

    Raises:
        UserError: as `load_arms`, or for uncommitted code, before any step has run.
    """
    arms = load_arms(name, profile, root / CONF)
    commit = clean_commit(root)
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(_run_and_save, root, commit, name, arm, profile, run or run_arm) for arm in arms]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            while wait(futures, timeout=0.5).not_done:  # again and again: an arm may be between two steps
                end_supervised()
            raise


def _run_and_save(root: Path, commit: str, name: str, arm: Arm, profile: str, run: RunArm) -> ArmResult:
    folder = root / RESULTS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{arm.name}.log"
    with path.open("wb") as output:
        result = run(root, commit, arm, profile, output=output, on_step=partial(_tell, arm, path))
    result.save(folder / f"{arm.name}.json")
    return result


def _tell(arm: Arm, output: Path, result: StepResult) -> None:
    log.info("%s: %s %s, %.0f s", arm.name, result.name, result.outcome, result.seconds)
    if result.outcome is Outcome.FAILED:
        tail = output.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        log.error("%s: exit code %d, the end of %s:\n%s", arm.name, result.exit_code, output, "\n".join(tail))


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
