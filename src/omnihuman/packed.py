"""Tokens of many samples as one sequence without padding, and attention that stays inside each sample.

Shape letters beside those of `omnihuman.batch`: N packed tokens, d width of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Runs:
    """How a packed sequence divides into consecutive runs, one a sample or one a latent frame."""

    lengths: tuple[int, ...]
    count: int
    total: int
    longest: int
    equal: bool
    """Whether all runs are of one length."""
    offsets: Tensor
    """int32 [runs + 1] on the tokens' device: where each run begins, then the end."""

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device) -> "Runs":
        """Runs of these lengths, in this order."""
        offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)
        longest = max(lengths, default=0)
        equal = min(lengths, default=0) == longest
        return Runs(tuple(lengths), len(lengths), sum(lengths), longest, equal, offsets)


def attend(q: Tensor, k: Tensor, v: Tensor, queries: Runs, keys: Runs) -> Tensor:
    """Attention of each run of queries to the run of keys with the same number.

    On a GPU in half precision runs of different lengths go through one kernel call; elsewhere they go one by one.

    Args:
        q: [N, heads, d]
        k, v: [M, heads, d]
        queries, keys: runs of N and of M tokens, equally many.

    Returns:
        [N, heads * d]
    """
    if not queries.count:  # nothing, yet of all three, so that each gets its gradient of zero
        return (q + k + v).flatten(1)
    q, k = q.to(v.dtype), k.to(v.dtype)  # under autocast a GPU normalises them to float32, and no kernel takes both
    if queries.equal and keys.equal:
        q, k, v = (t.unflatten(0, (queries.count, -1)).transpose(1, 2) for t in (q, k, v))
        return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2).flatten(0, 1)
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        from torch.nn.attention.varlen import varlen_attn

        out = varlen_attn(q, k, v, queries.offsets, keys.offsets, queries.longest, keys.longest)
        assert isinstance(out, Tensor)  # a tuple only where its statistics are asked for
        return out.flatten(1)
    return _attend_one_by_one(q, k, v, queries.lengths, keys.lengths)


@torch.compiler.disable()  # every pack has other lengths, and would be compiled anew
def _attend_one_by_one(q: Tensor, k: Tensor, v: Tensor, queries: tuple[int, ...], keys: tuple[int, ...]) -> Tensor:
    parts = (tokens.split(list(lengths)) for tokens, lengths in ((q, queries), (k, keys), (v, keys)))
    return torch.cat([_attend_one(*part) for part in zip(*parts, strict=True)])


def _attend_one(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    return functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)


@dataclass(frozen=True)
class Joint:
    """Two packed streams of the same samples, and how they stand as one: sample after sample, x before y."""

    x: Runs
    y: Runs
    both: Runs
    order: Tensor | None
    """[N + M], where each joint token stands in x followed by y; None where that is already the joint order."""
    x_places: Tensor | None
    """[N], where each token of x stands in the joint sequence; None: at its beginning."""
    y_places: Tensor | None
    """[M], the same of y; None: at its end."""

    @staticmethod
    def of(x: Runs, y: Runs) -> "Joint":
        """The joint order of two streams that hold as many runs."""
        device = x.offsets.device
        both = Runs.of([n + m for n, m in zip(x.lengths, y.lengths, strict=True)], device)
        if x.count == 1:
            return Joint(x, y, both, None, None, None)
        x_parts = torch.arange(x.total).split(list(x.lengths))
        y_parts = (torch.arange(y.total) + x.total).split(list(y.lengths))
        order = torch.cat([part for pair in zip(x_parts, y_parts, strict=True) for part in pair])
        places = order.argsort()
        order, places = order.to(device, non_blocking=True), places.to(device, non_blocking=True)
        return Joint(x, y, both, order, *places.split([x.total, y.total]))

    def join(self, x: Tensor, y: Tensor) -> Tensor:
        """[N, ...] and [M, ...] to [N + M, ...]."""
        one_after_other = torch.cat([x, y])
        return one_after_other if self.order is None else one_after_other.index_select(0, self.order)

    def take_x(self, joint: Tensor) -> Tensor:
        """The tokens of x [N, ...]."""
        return joint[: self.x.total] if self.x_places is None else joint.index_select(0, self.x_places)

    def take_y(self, joint: Tensor) -> Tensor:
        """The tokens of y [M, ...]."""
        return joint[self.x.total :] if self.y_places is None else joint.index_select(0, self.y_places)


def run_numbers(runs: Runs) -> Tensor:
    """[N], the number of the run that each token belongs to."""
    return torch.repeat_interleave(torch.arange(runs.count), torch.tensor(runs.lengths)).to(
        runs.offsets.device, non_blocking=True
    )
