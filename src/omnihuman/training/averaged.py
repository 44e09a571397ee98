"""The moving average in the place of the weights, for as long as they are looked at."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.ema import WeightAverage
from omnihuman.training.ranks import Ranks


@contextmanager
def average_in_place(average: WeightAverage, ranks: Ranks, model: OmniHumanTransformer) -> Iterator[None]:
    """Inside the block the model holds the average; afterwards it is bit by bit what it was.

    Under ZeRO-2 each rank has a part of the average, and all must enter together. Weights that are divided themselves
    (ZeRO-3) cannot be exchanged.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}  # what is frozen has no average
    # The storage stays where it is: DeepSpeed and compiled blocks hold on to it.
    kept = {name: parameter.detach().cpu().clone() for name, parameter in parameters.items()}
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(_whole(average, ranks, name, parameter))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])


def _whole(average: WeightAverage, ranks: Ranks, name: str, like: Tensor) -> Tensor:
    """One parameter's average from the pieces of all ranks, which do not overlap."""
    flat = torch.zeros(like.numel())
    for piece in average.pieces:
        if piece.name == name:
            flat[piece.start : piece.start + len(piece.values)] = piece.values.cpu()
    if ranks.size > 1:
        distributed.all_reduce(flat)
    return flat.reshape(like.shape)
