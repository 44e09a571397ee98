"""Where a flow runs its steps: in the checkout, one flow at a time, or in a worktree of its own."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnihuman.errors import UserError
from omnihuman.pipeline.step_lock import hold
from omnihuman.pipeline.worktrees import Worktree, clean_commit, worktree
from omnihuman.storage.work import content_key


@contextmanager
def workplace(root: Path, own_worktree: bool = False) -> Iterator[Worktree]:
    """The folder and environment of a flow's steps, for the block.

    Args:
        own_worktree: run the committed code and params.yaml in a worktree. It is removed afterwards, and its results
            stay in the shared cache, so that `dvc repro` in the checkout restores them. For schedules, which would
            otherwise change the files that a person is working on.

    Raises:
        UserError: `root` is not the project's folder, or holds code that no commit has and a worktree is wanted.
    """
    if not (root / "dvc.yaml").is_file():
        raise UserError(f"{root} has no dvc.yaml: run this in the project's folder")
    if own_worktree:
        commit = clean_commit(root)
        with worktree(root, content_key(root=root.resolve(), commit=commit, purpose="flow"), commit) as place:
            yield place
    else:
        with hold(root / ".dvc/tmp/flow.lock", f"checkout {root}") as descriptor:
            os.set_inheritable(descriptor, True)  # its supervised steps keep it, see run_supervised
            try:
                yield Worktree(root, dict(os.environ))
            finally:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a supervisor above this process keeps the file open, too
