"""A rank's packs, made in its own process or by workers beside it, in the same order.

Workers are spawned: a fork would copy the locks of CUDA, gloo and S3's threads as they happen to stand.
"""

import ctypes
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from omnihuman.batch import Pack
from omnihuman.errors import UserError
from omnihuman.training.dataset import StagePacks

_PREFETCHED = 2
"""Packs that each worker is ahead."""
_PR_SET_PDEATHSIG = 1
_WORKER_DIED = "DataLoader worker (pid"
"""How PyTorch begins to say so, wherever the main thread is at that moment."""
_NOT_FOR_WORKERS = {signal.SIGINT, signal.SIGTERM}
"""Sent to a whole group of processes, they would end the workers before the step that is to be saved."""


@dataclass(frozen=True)
class _Sent:
    """What a worker sends. PyTorch would put a traceback into the message of an error that is raised there."""

    pack: Pack = ()
    error: UserError | None = None

    def pin_memory(self) -> "_Sent":
        """Called by the loader, where the packs go to a GPU."""
        return replace(self, pack=tuple(each_tensor(part, Tensor.pin_memory) for part in self.pack))


class _SentPacks(IterableDataset):
    def __init__(self, packs: StagePacks) -> None:
        self._packs = packs

    def __iter__(self) -> Iterator[_Sent]:
        try:
            yield from map(_Sent, self._packs)
        except UserError as error:
            yield _Sent(error=error)


def _end_with_the_rank(_: int) -> None:
    """Also where the rank is killed; PyTorch itself gives a worker one thread."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class LoadedPacks:
    """The packs of `StagePacks` in their order; as a context, it leaves no worker behind and names one that died.

    Args:
        num_workers: 0 makes them where they are asked for.
        pin: into memory that a GPU reads by itself.

    Raises:
        UserError: at the end of the context where a worker was killed; while iterating, whatever making a pack raises.
    """

    def __init__(self, packs: StagePacks, num_workers: int = 0, *, pin: bool = False) -> None:
        self._packs, self._num_workers, self._pin = packs, num_workers, pin
        self._running: Any = None

    def __iter__(self) -> Iterator[Pack]:
        """Begins with the packs' first step, each time that it is called."""
        if not self._num_workers:
            yield from self._packs
            return
        self._stop()
        self._running = self._start()
        for sent in self._running:
            if sent.error:
                raise sent.error
            yield sent.pack

    def _start(self) -> Iterator[_Sent]:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each tensor under way keeps a file open
        loader = DataLoader(
            _SentPacks(self._packs),
            batch_size=None,
            num_workers=self._num_workers,
            multiprocessing_context="spawn",
            prefetch_factor=_PREFETCHED,
            worker_init_fn=_end_with_the_rank,
            pin_memory=self._pin,
        )
        resource_tracker.ensure_running()  # starting it would let the signals in again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_WORKERS)
        try:
            return iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _stop(self) -> None:
        """Without persistent workers PyTorch has no public way to end them while somebody holds their iterator."""
        if self._running is not None:
            self._running._shutdown_workers()
            for worker in self._running._workers:
                worker.kill()  # one that hangs: TERM does not reach it
                worker.join()
            self._running = None

    def __enter__(self) -> "LoadedPacks":
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: TracebackType | None) -> None:
        self._stop()
        if isinstance(error, RuntimeError) and str(error).startswith(_WORKER_DIED):
            raise UserError(
                f"a loader worker ended before its time ({str(error).splitlines()[0]}): most often memory, or /dev/shm"
                f" through which packs come, was full. compute.loader_workers is {self._num_workers}: set it lower, or"
                " to 0, and start the stage again; it goes on from its last checkpoint"
            ) from error


def each_tensor(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same frozen dataclass with every tensor changed, also nested ones."""
    if isinstance(batch, Tensor):
        return change(batch)
    return type(batch)(**{name: each_tensor(value, change) for name, value in vars(batch).items()})
