"""Colour that drifts from segment to segment, led back to the reference's."""

import torch
from torch import Tensor

_LEAST_DEVIATION = 1e-3
"""Of a channel in -1..1; a flat picture has no contrast to match."""


def towards_reference(frames: Tensor, reference: Tensor, strength: float) -> Tensor:
    """Moves mean and standard deviation of each colour channel towards the reference's.

    Args:
        frames: [B, 3, F, H, W] in -1..1; all frames are moved alike, so that nothing flickers.
        reference: [B, 3, 1, H, W], the reference picture through the same codec.
        strength: 0 leaves the frames as they are, 1 gives them the reference's statistics.

    Returns:
        Frames in -1..1.
    """
    if strength == 0.0:
        return frames
    over = (2, 3, 4)
    mean, wanted_mean = frames.mean(over, keepdim=True), reference.mean(over, keepdim=True)
    deviation, wanted_deviation = (
        x.std(over, keepdim=True, correction=0).clamp(min=_LEAST_DEVIATION) for x in (frames, reference)
    )
    matched = (frames - mean) * (wanted_deviation / deviation) + wanted_mean
    return torch.lerp(frames, matched, strength).clamp(-1.0, 1.0)
