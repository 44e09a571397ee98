"""Publishing files and folders so that nobody ever sees half of one."""

import glob
import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and renames it into place when the block ends without an error.

    The temporary file keeps the suffix, because writers choose their container by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Where `publish` has this process write first."""
    return path.with_name(f".{path.stem}.{_host()}-{os.getpid()}.partial{path.suffix}")


def remove_abandoned(path: Path) -> None:
    """Removes what killed processes of this machine had begun to write for `publish(path)`."""
    name = f".{glob.escape(path.stem)}.{_host()}-*.partial{glob.escape(path.suffix)}"
    nested = f".{name}"  # of what was being published as that temporary file
    for temporary in [*path.parent.glob(name), *path.parent.glob(nested)]:
        number = temporary.name.removesuffix(f".partial{path.suffix}").rpartition("-")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            temporary.unlink(missing_ok=True)


def _host() -> str:
    """Short, for names of files: numbers of processes mean something on one machine only."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


@contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path` that replaces it when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            path.rename(old := temporary.with_suffix(".old"))
            temporary.replace(path)
            shutil.rmtree(old)
        else:
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_sha256(path: Path) -> str:
    """Of a file's content, or of the names and contents of the files that lie in a folder."""
    if not path.is_dir():
        return file_sha256(path)
    lines = [f"{file.name} {file_sha256(file)}\n" for file in sorted(path.iterdir()) if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
