"""The moving average in the place of the weights, for as long as they are looked at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn

from omnihuman.model.omnihuman import OmniHumanTransformer
from omnihuman.training.divided import is_divided
from omnihuman.training.ema import WeightAverage
from omnihuman.training.ranks import Ranks


@contextmanager
def average_in_place(average: WeightAverage, ranks: Ranks, model: OmniHumanTransformer) -> Iterator[None]:
    """Inside the block the model holds the average; afterwards it is bit by bit what it was. All ranks enter together.

    Under ZeRO-2 each rank has all weights and a part of the average, under ZeRO-3 the same part of both.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}  # what is frozen has no average
    # The storage stays where it is: DeepSpeed and compiled blocks hold on to it.
    kept = {name: _held(parameter).detach().cpu().clone() for name, parameter in parameters.items()}
    try:
        with torch.no_grad():
            if is_divided(model):
                for piece in average.pieces:
                    _held(parameters[piece.name])[: len(piece.values)].copy_(piece.values)
            else:
                for name, parameter in parameters.items():
                    parameter.copy_(_whole(average, ranks, name, parameter))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                _held(parameter).copy_(kept[name])


def _held(parameter: nn.Parameter) -> Tensor:
    """What lies on this rank: the parameter, or its part [elements, padded at the end] under ZeRO-3.

    What was gathered of it is let go, lest it be used instead of the part.
    """
    divided: Any = parameter
    if not hasattr(divided, "ds_tensor"):
        return parameter
    divided.partition()
    return divided.ds_tensor


def _whole(average: WeightAverage, ranks: Ranks, name: str, like: Tensor) -> Tensor:
    """One parameter's average from the pieces of all ranks, which do not overlap."""
    flat = torch.zeros(like.numel())
    for piece in average.pieces:
        if piece.name == name:
            flat[piece.start : piece.start + len(piece.values)] = piece.values.cpu()
    if ranks.size > 1:
        distributed.all_reduce(flat)
    return flat.reshape(like.shape)
