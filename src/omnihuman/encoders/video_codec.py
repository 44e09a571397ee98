"""The causal video codec that needs no weights: block cosines, of which only the low frequencies are kept.

It has the shape of a causal video VAE: one latent for the first frame, one for every further four, a spatial factor of
eight, and 4k + 1 frames. A latent never depends on a later frame.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from omnihuman.errors import UserError

TEMPORAL_FACTOR = 4
SPATIAL_FACTOR = 8

# For each temporal frequency, how many diagonals of the spatial 8 x 8 frequencies are kept: (luma, chroma).
_KEPT_DIAGONALS = ((6, 4), (4, 1), (3, 0), (0, 0))


class VideoCodec(Protocol):
    """A frozen network or transform between pixels and latents."""

    name: str
    num_channels: int

    def encode(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in -1..1, F = 4k + 1, to latents [B, C, T, h, w]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, C, T, h, w] to video [B, 3, F, H, W], not clamped."""
        ...

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields 1 and then 4, 4, ... frames [B, 3, n, H, W], not clamped, for latent frames [B, C, 1, h, w]."""
        ...


@dataclass(frozen=True)
class _Coefficient:
    """One kept frequency: colour plane (0 luma, 1 and 2 chroma), then temporal, vertical and horizontal frequency."""

    plane: int
    time: int
    vertical: int
    horizontal: int

    def scale(self) -> float:
        """Standard deviation assumed for this coefficient: pictures fall off like one over the frequency."""
        if self.time == self.vertical == self.horizontal == 0:
            return math.sqrt(8.0 if self.plane == 0 else 3.0)
        spatial = math.hypot(self.vertical, self.horizontal)
        amplitude = 3.0 if self.plane == 0 else 1.0
        return math.sqrt(amplitude / (1.0 + spatial) / (1.0 + 2.0 * self.time))


def _kept_coefficients() -> list[_Coefficient]:
    kept = []
    for time, diagonals in enumerate(_KEPT_DIAGONALS):
        for plane, limit in ((0, diagonals[0]), (1, diagonals[1]), (2, diagonals[1])):
            kept += [_Coefficient(plane, time, v, u) for v in range(limit) for u in range(limit - v)]
    return kept


def cosine_basis(size: int) -> Tensor:
    """Orthonormal DCT-II matrix [frequency, position] in float64."""
    position = torch.arange(size, dtype=torch.float64) + 0.5
    frequency = torch.arange(size, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / size * frequency * position) * math.sqrt(2.0 / size)
    basis[0] /= math.sqrt(2.0)
    return basis


# Full-range BT.601: rows are Y, Cb, Cr over R, G, B.
_RGB_TO_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=torch.float64
)


class CosineCodec:
    """A linear transform per block of 4 frames x 8 x 8 pixels; the first frame counts as a block of four copies."""

    name = "cosine"

    def __init__(self) -> None:
        kept = _kept_coefficients()
        self.num_channels = len(kept)
        time, space = cosine_basis(TEMPORAL_FACTOR), cosine_basis(SPATIAL_FACTOR)
        # [C, plane, time, vertical, horizontal]: orthonormal rows, so that the transpose decodes.
        rows = torch.stack(
            [
                torch.einsum(
                    "p,t,v,u->ptvu",
                    torch.eye(3)[k.plane].double(),
                    time[k.time],
                    space[k.vertical],
                    space[k.horizontal],
                )
                for k in kept
            ]
        )
        scale = torch.tensor([k.scale() for k in kept], dtype=torch.float64)
        to_rgb = torch.linalg.inv(_RGB_TO_YCC)
        self._analysis = (torch.einsum("kptvu,pc->kctvu", rows, _RGB_TO_YCC) / scale[:, None, None, None, None]).float()
        self._synthesis = (torch.einsum("kptvu,cp->kctvu", rows, to_rgb) * scale[:, None, None, None, None]).float()

    def encode(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in -1..1 to [B, C, T, h, w].

        Raises:
            UserError: F is not 4k + 1, or H or W is not a multiple of 8.
        """
        batch, _, frames, height, width = video.shape
        check_video_shape(frames, height, width)
        first = video[:, :, :1].expand(-1, -1, TEMPORAL_FACTOR, -1, -1)
        blocks = torch.cat([first, video[:, :, 1:]], dim=2).reshape(
            batch,
            3,
            -1,
            TEMPORAL_FACTOR,
            height // SPATIAL_FACTOR,
            SPATIAL_FACTOR,
            width // SPATIAL_FACTOR,
            SPATIAL_FACTOR,
        )
        return torch.einsum("bcTthvwu,kctvu->bkThw", blocks, self._analysis.to(video))

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] to [B, 3, F, H, W], not clamped."""
        video = self._synthesise(latents)
        first = video[:, :, :TEMPORAL_FACTOR].mean(dim=2, keepdim=True)
        return torch.cat([first, video[:, :, TEMPORAL_FACTOR:]], dim=2)

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """See `VideoCodec.decode_stream`; nothing is carried from one latent frame to the next."""
        for number, latent in enumerate(latents):
            frames = self._synthesise(latent)
            yield frames if number else frames.mean(dim=2, keepdim=True)

    def _synthesise(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] to [B, 3, 4 T, H, W]."""
        batch, _, num_latents, height, width = latents.shape
        blocks = torch.einsum("bkThw,kctvu->bcTthvwu", latents, self._synthesis.to(latents))
        return blocks.reshape(batch, 3, num_latents * TEMPORAL_FACTOR, height * SPATIAL_FACTOR, width * SPATIAL_FACTOR)


def check_video_shape(num_frames: int, height: int, width: int) -> None:
    """Raises `UserError` where a video cannot become latents without dropping frames or pixels."""
    if num_frames % TEMPORAL_FACTOR != 1:
        raise UserError(f"a video of {num_frames} frames cannot be encoded: expected 4k + 1 frames, pad or trim it")
    if height % SPATIAL_FACTOR or width % SPATIAL_FACTOR:
        raise UserError(f"a video of {width} x {height} cannot be encoded: both must be multiples of {SPATIAL_FACTOR}")


def num_latent_frames(num_frames: int) -> int:
    """T for F = 4 (T - 1) + 1 frames."""
    return (num_frames - 1) // TEMPORAL_FACTOR + 1


def num_frames(num_latents: int) -> int:
    """F = 4 (T - 1) + 1."""
    return TEMPORAL_FACTOR * (num_latents - 1) + 1
