"""What several metrics need of one video is computed once."""

import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from omnihuman.evaluation.metrics.measure import Shown

T = TypeVar("T")


class Once(Generic[T]):
    """A function of a video that remembers its last answer for as long as that video lives."""

    def __init__(self, function: Callable[[Shown], T]) -> None:
        self._function = function
        self._last: tuple[weakref.ref[Shown], T] | None = None

    def __call__(self, shown: Shown) -> T:
        if self._last is None or self._last[0]() is not shown:
            self._last = None  # before the next one is computed: two videos' worth may be large
            self._last = weakref.ref(shown, self._forget), self._function(shown)
        return self._last[1]

    def _forget(self, gone: "weakref.ref[Shown]") -> None:
        if self._last is not None and self._last[0] is gone:
            self._last = None
