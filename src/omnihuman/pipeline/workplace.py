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

_HELD_VARIABLE = "OMNIHUMAN_HELD_CHECKOUT"
"""The lock that this process, or one above that outlives it, holds: a flow within a flow does not wait for itself."""


@contextmanager
def workplace(root: Path, own_worktree: bool = False) -> Iterator[Worktree]:
    """The folder and environment of a flow's steps, for the block.

    The checkout belongs to one run at a time: another waits, and says so. What runs in the block, also in a process
    with the block's environment, may use the same checkout.

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
        return
    lock = (root / ".dvc/tmp/flow.lock").resolve()
    if os.environ.get(_HELD_VARIABLE) == str(lock):
        yield Worktree(root, dict(os.environ))
    else:
        with hold(lock, f"checkout {root}") as descriptor:
            os.set_inheritable(descriptor, True)  # its supervised steps keep it, see run_supervised
            os.environ[_HELD_VARIABLE] = str(lock)
            try:
                yield Worktree(root, dict(os.environ))
            finally:
                del os.environ[_HELD_VARIABLE]
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a supervisor above this process keeps the file open, too
