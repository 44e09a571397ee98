"""Worker processes that can be killed.

Decoders may spin for ever, crash or eat all memory on a hostile file, and ignore every signal but SIGKILL
(decord #375, #269, #363). Work on untrusted files therefore runs in processes that are thrown away.
"""

import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any, Generic, Protocol, TypeVar

import psutil
from tqdm import tqdm

from omnihuman.errors import UserError

Item = TypeVar("Item")
T = TypeVar("T")

START_SECONDS = 120.0
"""Time allowed for a worker to start and import the function's module; not charged to any item."""
AHEAD_PER_WORKER = 16
"""Results that may wait for a slower item before them; bounds the memory of the parent."""
MAX_TRIES = 3
"""Of an item, and of starting a worker, where the process is stopped from outside: by the kernel or a person."""
FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Exit codes of such a process; a defect of the item or its decoder ends otherwise, and would do so again."""
MAX_MESSAGE_CHARACTERS = 300
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}


@dataclass(frozen=True)
class Limits:
    """What one item may use, and how many items a process handles before it is replaced."""

    deadline_seconds: float
    memory_megabytes: int  # on top of what the worker has mapped before its first item
    items_per_worker: int = 200
    workers: int = 0
    """Processes at once on this machine; 0: `num_workers`."""
    on_gpu: bool = False
    """Whether a GPU is used, whose driver reserves many times the address space that it needs: memory of the worker's
    own is capped instead."""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one item."""

    index: int  # position in the items
    status: str  # ok | error | timeout
    value: T | None  # None unless status is ok
    error: str  # one sentence for people, empty when status is ok


class RunGuarded(Protocol):
    """`run_guarded`, or another executor that gives the same outcomes in the same order."""

    def __call__(
        self, function: Callable[[Item], T], items: Sequence[Item], limits: Limits, description: str
    ) -> Iterator[Outcome[T]]: ...


def num_workers(default: int | None = None) -> int:
    """`$OMNIHUMAN_WORKERS`, by default the number of processors.

    Raises:
        UserError: the variable is not a positive whole number.
    """
    text = os.environ.get("OMNIHUMAN_WORKERS", "")
    if not text:
        return default or os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"OMNIHUMAN_WORKERS is {text!r}; set it to a whole number of at least 1, or unset it")
    return int(text)


_slot = 0


def worker_slot() -> int:
    """Of the worker that asks: from 0, below the number of workers, and no two have the same at one time."""
    return _slot


def run_guarded(
    function: Callable[[Item], T], items: Sequence[Item], limits: Limits, description: str
) -> Iterator[Outcome[T]]:
    """Applies a function to every item in worker processes and yields the outcomes in the order of the items.

    An exception, a crash and exhausted memory make one `error`, a missed deadline one `timeout`; the other items go on.
    An item whose worker was stopped from outside is tried again. No worker is left when the iterator ends, is closed,
    or the parent dies.

    Args:
        function: importable by name; its items and results are pickled.
        description: shown in front of the progress bar, on a terminal only.

    Raises:
        RuntimeError: a worker cannot start, because the function's module cannot be imported there.
    """
    pool = _Pool(function, items, limits, size=min(limits.workers or num_workers(), len(items)))
    waiting: dict[int, Outcome[T]] = {}
    try:
        with tqdm(total=len(items), desc=description, disable=None, file=sys.stderr) as progress:
            for index in range(len(items)):
                while index not in waiting:
                    for outcome in pool.advance(index + AHEAD_PER_WORKER * pool.size):
                        waiting[outcome.index] = outcome
                        progress.update()
                yield waiting.pop(index)
    finally:
        pool.close()


@dataclass(eq=False)
class _Worker:
    process: ForkServerProcess
    connection: Connection
    deadline: float  # on the monotonic clock
    slot: int
    index: int | None = None  # of the item in work
    ready: bool = False
    num_items: int = 0

    def kill(self) -> int:
        """Returns the exit code; negative for a signal."""
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode or 0


