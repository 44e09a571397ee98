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

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields latents [B, C, 1, h, w] for 1 and then 4, 4, ... frames [B, 3, n, H, W], as `encode` of all would."""
        ...

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields 1 and then 4, 4, ... frames [B, 3, n, H, W] for latents [B, C, 1, h, w], as `decode` of all would."""
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
        check_video_shape(*video.shape[2:])
        return torch.cat(list(self.encode_stream(chunks(video))), dim=2)

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] to [B, 3, F, H, W], not clamped."""
        return torch.cat(list(self.decode_stream(latents.split(1, dim=2))), dim=2)

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields one latent frame [B, C, 1, h, w] for each chunk [B, 3, n, H, W] of 1 and then 4, 4, ... frames.

        Raises:
            UserError: the first chunk is not one frame, a later one is not four, or the size does not fit.
        """
        for number, chunk in enumerate(chunks):
            check_chunk(number, chunk)
            block = chunk if number else chunk.expand(-1, -1, TEMPORAL_FACTOR, -1, -1)
            batch, _, _, height, width = chunk.shape
            blocks = block.reshape(
                batch,
                3,
                TEMPORAL_FACTOR,
                height // SPATIAL_FACTOR,
                SPATIAL_FACTOR,
                width // SPATIAL_FACTOR,
                SPATIAL_FACTOR,
            )
            yield torch.einsum("bcthvwu,kctvu->bkhw", blocks, self._analysis.to(chunk))[:, :, None]

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields 1 and then 4, 4, ... frames [B, 3, n, H, W], not clamped, for latent frames [B, C, 1, h, w]."""
        for number, latent in enumerate(latents):
            blocks = torch.einsum("bkhw,kctvu->bcthvwu", latent[:, :, 0], self._synthesis.to(latent))
            batch, _, _, height, width = latent.shape
            video = blocks.reshape(batch, 3, TEMPORAL_FACTOR, height * SPATIAL_FACTOR, width * SPATIAL_FACTOR)
            yield video if number else video.mean(dim=2, keepdim=True)


def chunks(video: Tensor) -> Iterator[Tensor]:
    """[B, 3, F, H, W] in pieces of 1 and then 4, 4, ... frames."""
    yield video[:, :, :1]
    if video.shape[2] > 1:
        yield from video[:, :, 1:].split(TEMPORAL_FACTOR, dim=2)


def check_chunk(number: int, chunk: Tensor) -> None:
    """Raises `UserError` where a piece [B, 3, n, H, W] of a video cannot become one latent frame."""
    expected = TEMPORAL_FACTOR if number else 1
    if chunk.shape[2] != expected:
        raise UserError(f"chunk {number} of a video has {chunk.shape[2]} frames: the codec takes {expected}")
    check_video_shape(1, *chunk.shape[3:])


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
