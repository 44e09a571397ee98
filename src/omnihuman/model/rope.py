"""Rotary position embedding over time, rows and columns."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Angles of N tokens as cosine and sine, float32 [N, d / 2]."""

    cosine: Tensor
    sine: Tensor


def video_positions(num_latents: int, height: int, width: int, device: torch.device) -> Tensor:
    """Integer positions [T h w, 3] (time, row, column), flattened row-major."""
    axes = [torch.arange(size, device=device) for size in (num_latents, height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def rotation(positions: Tensor, axes: tuple[int, int, int], theta: float) -> Rotation:
    """Angles of positions [N, 3]; frequencies in float64, result in float32."""
    angles = []
    for axis, channels in enumerate(axes):
        exponent = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device) / channels
        angles.append(positions[:, axis, None].double() * theta**-exponent)
    angle = torch.cat(angles, dim=-1)
    return Rotation(angle.cos().float(), angle.sin().float())


@lru_cache(maxsize=64)
def grid_rotation(
    num_latents: int, height: int, width: int, axes: tuple[int, int, int], theta: float, device: torch.device
) -> Rotation:
    """Angles of all tokens of a video of this size, kept for the next step."""
    return rotation(video_positions(num_latents, height, width, device), axes, theta)


def no_rotation(num_tokens: int, like: Rotation) -> Rotation:
    """Angles of zero."""
    shape = (num_tokens, like.cosine.shape[1])
    return Rotation(like.cosine.new_ones(shape), like.sine.new_zeros(shape))


def rotate(x: Tensor, angles: Rotation) -> Tensor:
    """Rotates adjacent pairs (a, b) of [N, heads, d] to (a cos - b sin, a sin + b cos), in float32.

    That is a product of complex numbers, which passes over memory once; the compiler fuses the real form instead.
    """
    pairs = x.float().unflatten(-1, (-1, 2))
    cosine, sine = angles.cosine[:, None], angles.sine[:, None]
    if not torch.compiler.is_compiling():
        turned = torch.view_as_complex(pairs) * torch.complex(cosine, sine)
        return torch.view_as_real(turned).flatten(-2).to(x.dtype)
    a, b = pairs.unbind(dim=-1)
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1).flatten(-2).to(x.dtype)
