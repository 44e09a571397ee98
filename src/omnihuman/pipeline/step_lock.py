"""One lock per step key: of the worktrees that share a cache, one runs a step while the others wait and restore it."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from omnihuman.pipeline.supervisor import keep_while_supervised


@contextmanager
def hold(path: Path, what: str) -> Iterator[int]:
    """Holds the lock of a file for the block; when another process holds it for long, says so and waits.

    The kernel frees the lock when the holder ends, even killed; below a supervisor it stays held until the last
    descendant has ended. The file itself stays, because removing it would let two processes lock two files.

    Args:
        what: for the message of those who wait, e.g. the step's name.

    Yields:
        The descriptor; whoever inherits it holds the lock too.
    """
    with open_lock(path) as descriptor:
        if not _soon(descriptor):
            print(f"{what}: waiting for {_holder(descriptor)}", file=sys.stderr, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        _sign(descriptor)
        keep_while_supervised(descriptor)
        yield descriptor


@contextmanager
def open_lock(path: Path) -> Iterator[int]:
    """The descriptor of a lock file, which is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Takes the lock and returns True, or returns False at once when another process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _soon(descriptor: int) -> bool:
    """Takes the lock within a second, so that short work under it passes in silence."""
    for _ in range(10):
        if try_lock(descriptor):
            return True
        time.sleep(0.1)
    return False


def _sign(descriptor: int) -> None:
    holder = {"process": os.getpid(), "folder": str(Path.cwd()), "since": datetime.now().isoformat(timespec="seconds")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {holder['process']} in {holder['folder']}, since {holder['since']}"
    except ValueError:  # it has taken the lock and not signed yet
        return "another process"
