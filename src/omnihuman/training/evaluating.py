"""Looking at a model in the middle of training without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards mode and random state are what they were, part by part."""
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with isolate_rng(), torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
