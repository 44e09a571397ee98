"""How the draws of one step divide into packs: over the ranks by what they cost, within a rank by what fits.

A pure function of the draws: all ranks come to the same division without a word between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from omnihuman.data.shards import Encoders
from omnihuman.encoders.video_codec import SPATIAL_FACTOR, num_latent_frames
from omnihuman.errors import UserError
from omnihuman.training.sampling import Draw

Cost = Callable[[Draw], float]
"""What a draw costs to compute, in any unit; a pure function of the draw, the same on all ranks and at each start."""


class TokenCounts:
    """Tokens of each draw: its video's, its reference picture's and the most that its text may have.

    Conditions that are off leave tokens out; a budget holds for the worst case.
    """

    def __init__(self, samples: pd.DataFrame, encoders: Encoders, patch_size: int) -> None:
        side = SPATIAL_FACTOR * patch_size
        self._of_frame = samples["width"].to_numpy(np.int64) // side * (samples["height"].to_numpy(np.int64) // side)
        self._num_latents = num_latent_frames(encoders.num_frames)
        self._num_text = encoders.max_text_tokens

    def __call__(self, draw: Draw) -> int:
        """Of one draw."""
        num_latents = min(draw.num_latents or self._num_latents, self._num_latents)
        return (num_latents + 1) * int(self._of_frame[draw.row]) + self._num_text

    def largest(self) -> int:
        """Of a whole window of the largest clip."""
        return (self._num_latents + 1) * int(self._of_frame.max()) + self._num_text


@dataclass(frozen=True)
class Division:
    """Who computes which draws."""

    max_tokens_per_pack: int | None = None
    world_size: int = 1
    tokens: TokenCounts | None = None
    """None: each draw counts as one."""
    cost: Cost | None = None
    """None: a draw costs its tokens."""

    def check(self, batch_size: int, packs_per_rank: int) -> None:
        """Raises `UserError` where a step might not fit its packs, before anything is loaded."""
        budget, largest = self.max_tokens_per_pack, self.tokens.largest() if self.tokens else 1
        samples = -(-batch_size // (self.world_size * packs_per_rank))
        if budget is None or samples * largest <= budget:
            return
        remedy = "encode at smaller encode.resolutions"
        divisors = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
        fitting = [count for count in divisors if -(-batch_size // (self.world_size * count)) * largest <= budget]
        if fitting and batch_size // fitting[0] >= self.world_size:
            remedy = f"compute.accumulate to {fitting[0]}, or {remedy}"
        raise UserError(
            f"compute.max_tokens_per_pack is {budget}: {samples} sample(s) of {largest} tokens, the largest clip's with"
            f" its reference and text, may come at once; set it to {samples * largest}, {remedy}"
        )

    def packs(self, draws: Sequence[Draw], packs_per_rank: int | None = None) -> list[list[list[Draw]]]:
        """The draws of each pack of each rank, equally many packs a rank, none empty, in the order of the draws.

        The dearest draws come first and each goes where least lies so far (longest processing time first).

        Args:
            packs_per_rank: where training fixes it; by default the fewest that the budget allows.

        Raises:
            UserError: the draws do not fit so many packs.
        """
        tokens = [self.tokens(draw) if self.tokens else 1 for draw in draws]
        costs = [self.cost(draw) for draw in draws] if self.cost else list(map(float, tokens))
        room = (self.max_tokens_per_pack or np.inf) * self.world_size
        least = max(1, int(np.ceil(sum(tokens) / room)))
        numbers = range(least, len(draws) // self.world_size + 1) if packs_per_rank is None else (packs_per_rank,)
        for number in numbers:
            if packs := self._fill(tokens, costs, number * self.world_size):
                of_ranks = _deal([sum(costs[place] for place in pack) for pack in packs], self.world_size)
                return [[[draws[place] for place in sorted(packs[number])] for number in mine] for mine in of_ranks]
        raise UserError(
            f"{len(draws)} samples of at most {max(tokens)} tokens do not fit {packs_per_rank or 'any number of'} packs"
            f" of max_tokens_per_pack ({self.max_tokens_per_pack}) on each of {self.world_size} ranks: raise it, or"
            " the number of packs a step"
        )

    def _fill(self, tokens: list[int], costs: list[float], num_packs: int) -> list[list[int]]:
        """Places of draws in so many packs; none where they do not fit."""
        room = [self.max_tokens_per_pack or np.inf] * num_packs
        packs: list[list[int]] = [[] for _ in range(num_packs)]
        so_far = [0.0] * num_packs
        for place in sorted(range(len(tokens)), key=lambda place: (-costs[place], place)):
            fitting = [number for number in range(num_packs) if room[number] >= tokens[place]]
            if not fitting:
                return []
            chosen = min(fitting, key=lambda number: so_far[number])
            packs[chosen].append(place)
            room[chosen] -= tokens[place]
            so_far[chosen] += costs[place]
        return packs


def _deal(costs: list[float], world_size: int) -> list[list[int]]:
    """Numbers of packs for each rank: packs that are computed at once cost alike, and so do the ranks' sums."""
    order = sorted(range(len(costs)), key=lambda number: (-costs[number], number))
    hands: list[list[int]] = [[] for _ in range(world_size)]
    sums = [0.0] * world_size
    for first in range(0, len(order), world_size):
        ranks = sorted(range(world_size), key=lambda rank: (sums[rank], rank))
        for rank, number in zip(ranks, order[first : first + world_size], strict=True):
            hands[rank].append(number)
            sums[rank] += costs[number]
    return hands
