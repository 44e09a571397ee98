"""Running the graph of dvc.yaml, its steps, what is stale; with `pipeline.objects` all that touches DVC."""

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.serialize import to_single_stage_lockfile

from omnihuman.pipeline.step_lock import hold
from omnihuman.pipeline.supervisor import run_supervised
from omnihuman.storage.work import content_key


class Outcome(StrEnum):
    """How a step came to its outputs."""

    CURRENT = "current"  # they were there, and nothing had changed
    RESTORED = "restored"  # from the run cache: the same step ran before, here or in another worktree
    RAN = "ran"
    FAILED = "failed"


@dataclass(frozen=True)
class StepResult:
    """What became of one step; `seconds` include waiting for another worktree that was at the same step."""

    name: str
    exit_code: int
    outcome: Outcome
    seconds: float


@dataclass(frozen=True)
class StepNode:
    """A step as dvc.yaml declares it."""

    params: tuple[str, ...]  # dotted names in params.yaml
    after: tuple[str, ...]  # the steps whose outputs it reads


def repro(root: Path, targets: Sequence[str] = ()) -> int:
    """Runs what is stale among `targets` (default: every step) and returns 0, or the exit code of the failed step.

    A process of its own calls DVC's library instead of `dvc repro`, which exits with 255 whatever the step said.
    """
    command = [sys.executable, "-m", "omnihuman.pipeline.graph", *targets]
    with subprocess.Popen(command, cwd=root, env=_with_programs(os.environ)) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the step got it too; DVC releases its locks once the step has ended
            process.wait()
            raise


def run_step(
    root: Path, step: str, env: Mapping[str, str] | None = None, output: IO[bytes] | None = None
) -> StepResult:
    """Runs one step of the graph in `root` if it is stale, and none of those before it; leaves no process behind.

    Of several calls in worktrees that share a cache, one runs the step; the others wait, say so, and restore it.

    Args:
        env: the whole environment of the step; default: this process's.
        output: takes what the step prints; default: this process's streams.

    Returns:
        With the step's own exit code.
    """
    start = time.monotonic()
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / ".dvc/tmp") as folder:
        note = Path(folder).absolute() / "outcome"
        command = [sys.executable, "-m", "omnihuman.pipeline.graph", "--note", str(note), step]
        code = run_supervised(command, root, _with_programs(os.environ if env is None else env), output)
        outcome = Outcome.FAILED if code else Outcome(note.read_text())
    return StepResult(step, code, outcome, time.monotonic() - start)


def steps(root: Path) -> list[str]:
    """Names of all steps, each after those that it depends on; ties by name."""
    return list(nodes(root))


def nodes(root: Path) -> dict[str, StepNode]:
    """All steps by name, in the order of `steps`."""
    with Repo(str(root)) as repo:
        graph = repo.index.graph.reverse()
        ordered = networkx.lexicographical_topological_sort(graph, key=lambda stage: stage.addressing)
        return {
            stage.name: StepNode(
                params=tuple(name for dep in stage.deps for name in getattr(dep, "params", ())),
                after=tuple(sorted(before.name for before in graph.predecessors(stage))),
            )
            for stage in ordered
        }


def status(root: Path) -> dict[str, Any]:
    """What changed, by step, as `dvc status --json` says it; empty when nothing is stale."""
    with Repo(str(root)) as repo:
        changes: dict[str, Any] = repo.status()
    return {name.rpartition(":")[2]: change for name, change in changes.items()}


def cache_folder(root: Path) -> Path:
    """Where DVC keeps the outputs and the runs of this checkout."""
    with Repo(str(root)) as repo:
        return Path(repo.cache.legacy.path)


def share_cache(root: Path, cache: Path) -> None:
    """Lets the checkout `root` keep its outputs and runs in `cache`; only on this machine, nothing is to commit."""
    with Repo(str(root)) as repo, repo.config.edit("local") as settings:
        settings.setdefault("cache", {})["dir"] = str(cache)


def _with_programs(env: Mapping[str, str]) -> dict[str, str]:
    """Adds the folder in which `omnihuman` lies, also when the environment is not activated."""
    programs = str(Path(sys.executable).parent)
    return {**env, "PATH": os.pathsep.join([programs, env.get("PATH", "")])}


def _reproduce(targets: Sequence[str]) -> None:
    with Repo() as repo:
        repo.reproduce(list(targets) or None)


class _CommandStarts(logging.Handler):
    """Whether DVC has started a step's command; its answer is the same for a restored step."""

    seen = False

    def emit(self, record: logging.LogRecord) -> None:
        self.seen = True


def _reproduce_locked(step: str, note: Path) -> None:
    """Reproduces one step under the lock of its key and notes the outcome."""
    key, locks = _key_and_locks(step)
    starts = _CommandStarts()
    logger = logging.getLogger("dvc.stage.run")
    logger.addHandler(starts)
    logger.setLevel(logging.INFO)
    with hold(locks / key, step), Repo() as repo:
        changed = repo.reproduce([step], single_item=True)
    note.write_text(Outcome.RAN if starts.seen else Outcome.RESTORED if changed else Outcome.CURRENT)


def _key_and_locks(step: str) -> tuple[str, Path]:
    """Hash of all that decides the step's outputs, as DVC's run cache knows them, and the folder of its lock."""
    with Repo() as repo:
        stage = repo.stage.get_target(step)
        stage.save_deps()
        known = to_single_stage_lockfile(stage)
        parts = {part: known.get(part) for part in ("cmd", "deps", "params")}
        return content_key(**parts, outs=[out.def_path for out in stage.outs]), Path(repo.cache.legacy.path) / "locks"


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m omnihuman.pipeline.graph")
    parser.add_argument("--note", type=Path, help="run the one target alone, locked, and write its outcome here")
    parser.add_argument("targets", nargs="*")
    args = parser.parse_args()
    try:
        if args.note:
            _reproduce_locked(args.targets[0], args.note)
        else:
            _reproduce(args.targets)
    except DvcException as error:
        said = re.search(r"exited with (\d+)$", str(error.__cause__))  # the only place where DVC keeps the code
        if said:  # the step has said what was wrong
            return int(said[1])
        print(f"error: {error}" + (f": {error.__cause__}" if error.__cause__ else ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
