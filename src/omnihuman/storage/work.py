"""Where work in progress lies, so that a killed step goes on where it was.

DVC deletes a step's outputs before it runs the step, so resume state cannot lie in them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


def omnihuman_home() -> Path:
    """`$OMNIHUMAN_HOME`, by default `~/.omnihuman`."""
    return Path(os.environ.get("OMNIHUMAN_HOME", Path.home() / ".omnihuman"))


def content_key(**parts: Any) -> str:
    """Hash of everything a piece of work depends on; never of paths, or arms resume from one another."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def code_key(*packages: str, without: Sequence[str] = ()) -> str:
    """Hash of the source of some packages or modules of `omnihuman`, so that changed code never resumes old work.

    Args:
        packages: names below the package, such as `training` or `data/shards.py`.
        without: names of the same kind, of what is left out of them.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for package in packages:
        place = root / package
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            if any(path.is_relative_to(root / name) for name in without):
                continue
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()


def work_folder(key: str) -> Path:
    """The folder that outlives a killed step with this content key."""
    folder = omnihuman_home() / "work" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def held_work_folder(key: str) -> Iterator[Path]:
    """The work folder of a key, for this process alone while the block lasts, as `held` says.

    Two clones below one home would otherwise write into one checkpoint.
    """
    folder = work_folder(key)
    with held(folder):
        folder.mkdir(exist_ok=True)  # who held it before may have finished it
        yield folder


@contextmanager
def held(work: Path) -> Iterator[None]:
    """A path for this process alone while the block lasts; a second one says so and waits. A killed one lets go."""
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work.with_name(f"{work.name}.lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        log.warning("another process is at the same work (%s): waiting for it", work)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
