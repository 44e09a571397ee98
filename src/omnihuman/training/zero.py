"""Whole weights from a checkpoint of any strategy, and checkpoints for another number of ranks."""

from contextlib import redirect_stdout
from dataclasses import replace
from os import devnull
from pathlib import Path

import torch
from torch import Tensor

from omnihuman.model.checkpoint import DESCRIPTION, read_description, save_description, save_weights
from omnihuman.training.checkpoints import STATE
from omnihuman.training.ema import averaged_weights

_TAG = "checkpoint"
"""The name that Lightning gives what DeepSpeed writes."""


def whole_weights(folder: Path) -> tuple[dict[str, Tensor], bool]:
    """The model's tensors in float32 from a checkpoint's folder, and whether they are a moving average.

    Buffers, which no step changes, are never averaged.
    """
    state = folder / STATE
    if state.is_dir():
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with Path(devnull).open("w") as nowhere, redirect_stdout(nowhere):
            stored = get_fp32_state_dict_from_zero_checkpoint(str(state), _TAG)
    else:
        stored = torch.load(state, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
    weights = {name.removeprefix("model."): tensor.float() for name, tensor in stored.items()}
    average = averaged_weights(folder, {name: tensor.shape for name, tensor in weights.items()})
    return {**weights, **average}, bool(average)


def consolidate(folder: Path, target: Path) -> None:
    """Writes the model of a checkpoint's folder, as a stage publishes it, into the existing folder `target`."""
    weights, averaged = whole_weights(folder)
    description = read_description(folder / DESCRIPTION)
    if averaged:
        description = replace(description, note="the weights are their moving average (training.ema_decay)")
    save_weights(target, weights)
    save_description(target, description)
