"""A process between a caller and a command that leaves none of the command's descendants behind.

`python -m omnihuman.pipeline.supervisor -- COMMAND...` reads nothing: its standard input is a pipe that the caller
holds open, so that the end of the caller, however it comes, is the end of the pipe. Killing a process group would miss
children with sessions of their own (torchrun's ranks), so the supervisor adopts every orphan below it instead.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

GRACE_SECONDS = 5.0
"""Between asking the descendants to end (TERM) and ending them (KILL)."""
KEEPING_VARIABLE = "OMNIHUMAN_KEEPING_SOCKET"
"""Through this socket a command hands over open files that the supervisor keeps open to its own end."""
_POLL_SECONDS = 0.05
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_held: set[subprocess.Popen[bytes]] = set()


def run_supervised(
    command: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None, output: IO[bytes] | None = None
) -> int:
    """Runs a command and returns its exit code (128 + n where signal n ended it), with no descendant left.

    Args:
        env: the whole environment; default: this process's.
        output: takes what the command prints on either stream; default: this process's streams.

    An exception here, such as Ctrl-C or a flow's cancel, first ends the command and everything that it started.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "omnihuman.pipeline.supervisor", "--", *command],
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT if output else None,
        start_new_session=True,
        close_fds=False,  # a file made inheritable, the lock of a worktree, stays open as long as the supervisor
    )
    _held.add(process)
    try:
        code = process.wait()
    except BaseException:
        _let_go(process)
        process.wait()
        raise
    finally:
        _held.discard(process)
        _let_go(process)
    return code if code >= 0 else 128 - code


def end_supervised() -> None:
    """Asks every command that another thread of this process supervises to end; their `run_supervised` then return."""
    for process in tuple(_held):
        process.terminate()


def keep_while_supervised(descriptor: int) -> None:
    """Lets the supervisor above keep an open file, so that a lock on it outlasts this process's descendants.

    Without a supervisor above this does nothing.
    """
    number = os.environ.get(KEEPING_VARIABLE)
    if number:
        with socket.socket(fileno=os.dup(int(number))) as channel:
            socket.send_fds(channel, [b"-"], [descriptor])


def _let_go(process: subprocess.Popen[bytes]) -> None:
    if process.stdin and not process.stdin.closed:
        process.stdin.close()


class _Supervisor:
    """One supervised command: adopts, watches, ends."""

    def __init__(self) -> None:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
        self.asked_by: int | None = None  # the signal
        self.codes: dict[int, int] = {}  # by process id, of children that have ended
        self.kept: list[int] = []
        for number in _SIGNALS:
            signal.signal(number, self._ask)

    def run(self, command: Sequence[str]) -> int:
        """Exit code of the command, or 128 + signal where the supervisor was asked to end it."""
        here, there = socket.socketpair()
        environment = os.environ | {KEEPING_VARIABLE: str(there.fileno())}
        try:
            child = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=[there.fileno()]
            )
        except OSError as error:
            print(f"error: {command[0]} cannot be run: {error.strerror}", file=sys.stderr)
            return 127
        with here, there:
            while child.pid not in self.codes and self.asked_by is None:
                self._watch(here)
                self._reap()
            self._end_descendants()
        child.returncode = self.codes[child.pid]
        code = 128 + self.asked_by if self.asked_by else child.returncode
        return code if code >= 0 else 128 - code

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked_by = number

    def _watch(self, keeping: socket.socket) -> None:
        """Waits a moment for the end of the caller's pipe or a file to keep; a signal or a death ends the wait soon."""
        ready, _, _ = select.select([sys.stdin, keeping], [], [], _POLL_SECONDS)
        if keeping in ready:
            self.kept += socket.recv_fds(keeping, 1, 8)[1]
        if sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096):
            self.asked_by = signal.SIGHUP

    def _reap(self) -> bool:
        """Takes the exit codes of children that have ended; False when none is left, adopted ones included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            self.codes[pid] = os.waitstatus_to_exitcode(status)

    def _end_descendants(self) -> None:
        self._send(signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while self._reap():  # orphans come to us at once, so no child means no descendant
            if time.monotonic() > deadline:
                self._send(signal.SIGKILL)
            time.sleep(0.02)

    def _send(self, number: int) -> None:
        for descendant in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                descendant.send_signal(number)


if __name__ == "__main__":
    _, separator, *arguments = sys.argv
    if separator != "--" or not arguments:
        sys.exit("usage: python -m omnihuman.pipeline.supervisor -- COMMAND...")
    sys.exit(_Supervisor().run(arguments))
