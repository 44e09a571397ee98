"""Which samples of a step this rank takes, and in which micro-step; steps that were left out are passed over."""

from dataclasses import dataclass, field
from typing import Protocol

from omnihuman.training.ranks import Ranks
from omnihuman.training.sampling import Draw


class Order(Protocol):
    """Gives the samples of a step."""

    def batch(self, step: int) -> list[Draw]:
        """All samples of step `step`, counted from 0."""
        ...


@dataclass
class RankOrder:
    """The order as one rank sees it: `batch(n)` is its share of micro-step `n`, never empty where `check_ranks` passed.

    The step's samples are the same for any number of ranks and micro-steps.
    """

    order: Order
    ranks: Ranks = field(default_factory=Ranks)
    accumulate: int = 1
    skipped: tuple[int, ...] = ()
    """Steps of the order that nobody takes, rising."""

    def batch(self, step: int) -> list[Draw]:
        """This rank's samples of micro-step `step`."""
        number, micro_step = divmod(step, self.accumulate)
        own = slice(micro_step * self.ranks.size + self.ranks.rank, None, self.ranks.size * self.accumulate)
        return self.order.batch(self.position(number))[own]

    def position(self, step: int) -> int:
        """Of the order's steps, the one that training step `step` takes."""
        for left_out in self.skipped:
            step += left_out <= step
        return step
