"""Segments that several threads ask for at the same time, each for a video of its own, made in one batch."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from omnihuman.batch import Conditions
from omnihuman.conditions.assembly import join_conditions, sizes_of
from omnihuman.inference.generator import LoadedGenerator

log = logging.getLogger(__name__)
PATIENCE_SHARE = 0.25
"""Of the time that the last batch took: so long a batch waits for those who are not yet ready to join it."""
NoiseKeys = Sequence[tuple[int | str, ...]]
MakeSegments = Callable[[Conditions, int, NoiseKeys], Tensor]


@dataclass(frozen=True, kw_only=True)
class SharingGenerator(LoadedGenerator):
    """A generator for several threads: segments of one size and one way of sampling share a batch.

    A video is then the same as alone within the rounding of larger products of matrices.
    """

    batches: "SegmentBatches" = field(default_factory=lambda: SegmentBatches())

    @classmethod
    def around(cls, generator: LoadedGenerator) -> "SharingGenerator":
        """The same model with the same settings."""
        return cls(**{each.name: getattr(generator, each.name) for each in fields(generator)})

    def segment(self, conditions: Conditions, num_latents: int, noise_keys: NoiseKeys) -> Tensor:
        """As `Generator.segment`, together with the other threads' segments."""
        kind = (self.sampling, num_latents, sizes_of(conditions))
        return self.batches.segment(kind, super().segment, conditions, num_latents, noise_keys)


@dataclass(frozen=True, eq=False)
class _Asked:
    conditions: Conditions
    noise_keys: NoiseKeys
    made: "Future[Tensor]" = field(default_factory=Future)


class SegmentBatches:
    """One batch at a time; whoever waits longest and finds the model free makes it for all that ask for its kind."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked: dict[Hashable, list[_Asked]] = {}
        self._members = 0
        self._is_busy = False
        self._last_seconds = 0.0

    @contextmanager
    def member(self) -> Iterator[None]:
        """While it is open, batches wait a moment for this thread's segment."""
        with self._changed:
            self._members += 1
        try:
            yield
        finally:
            with self._changed:
                self._members -= 1
                self._changed.notify_all()

    def segment(
        self, kind: Hashable, make: MakeSegments, conditions: Conditions, num_latents: int, noise_keys: NoiseKeys
    ) -> Tensor:
        """What `make` gives for these conditions, made together with others of the same kind.

        Raises:
            BaseException: what `make` raises for this part alone: where a batch fails, its parts are made one after
                another. What is no Exception, such as a stop, is raised in every thread that has a part in the batch.
        """
        mine, since = _Asked(conditions, noise_keys), time.monotonic()
        with self._changed:
            self._asked.setdefault(kind, []).append(mine)
            self._changed.notify_all()
            while not mine.made.done() and not self._may_begin(mine, kind, since):
                self._changed.wait(None if self._is_busy else self._patience(since))
            if mine.made.done():
                return mine.made.result()
            group = self._asked.pop(kind)
            self._is_busy = True
        began = time.monotonic()
        _make(make, group, num_latents)
        with self._changed:
            self._is_busy, self._last_seconds = False, time.monotonic() - began
            self._changed.notify_all()
        return mine.made.result()

    def _may_begin(self, mine: _Asked, kind: Hashable, since: float) -> bool:
        if self._is_busy or mine not in self._asked.get(kind, []):
            return False
        num_waiting = sum(map(len, self._asked.values()))
        return num_waiting >= self._members or not self._patience(since)

    def _patience(self, since: float) -> float:
        """Seconds that are left to wait for others."""
        return max(0.0, since + PATIENCE_SHARE * self._last_seconds - time.monotonic())


def _make(make: MakeSegments, group: Sequence[_Asked], num_latents: int) -> None:
    """Makes the batch and hands everyone their part, or the error."""
    error = _error_of_batch(make, group, num_latents)
    if len(group) > 1 and isinstance(error, Exception):
        log.warning("%d segments cannot be made together (%s): they are made one after another", len(group), error)
        traceback.clear_frames(error.__traceback__)  # they hold what filled the memory
        error = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for asked in group:
            _make(make, [asked], num_latents)
    elif error is not None:
        for asked in group:
            asked.made.set_exception(error)


def _error_of_batch(make: MakeSegments, group: Sequence[_Asked], num_latents: int) -> BaseException | None:
    try:
        together = join_conditions([asked.conditions for asked in group])
        made = make(together, num_latents, [key for asked in group for key in asked.noise_keys])
        for asked, part in zip(group, made.split([len(asked.noise_keys) for asked in group]), strict=True):
            asked.made.set_result(part)
    except BaseException as error:
        return error
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the processor's or the device's memory was too small."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # torch's allocator on the CPU
