"""Several workers on one machine, each a process with weights of its own."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from types import FrameType
from typing import NoReturn

from omnihuman.errors import UserError
from omnihuman.rendering.ledger import Ledger
from omnihuman.rendering.manifest import Manifest

_POLL_SECONDS = 0.5
_MAX_DEATHS_IN_A_ROW = 5
"""Workers that may end by force with no item ended in between, before we give up."""
_GRACE_SECONDS = 20.0


def interrupt_on_term() -> None:
    """Makes SIGTERM stop this process as Ctrl-C does, so that it gives its item back."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def work_in_processes(
    folder: Path, model: Path, lease_seconds: float, workers: int, changed: Callable[[], None], together: int = 1
) -> None:
    """Renders a folder's batch in processes until all is done or dead; one that is killed is replaced.

    An exception here, such as Ctrl-C, stops them all; each gives its item back first.

    Args:
        together: items that each of them renders at the same time.

    Raises:
        UserError: a worker cannot load the model.
        RuntimeError: workers end one after another without any result.
    """
    crew = _Crew(folder, model, lease_seconds, workers, together)
    manifest, ledger = Manifest.load(folder), Ledger(folder)
    try:
        while ledger.seconds_until_work(manifest.id) is not None:
            crew.fill(sum(item.state in ("pending", "failed", "leased") for item in ledger.items()))
            crew.watch()
            changed()
        crew.join()
    finally:
        crew.stop()


class _Crew:
    """The processes at work."""

    def __init__(self, folder: Path, model: Path, lease_seconds: float, size: int, together: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._errors: SimpleQueue[str] = self._context.SimpleQueue()
        threads = max(1, (os.cpu_count() or 1) // size)
        self._arguments = (folder, model, lease_seconds, threads, together, self._errors)
        self._ledger, self._size = Ledger(folder), size
        self._processes: list[SpawnProcess] = []
        self._deaths, self._ended = 0, 0

    def fill(self, num_open: int) -> None:
        """Starts as many workers as there is work for."""
        while len(self._processes) < min(self._size, num_open):
            process = self._context.Process(target=_worker, args=self._arguments)  # not a daemon: it has children
            process.start()
            self._processes.append(process)

    def watch(self) -> None:
        """Waits a moment, and takes note of workers that ended."""
        wait([process.sentinel for process in self._processes], _POLL_SECONDS)
        for process in [process for process in self._processes if not process.is_alive()]:
            self._processes.remove(process)
            if not self._errors.empty():
                raise UserError(self._errors.get())
            self._count_death(process)

    def _count_death(self, process: SpawnProcess) -> None:
        process.join()
        ended = sum(item.state in ("done", "dead") for item in self._ledger.items())
        forced = process.exitcode != 0
        self._deaths = self._deaths + 1 if forced and ended == self._ended else int(forced)
        self._ended = ended
        if self._deaths >= _MAX_DEATHS_IN_A_ROW:
            raise RuntimeError(f"{self._deaths} workers ended one after another, the last with {process.exitcode}")

    def join(self) -> None:
        """Gives all a while to end on their own."""
        deadline = time.monotonic() + _GRACE_SECONDS
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """Asks all to give their items back and end, and ends those that do not."""
        for process in self._processes:
            process.terminate()
        self.join()
        for process in self._processes:
            process.kill()
            process.join()


def _worker(
    folder: Path, model: Path, lease_seconds: float, threads: int, together: int, errors: "SimpleQueue[str]"
) -> None:
    """Life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent alone decides
    interrupt_on_term()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torch

        from omnihuman.rendering.worker import Policy, work

        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(threads)
        work(folder, model, Policy(lease_seconds=lease_seconds), lambda: None, together)
    except UserError as error:
        errors.put(str(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)
    finally:
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN
        )  # an interrupt while the interpreter ends would be told as an error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