@dataclass
class _Pool(Generic[Item, T]):
    function: Callable[[Item], T]
    items: Sequence[Item]
    limits: Limits
    size: int
    next_index: int = 0
    workers: list[_Worker] = field(default_factory=list)
    again: list[int] = field(default_factory=list)  # items whose workers were stopped from outside
    times_stopped: Counter[int | None] = field(default_factory=Counter)  # by item; None: while a worker started

    def advance(self, index_limit: int) -> Iterator[Outcome[T]]:
        """Hands out items below the limit, waits for something to happen, and yields what was finished by it."""
        self._hand_out(min(index_limit, len(self.items)))
        busy = [worker for worker in self.workers if worker.index is not None or not worker.ready]
        patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
        heard = wait([worker.connection for worker in busy], patience)
        for worker in busy:
            if worker.connection in heard:
                yield from self._receive(worker)
            elif time.monotonic() > worker.deadline:
                yield self._give_up(worker)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.workers = []

    def _hand_out(self, index_limit: int) -> None:
        for worker in self.workers:
            if worker.ready and worker.index is None and (self.again or self.next_index < index_limit):
                if self.again:
                    worker.index = self.again.pop()
                else:
                    worker.index, self.next_index = self.next_index, self.next_index + 1
                worker.num_items += 1
                worker.deadline = time.monotonic() + self.limits.deadline_seconds
                # A worker that died while idle is found when its pipe is read.
                with suppress(ConnectionError):
                    worker.connection.send(self.items[worker.index])
        num_starting = sum(not worker.ready for worker in self.workers)
        num_waiting = len(self.again) + index_limit - self.next_index - num_starting
        for _ in range(min(self.size - len(self.workers), num_waiting)):
            slot = min(set(range(self.size)) - {worker.slot for worker in self.workers})
            self.workers.append(_start_worker(self.function, self.limits, slot))

    def _receive(self, worker: _Worker) -> Iterator[Outcome[T]]:
        try:
            status, value, error = worker.connection.recv()
        except (EOFError, OSError):  # it died between messages, or in the middle of one
            yield from self._mourn(worker)
            return
        self.times_stopped[None] = 0  # only starts that fail one after another are hopeless
        if status == "ready":
            worker.ready = True
            return
        if worker.index is None:
            raise RuntimeError(f"a worker process could not start: {error}")
        index, worker.index = worker.index, None
        if worker.num_items >= self.limits.items_per_worker:
            self._drop(worker)
        yield Outcome(index, status, value, error)

    def _mourn(self, worker: _Worker) -> Iterator[Outcome[T]]:
        """Tries again what a dead worker had in work, if that is not to blame; else that is an error."""
        # The exit code tells how it ended, and has to be there before the worker is dropped.
        worker.process.join(timeout=1.0)
        index, exit_code = worker.index, self._drop(worker)
        self.times_stopped[index] += 1
        if exit_code in FROM_OUTSIDE and self.times_stopped[index] < MAX_TRIES:
            self.again += [] if index is None else [index]
        elif index is None:
            raise RuntimeError(
                f"a worker process could not start: {_death(exit_code)}; in a script, what starts it must stand below"
                " `if __name__ == '__main__':`"
            )
        else:
            yield Outcome(index, "error", None, _death(exit_code))

    def _give_up(self, worker: _Worker) -> Outcome[T]:
        self._drop(worker)
        if worker.index is None:
            raise RuntimeError(f"a worker process did not start within {START_SECONDS:g} s")
        return Outcome(worker.index, "timeout", None, f"took longer than {self.limits.deadline_seconds:g} s")

    def _drop(self, worker: _Worker) -> int:
        self.workers.remove(worker)
        return worker.kill()


def start_server() -> None:
    """Starts the process that workers are forked from; threads of this process cannot do it as well.

    It and its workers ignore SIGTERM, which may be meant for all of a group: they end with this process, which first
    gives back what it was at.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGTERM, before)


def _start_worker(function: Callable[[Any], Any], limits: Limits, slot: int) -> _Worker:
    # forkserver: a fork of this process would copy locks that its threads hold, and an open decord reader hangs in it.
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, limits, slot), daemon=True)
    process.start()
    theirs.close()
    with suppress(ConnectionError):
        ours.send(function)
    deadline = time.monotonic() + START_SECONDS
    return _Worker(process, ours, deadline, slot)  # pyright: ignore[reportArgumentType] (the stub has Windows's too)


def _death(exit_code: int) -> str:
    if exit_code < 0:
        return f"the worker process was stopped by {signal.Signals(-exit_code).name}"
    return f"the worker process ended early with exit code {exit_code}"


def _work(connection: Connection, limits: Limits, slot: int) -> None:
    """Life of a worker: one function, then items until the pipe ends."""
    global _slot
    _slot = slot
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(ONE_THREAD)
    # Decoders print each damaged packet from native code; failures travel through the pipe instead.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        function = connection.recv()
    except Exception as error:
        connection.send(("error", None, f"{type(error).__name__}: {error}"))
        return
    _cap_memory(limits)
    connection.send(("ready", None, ""))
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        connection.send(_apply(function, item, limits.memory_megabytes))


def _apply(function: Callable[[Any], Any], item: Any, memory_megabytes: int) -> tuple[str, Any, str]:
    try:
        return "ok", function(item), ""
    except MemoryError:
        return "error", None, f"needed more than {memory_megabytes} MB of memory"
    except (UserError, ValueError) as error:
        return "error", None, _one_sentence(str(error) or type(error).__name__)
    except Exception as error:
        if "can't allocate memory" in str(error):  # torch's own allocator raises no MemoryError
            return "error", None, f"needed more than {memory_megabytes} MB of memory"
        return "error", None, _one_sentence(f"{type(error).__name__}: {error}")


def _one_sentence(text: str) -> str:
    return " ".join(text.split())[:MAX_MESSAGE_CHARACTERS]


def _cap_memory(limits: Limits) -> None:
    """Makes allocations fail at the limit.

    Memory is capped, not watched, because a decoder fills gigabytes between two looks, and then the kernel ends
    whatever process it likes. Libraries reserve much of it before the first item, hence the sum.
    """
    memory = psutil.Process().memory_info()
    kind, used = (resource.RLIMIT_DATA, memory.data) if limits.on_gpu else (resource.RLIMIT_AS, memory.vms)
    limit = used + limits.memory_megabytes * 2**20
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _die_with_parent() -> None:
    """Ends a worker whose parent was killed while an item is in work, when nobody reads the pipe."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
