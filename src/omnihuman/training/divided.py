"""Weights that ZeRO-3 divides over the ranks, put together for one of them."""

import torch
from torch import Tensor, nn

from omnihuman.model.omnihuman import OmniHumanTransformer


def is_divided(model: nn.Module) -> bool:
    """Whether each rank holds a part of the weights."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def whole_copy(model: OmniHumanTransformer, first: bool) -> OmniHumanTransformer | None:
    """A model of its own on the first rank, with the divided weights whole and as precise as they are there.

    All ranks call it, and only what is in here waits for others. It takes the memory of one parameter on each device,
    and of one copy of the weights on the first rank's processor.

    Raises:
        MemoryError, RuntimeError: the first rank has no room, on that rank alone and after all others are done.
    """
    from deepspeed.runtime.zero import GatheredParameters

    whole: dict[str, Tensor] = {}
    problem: Exception | None = None
    for name, parameter in model.named_parameters():
        with GatheredParameters([parameter]):
            try:
                if first and problem is None:
                    whole[name] = parameter.detach().cpu().clone()
            except (MemoryError, RuntimeError) as error:  # the others wait in the gathers that are still to come
                problem = error
    if problem:
        raise problem
    if not first:
        return None
    with torch.device("meta"):
        copy = OmniHumanTransformer(model.config, model.widths)
    copy.load_state_dict(whole | {name: buffer.detach().cpu() for name, buffer in model.named_buffers()}, assign=True)
    return copy
