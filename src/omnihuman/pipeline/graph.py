"""The only module that touches DVC: running the graph of dvc.yaml, listing its steps, asking what is stale."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo


def repro(root: Path, targets: Sequence[str] = ()) -> int:
    """Runs what is stale among `targets` (default: every step) and returns 0, or the exit code of the failed step.

    A process of its own calls DVC's library instead of `dvc repro`, which exits with 255 whatever the step said.
    """
    programs = str(Path(sys.executable).parent)  # where `omnihuman` lies, also when the environment is not activated
    environment = os.environ | {"PATH": os.pathsep.join([programs, os.environ.get("PATH", "")])}
    command = [sys.executable, "-m", "omnihuman.pipeline.graph", *targets]
    with subprocess.Popen(command, cwd=root, env=environment) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the step got it too; DVC releases its locks once the step has ended
            process.wait()
            raise


def steps(root: Path) -> list[str]:
    """Names of all steps, each after those that it depends on; ties by name."""
    with Repo(str(root)) as repo:
        graph = repo.index.graph.reverse()
        ordered = networkx.lexicographical_topological_sort(graph, key=lambda stage: stage.addressing)
        return [stage.name for stage in ordered]


def status(root: Path) -> dict[str, Any]:
    """What changed, by step, as `dvc status --json` says it; empty when nothing is stale."""
    with Repo(str(root)) as repo:
        changes: dict[str, Any] = repo.status()
    return {name.rpartition(":")[2]: change for name, change in changes.items()}


def _reproduce(targets: Sequence[str]) -> int:
    try:
        with Repo() as repo:
            repo.reproduce(list(targets) or None)
    except DvcException as error:
        said = re.search(r"exited with (\d+)$", str(error.__cause__))  # the only place where DVC keeps the code
        if said:  # the step has said what was wrong
            return int(said[1])
        print(f"error: {error}" + (f": {error.__cause__}" if error.__cause__ else ""), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_reproduce(sys.argv[1:]))
