"""Checkouts of one commit beside the main one, in which an arm or a scheduled run changes params.yaml undisturbed."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omnihuman.errors import UserError
from omnihuman.pipeline.graph import cache_folder, share_cache
from omnihuman.pipeline.step_lock import hold, open_lock, try_lock
from omnihuman.storage.work import omnihuman_home

GENERATED = ("dvc.lock", "params.yaml")
"""Tracked files that every run may change; they are composed or written anew in a worktree."""


@dataclass(frozen=True)
class Worktree:
    """A checkout that is removed after use."""

    folder: Path
    env: dict[str, str]
    """The environment of commands in it: its own code instead of the main checkout's."""


def clean_commit(root: Path) -> str:
    """The commit that `root` stands at.

    Raises:
        UserError: `root` is no git checkout, or tracked files other than dvc.lock and params.yaml have changed.
    """
    commit = _git(root, "rev-parse", "HEAD").strip()
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "-z", "--no-renames").split("\0")
    changed = [change[3:] for change in changes if change and change[3:] not in GENERATED]
    if changed:
        raise UserError(
            f"{root} has changes that no commit holds: {', '.join(changed)}; commit them or put them back, because an"
            " arm runs the committed code"
        )
    return commit


@contextmanager
def worktree(root: Path, key: str, commit: str, env: Mapping[str, str] | None = None) -> Iterator[Worktree]:
    """A checkout of `commit` below `$OMNIHUMAN_HOME/worktrees` that shares the DVC cache of `root`, for the block.

    It has no dvc.lock, because a stale one would hide the run cache. Of two calls with one key the later waits. What
    killed calls left is removed first; a worktree stays locked until the last supervised process in it has ended.

    Args:
        env: what commands in the worktree get besides; default: this process's environment.
    """
    home = omnihuman_home().absolute()
    base = home / "worktrees"
    with hold(_lock_of(base / key), f"worktree {key}") as descriptor:
        os.set_inheritable(descriptor, True)  # supervisors of this process keep it, see run_supervised
        try:
            _remove_stale(base)
            _add(root, base / key, commit)
            yield Worktree(base / key, _environment(base / key, home, os.environ if env is None else env))
        finally:
            shutil.rmtree(base / key, ignore_errors=True)
            with _changing(base):
                _git(root, "worktree", "prune")
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _add(root: Path, folder: Path, commit: str) -> None:
    with _changing(folder.parent):
        shutil.rmtree(folder, ignore_errors=True)
        _git(root, "worktree", "prune")
        _git(root, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        (folder / "dvc.lock").unlink(missing_ok=True)
        settings = root / ".dvc/config.local"
        if settings.is_file():
            shutil.copy(settings, folder / ".dvc/config.local")
        share_cache(folder, cache_folder(root))


def _remove_stale(base: Path) -> None:
    """Removes the worktrees whose users were killed: nobody holds their locks."""
    for folder in [path for path in base.iterdir() if path.is_dir()]:
        with open_lock(_lock_of(folder)) as descriptor:
            if try_lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path, home: Path, env: Mapping[str, str]) -> dict[str, str]:
    paths = [str(folder / "src"), *filter(None, [env.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "OMNIHUMAN_HOME": str(home)}
    return {"DVC_SITE_CACHE_DIR": str(home / "dvc"), **env, **own}


def _changing(base: Path):
    """git writes its list of worktrees without a lock of its own."""
    return hold(base / "git.lock", "git worktree")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(
            f"git {arguments[0]} in {root}: {result.stderr.strip()}; arms and schedules need a git checkout"
        )
    return result.stdout
