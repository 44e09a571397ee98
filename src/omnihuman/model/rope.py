"""Rotary position embedding over time, rows and columns."""

import torch
from torch import Tensor


def video_positions(num_latents: int, height: int, width: int, device: torch.device) -> Tensor:
    """Integer positions [T h w, 3] (time, row, column), flattened row-major."""
    axes = [torch.arange(size, device=device) for size in (num_latents, height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def rotation(positions: Tensor, axes: tuple[int, int, int], theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine [N, d / 2] for positions [N, 3]; frequencies in float64, result in float32."""
    angles = []
    for axis, channels in enumerate(axes):
        exponent = torch.arange(0, channels, 2, dtype=torch.float64, device=positions.device) / channels
        angles.append(positions[:, axis, None].double() * theta**-exponent)
    angle = torch.cat(angles, dim=-1)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates adjacent pairs (a, b) of [B, heads, N, d] to (a cos - b sin, a sin + b cos)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(dim=-1)
    cosine, sine = cosine.to(x), sine.to(x)
    return torch.stack([a * cosine - b * sine, a * sine + b * cosine], dim=-1).flatten(-2)
