"""The order of samples as training takes it: without the steps that were left out."""

from dataclasses import dataclass
from typing import Protocol

from omnihuman.training.sampling import Draw


class Order(Protocol):
    """Gives the samples of a step."""

    def batch(self, step: int) -> list[Draw]:
        """All samples of step `step`, counted from 0."""
        ...


@dataclass
class TakenSteps:
    """An order in which some steps are passed over."""

    order: Order
    skipped: tuple[int, ...] = ()
    """Steps of the order that nobody takes, rising."""

    def batch(self, step: int) -> list[Draw]:
        """The samples of training step `step`."""
        return self.order.batch(self.position(step))

    def position(self, step: int) -> int:
        """Of the order's steps, the one that training step `step` takes."""
        for left_out in self.skipped:
            step += left_out <= step
        return step
