"""A PostgreSQL server for tests, with one database, on a port of its own."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), default=None)
MISSING = "no PostgreSQL server is here; install Debian's package postgresql"
_USER = "postgres"


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """The URL of a server that ends with the block; it refuses to run as root, so root lends it the user postgres."""
    assert PROGRAMS is not None
    data = folder / "data"
    data.mkdir()
    if os.geteuid() == 0:
        shutil.chown(data, _USER)
        for parent in data.parents:
            if parent != Path("/") and parent.owner() == "root" and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _run(PROGRAMS / "initdb", "-D", str(data), "-U", _USER, "--auth=trust", "--no-sync", "-E", "UTF8")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
    _run(PROGRAMS / "pg_ctl", "-D", str(data), "-w", "-t", "300", "-l", str(data / "log"), "-o", options, "start")
    try:
        yield f"postgresql+psycopg://{_USER}@127.0.0.1:{port}/{_USER}"
    finally:
        _run(PROGRAMS / "pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")


def _run(program: Path, *arguments: str) -> None:
    user = _USER if os.geteuid() == 0 else None
    command = [str(program), *arguments]
    done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
