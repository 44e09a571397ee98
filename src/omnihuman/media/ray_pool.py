"""The work of `media.worker` on a Ray cluster: one task per chunk of items, and in each a worker that can be killed."""

import math
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Generic

from tqdm import tqdm

from omnihuman.errors import UserError
from omnihuman.media.worker import MAX_TRIES, Item, Limits, Outcome, T, num_workers, run_guarded
from omnihuman.storage.work import code_key

TASKS_PER_PROCESSOR = 2
"""Chunks that are handed to the cluster or wait here, unread; bounds the memory of the caller."""

ANSWER_SECONDS = 5.0
PACKAGE = Path(__file__).parents[1]


def run_on_ray(
    function: Callable[[Item], T], items: Sequence[Item], limits: Limits, description: str
) -> Iterator[Outcome[T]]:
    """The outcomes of `run_guarded`, in the same order, from the cluster at `$RAY_ADDRESS`.

    Without an address Ray is started on this machine, with `num_workers` processors. A chunk whose process or node is
    lost is run again in halves; an item that is lost so `MAX_TRIES` times alone is an `error`. Files that items name
    have to lie at the same place on every node.

    Raises:
        UserError: ray is not installed or does not start, there is no cluster at the address, it has no GPU where one
            is asked for, or a node has other code than this machine.
    """
    if not items:
        return
    tasks = _Tasks(_connected(), function, items, limits)
    # A chunk has a worker of its own, which takes seconds to start, so chunks are as long as a worker may live.
    size = min(limits.items_per_worker, math.ceil(len(items) / tasks.processors))
    starts = iter(range(0, len(items), size))
    try:
        with tqdm(total=len(items), desc=description, disable=None, file=sys.stderr) as progress:
            while True:
                while tasks.has_room and (start := next(starts, None)) is not None:
                    tasks.running.append(tasks.begin(range(start, min(start + size, len(items)))))
                if not tasks.running:
                    return
                for outcome in tasks.first():
                    progress.update()
                    yield outcome
    finally:
        tasks.cancel()


@dataclass(frozen=True)
class _Chunk:
    """Items that are one task of the cluster's."""

    positions: range  # among all items
    reference: Any  # to what the task returns
    times_lost: int = 0


@dataclass
class _Tasks(Generic[Item, T]):
    ray: Any
    function: Callable[[Item], T]
    items: Sequence[Item]
    limits: Limits
    running: deque[_Chunk] = field(default_factory=deque)  # in the order of the items

    def __post_init__(self) -> None:
        kind = "GPU" if self.limits.on_gpu else "CPU"
        found = int(self.ray.cluster_resources().get(kind, 0))
        if self.limits.on_gpu and not found:
            raise UserError(
                "this machine has a GPU, but the Ray cluster has none, and the tasks would wait for one: add a node"
                " with a GPU, or set compute.pool=local or compute.accelerator=cpu"
            )
        self.processors = max(1, found)
        self.code = code_key(".")
        # Ray's own tries would take whole chunks, and would never end where a node's memory is too small.
        self.task = self.ray.remote(num_cpus=1, num_gpus=int(self.limits.on_gpu), max_retries=0)(_run_chunk)

    @property
    def has_room(self) -> bool:
        """Whether the cluster is to get another chunk."""
        return len(self.running) < TASKS_PER_PROCESSOR * self.processors

    def begin(self, positions: range, times_lost: int = 0) -> _Chunk:
        """Hands items to the cluster."""
        work = self.function, self.items[positions.start : positions.stop], self.limits
        return _Chunk(positions, self.task.remote(self.code, self.ray.cloudpickle.dumps(work)), times_lost)

    def first(self) -> list[Outcome[T]]:
        """Waits for the first chunk and takes it off; nothing comes of one that was lost and begun again."""
        errors, chunk = self.ray.exceptions, self.running[0]
        lost = (
            *(errors.WorkerCrashedError, errors.NodeDiedError, errors.LocalRayletDiedError),
            *(errors.OutOfMemoryError, errors.ObjectLostError),
        )
        try:
            outcomes = self.ray.get(chunk.reference)
        except lost as error:
            self.running.popleft()
            return self._begin_again(chunk, type(error).__name__)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, UserError) else error from None
        self.running.popleft()
        return [replace(outcome, index=chunk.positions[outcome.index]) for outcome in outcomes]

    def cancel(self) -> None:
        """Ends what is in work."""
        for chunk in self.running:
            self.ray.cancel(chunk.reference, force=True)

    def _begin_again(self, chunk: _Chunk, reason: str) -> list[Outcome[T]]:
        """Halves a chunk, as nobody knows which of its items was in work, until one alone is to blame."""
        positions, times_lost = chunk.positions, chunk.times_lost + 1
        if middle := len(positions) // 2:
            self.running.extendleft([self.begin(positions[middle:]), self.begin(positions[:middle])])
        elif times_lost < MAX_TRIES:
            self.running.appendleft(self.begin(positions, times_lost))
        else:
            error = f"Ray lost the process or the node {times_lost} times ({reason})"
            return [Outcome(positions[0], "error", None, error)]
        return []


def _run_chunk(code: str, work: bytes) -> list[Outcome[Any]]:
    """Runs in a process of Ray's, which counts as one processor; a decoder that hangs would hold it for ever.

    Args:
        code: `code_key` of the sender; under other code `work` is not even read.
        work: function, items and limits, pickled.

    Raises:
        UserError: the code here is another one.
    """
    if code_key(".") != code:
        raise UserError(
            f"the node {socket.gethostname()} of the Ray cluster has other code in {PACKAGE} than the machine that"
            " runs the step had at its begin: install the same commit on every node, and run the step again"
        )
    function, items, limits = import_module("ray").cloudpickle.loads(work)
    return list(run_guarded(function, items, replace(limits, workers=1), ""))


def _connected() -> Any:
    """The package ray, with a cluster that stays until this process ends."""
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise UserError(
            "compute.pool is ray, but the package ray is not installed: run `.venv/bin/pip install '.[ray]'`, or set"
            " compute.pool=local"
        ) from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "")
        _check_answers(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {} if address else {"num_cpus": num_workers(), "include_dashboard": False}
        try:
            # Without an address never one that happens to run here, whose processors are not ours to count.
            ray.init(address=address or "local", log_to_driver=False, logging_level="error", **here)
        except Exception as error:  # a bare one where Ray's processes take longer than 30 s to start
            tried = f"reached at RAY_ADDRESS={address}" if address else "started on this machine"
            raise UserError(f"Ray cannot be {tried}: {error}; without it, set compute.pool=local") from error
    return ray


def _check_answers(address: str) -> None:
    """Raises `UserError` where nothing listens at `host:port`; Ray itself tries that for minutes."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS is {address}: nothing answers there; start a cluster or unset it") from error
