"""The processes of one stage: which of them this one is, and what they tell one another."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from omnihuman.errors import UserError

T = TypeVar("T")

_PATIENCE = timedelta(minutes=30)
"""A rank waits this long for another, e.g. for the first to read through a large checkpoint."""


@dataclass(frozen=True)
class Ranks:
    """One process of `size`, of which `local_size` share this machine; by default there is no other."""

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> "Ranks":
        """What torchrun tells the process that it starts."""
        names = {"rank": ("RANK", 0), "size": ("WORLD_SIZE", 1), "local_size": ("LOCAL_WORLD_SIZE", 1)}
        return cls(**{key: int(os.environ.get(name, default)) for key, (name, default) in names.items()})

    @property
    def first(self) -> bool:
        """Whether this one speaks for all: it prints, publishes and keeps the curves."""
        return self.rank == 0

    def connect(self) -> None:
        """Finds the others; what is told between ranks goes by the processor, gradients by the GPUs where there are."""
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=_PATIENCE)

    def disconnect(self) -> None:
        """Says goodbye; only when all is well, since it waits for the others."""
        if distributed.is_initialized():
            distributed.destroy_process_group()

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks in their order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def of_first(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values)
        return values[0]

    def together(self, make: Callable[[], T]) -> T:
        """What `make` returns here, when it has returned on every rank.

        Raises:
            UserError: it failed on another rank; here its own error is raised.
        """
        if self.size == 1:
            return make()
        made: T | None = None
        problem: Exception | None = None
        try:
            made = make()
        except Exception as error:  # whatever it is, the others must not wait
            problem = error
        failed = {rank: said for rank, said in enumerate(self.gather(repr(problem) if problem else "")) if said}
        if problem:
            raise problem
        for rank, said in failed.items():
            raise UserError(f"rank {rank} failed, and this one ends with it: {said}")
        return cast(T, made)

    def sum(self, *values: float) -> list[float]:
        """Each value added up over the ranks in double precision."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(total)
        return total.tolist()

    def wait(self) -> None:
        """Until every rank is here."""
        if self.size > 1:
            distributed.barrier()
