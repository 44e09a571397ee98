"""Parameters, figures and origins in the forms that MLflow keeps."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnihuman.nested import leaves

_MAX_CHARACTERS = 250


def flat_parameters(tree: Mapping[str, Any]) -> dict[str, str]:
    """Nested settings as `model/width: 160`; None and an empty section are left out.

    Values below `stage` come without a prefix and activation ratios as `ratio/audio`: they are what arms differ in.
    Long values are cut at 250 characters, which every version of MLflow takes; params.yaml goes along whole.
    """
    named = {**{key: value for key, value in tree.items() if key != "stage"}, **tree.get("stage", {})}
    settings = ((key.replace("activate/", "ratio/"), value) for key, value in leaves(named, "/"))
    return {key: _text(value)[:_MAX_CHARACTERS] for key, value in settings if value not in (None, {})}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def flat_figures(tree: Mapping[str, Any]) -> dict[str, float]:
    """Nested figures as `opening/generated/low: 0.63`; what was not measured (null) is left out."""
    return {key: float(value) for key, value in leaves(tree, "/") if isinstance(value, int | float)}


def folder_md5(folder: Path) -> str:
    """The digest that DVC gives a folder, 32 digits and `.dir`; computed, since dvc.lock may tell of older content."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    entries = [{"md5": _file_md5(path), "relpath": name} for name, path in sorted(files.items())]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def git_tags(root: Path = Path()) -> dict[str, str]:
    """The commit of a checkout, and whether tracked code differs from it; nothing where there is no git."""
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        changed = _git(root, "diff", "--name-only", "--relative", "HEAD").splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {}
    # Every run changes the first, every override the second; neither is code.
    code = [name for name in changed if name not in ("dvc.lock", "params.yaml")]
    return {"mlflow.source.git.commit": commit, "git_dirty": json.dumps(bool(code))}


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
