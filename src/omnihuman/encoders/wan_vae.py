"""The published causal video VAE of Wan 2.1: `AutoencoderKLWan` of diffusers, whole or as a stream.

Facts from diffusers 0.42 (models/autoencoders/autoencoder_kl_wan.py): the network encodes one frame and then chunks of
four, decodes one latent frame at a time, and keeps the last frames of every causal convolution in a list that each call
takes and changes. A stream keeps that list between its steps. Published pipelines normalise latents per channel by
`latents_mean` and `latents_std` of the config.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnihuman.encoders.video_codec import SPATIAL_FACTOR, TEMPORAL_FACTOR, check_chunk, check_video_shape, chunks
from omnihuman.encoders.weights import (
    LocalWeights,
    Published,
    check_loaded,
    check_sha256,
    find_weights,
    not_loaded,
)
from omnihuman.errors import UserError

WAN_VAE = Published(
    option="encode.video_weights",
    hub_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    licence="Apache-2.0, 4 x 8 x 8, 16 channels, in its folder vae",
    without="encode.video_codec=cosine",
    subfolder="vae",
)


@dataclass(frozen=True)
class Tiling:
    """Square tiles in pixels, so that large pictures fit into memory; neighbours are blended where they overlap."""

    tile_pixels: int = 256
    stride_pixels: int = 192


_Cache = list[Any]
"""One entry per causal convolution; diffusers fills it."""


class WanVae:
    """Encodes to the mode of the posterior, normalised per channel; decodes without clamping."""

    name = "wan"

    def __init__(
        self,
        weights: str,
        tiling: Tiling | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        expected_sha256: str = "",
    ) -> None:
        """Loads the network.

        Args:
            weights: folder or hub id; the VAE itself or a pipeline with a folder `vae`.
            tiling: None encodes and decodes each picture whole.
            expected_sha256: of the files, where the data were encoded before.

        Raises:
            UserError: the weights are missing, incomplete, only pickles, or not of 4 x 8 x 8.
        """
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

        files = find_weights(weights, WAN_VAE)
        check_sha256(files, expected_sha256, WAN_VAE)
        _check_factors(files)
        try:
            loaded: Any = AutoencoderKLWan.from_pretrained(
                files.folder,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=dtype,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise not_loaded(error, files, "AutoencoderKLWan") from error
        vae, told = loaded
        check_loaded(told, files)
        self.weights = files
        self.num_channels = int(vae.config.z_dim)
        self._tiling = tiling
        self._vae = vae.to(device).requires_grad_(False).eval()
        shape = (1, -1, 1, 1, 1)
        self._mean = torch.tensor(vae.config.latents_mean, device=device).reshape(shape)
        self._std = torch.tensor(vae.config.latents_std, device=device).reshape(shape)

    def move(self, device: torch.device | str) -> None:
        """The weights to another device; videos and latents may lie on any, and what is made of them lies there too."""
        self._vae.to(device)
        self._mean, self._std = self._mean.to(device), self._std.to(device)

    def encode(self, video: Tensor) -> Tensor:
        """[B, 3, F, H, W] in -1..1 to [B, C, T, h, w] on the video's device.

        Raises:
            UserError: F is not 4k + 1, or H or W is not a multiple of 8.
        """
        check_video_shape(*video.shape[2:])
        return torch.cat(list(self.encode_stream(chunks(video))), dim=2)

    def decode(self, latents: Tensor) -> Tensor:
        """[B, C, T, h, w] to [B, 3, F, H, W] on the latents' device, not clamped."""
        return torch.cat(list(self.decode_stream(latents.split(1, dim=2))), dim=2)

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields one latent frame [B, C, 1, h, w] for each chunk [B, 3, n, H, W]; memory does not grow with the length.

        Raises:
            UserError: the first chunk is not one frame, a later one is not four, or the size does not fit.
        """
        caches: dict[tuple[int, int], _Cache] = {}
        for number, chunk in enumerate(chunks):
            check_chunk(number, chunk)
            posterior = self._tiled(self._encode_tile, chunk, caches, 1, SPATIAL_FACTOR)
            mode = posterior[:, : self.num_channels].float()
            yield ((mode - self._mean) / self._std).to(chunk)

    def decode_stream(self, latents: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yields 1 and then 4, 4, ... frames [B, 3, n, H, W], not clamped, for latent frames [B, C, 1, h, w]."""
        caches: dict[tuple[int, int], _Cache] = {}
        for latent in latents:
            scaled = latent.to(self._mean) * self._std + self._mean
            yield self._tiled(self._decode_tile, scaled, caches, SPATIAL_FACTOR, 1).to(latent)

    def _encode_tile(self, pixels: Tensor, cache: _Cache | None) -> tuple[Tensor, _Cache]:
        held: _Cache = [None] * self._vae._cached_conv_counts["encoder"] if cache is None else cache
        return self._vae.quant_conv(self._vae.encoder(pixels, feat_cache=held, feat_idx=[0])), held

    def _decode_tile(self, latent: Tensor, cache: _Cache | None) -> tuple[Tensor, _Cache]:
        held: _Cache = [None] * self._vae._cached_conv_counts["decoder"] if cache is None else cache
        hidden = self._vae.post_quant_conv(latent)
        return self._vae.decoder(hidden, feat_cache=held, feat_idx=[0], first_chunk=cache is None), held

    @torch.no_grad()
    def _tiled(self, network: Any, frames: Tensor, caches: dict[tuple[int, int], _Cache], up: int, down: int) -> Tensor:
        """Applies a network to tiles that overlap and joins them; every tile has a cache of its own.

        Args:
            up, down: by how much the network enlarges or shrinks width and height.
        """
        frames = frames.to(next(self._vae.parameters()))
        height, width = frames.shape[3:]
        size, stride = self._tile_positions(max(height, width), down)
        if max(height, width) <= size:
            size, stride = max(height, width), max(height, width)
        kept, overlap = stride * up // down, (size - stride) * up // down
        rows: list[list[Tensor]] = []
        for i, top in enumerate(range(0, height, stride)):
            rows.append([])
            for j, left in enumerate(range(0, width, stride)):
                tile, caches[i, j] = network(frames[..., top : top + size, left : left + size], caches.get((i, j)))
                if i:
                    tile = self._vae.blend_v(rows[i - 1][j], tile, overlap)
                if j:
                    tile = self._vae.blend_h(rows[i][j - 1], tile, overlap)
                rows[i].append(tile)
        joined = torch.cat([torch.cat([t[..., :kept, :kept] for t in row], dim=-1) for row in rows], dim=-2)
        return joined[..., : height * up // down, : width * up // down]

    def _tile_positions(self, longest: int, down: int) -> tuple[int, int]:
        """Side and stride of a tile in the network's input; without tiling one tile holds everything."""
        if self._tiling is None:
            return longest, longest
        unit = SPATIAL_FACTOR // down
        return self._tiling.tile_pixels // unit, self._tiling.stride_pixels // unit


def _check_factors(files: LocalWeights) -> None:
    """Refuses a VAE of other factors: by what its config says, and by what its layers do."""
    config = files.config()
    spatial = 2 ** (len(config.get("dim_mult", (1, 2, 4, 4))) - 1) * (config.get("patch_size") or 1)
    temporal = 2 ** sum(config.get("temperal_downsample", (False, True, True)))
    declared = (config.get("scale_factor_temporal") or temporal, config.get("scale_factor_spatial") or spatial)
    for time, space in (declared, (temporal, spatial)):
        if (time, space) != (TEMPORAL_FACTOR, SPATIAL_FACTOR):
            raise UserError(
                f"{files.folder / 'config.json'}: a VAE of {time} x {space} x {space} came, but"
                f" {TEMPORAL_FACTOR} x {SPATIAL_FACTOR} x {SPATIAL_FACTOR} is expected: {WAN_VAE.remedy()}"
            )
