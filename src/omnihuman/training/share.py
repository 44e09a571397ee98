"""The order of samples as training takes it: in micro-steps, and without the steps that were left out."""

from dataclasses import dataclass
from typing import Protocol

from omnihuman.training.sampling import Draw


class Order(Protocol):
    """Gives the samples of a step."""

    batch_size: int

    def batch(self, step: int) -> list[Draw]:
        """All samples of step `step`, counted from 0."""
        ...


@dataclass
class MicroSteps:
    """Draws of micro-steps, for all ranks together; a step's samples are the same for any number of micro-steps."""

    order: Order
    accumulate: int = 1
    skipped: tuple[int, ...] = ()
    """Steps of the order that nobody takes, rising."""

    @property
    def batch_size(self) -> int:
        """Of a micro-step."""
        return self.order.batch_size // self.accumulate

    def batch(self, step: int) -> list[Draw]:
        """The samples of micro-step `step`."""
        number, micro_step = divmod(step, self.accumulate)
        return self.order.batch(self.position(number))[micro_step :: self.accumulate]

    def position(self, step: int) -> int:
        """Of the order's steps, the one that training step `step` takes."""
        for left_out in self.skipped:
            step += left_out <= step
        return step
