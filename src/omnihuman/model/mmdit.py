"""The MMDiT of an open text-to-video base: packed video and text tokens through dual, single and decoder blocks.

Its parameters are those of the published class and nothing else; what OmniHuman adds is in `omnihuman.model.omnihuman`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.config.schema.model import Model
from omnihuman.model.blocks import DualBlock, Layout, SingleBlock
from omnihuman.model.modulation import Levels, modulate
from omnihuman.model.rope import Rotation, no_rotation
from omnihuman.packed import Joint, Runs, run_numbers

_NUM_FREQUENCIES = 128
Listen = Callable[[int, Tensor, Tensor | None], Tensor]
"""Called after block number i with its tokens and the places of x in them, None: at their beginning."""


class SigmaEmbedding(nn.Module):
    """Sinusoids of t = 1000 sigma, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(2 * _NUM_FREQUENCIES, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, sigma: Tensor) -> Tensor:
        """[R] to [R, D]."""
        exponent = torch.arange(_NUM_FREQUENCIES, dtype=torch.float32, device=sigma.device) / _NUM_FREQUENCIES
        angle = 1000.0 * sigma.float()[:, None] * torch.exp(-math.log(1e4) * exponent)
        sinusoids = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.linear_1.weight.dtype)
        return self.linear_2(functional.silu(self.linear_1(sinusoids)))


class TextEmbedding(nn.Module):
    """Two-layer projection of frozen text embeddings: the prompt's tokens form the second stream (sec. 3.1)."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(text_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        """[M, text width] to [M, D]."""
        return self.linear_2(functional.gelu(self.linear_1(text), approximate="tanh"))


class ImageEmbedding(nn.Module):
    """Projection of a picture's embeddings, which stand before the text."""

    def __init__(self, image_width: int, width: int) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(image_width)
        self.linear_1 = nn.Linear(image_width, image_width)
        self.linear_2 = nn.Linear(image_width, width)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """[..., image width] to [..., D]."""
        return self.norm_out(self.linear_2(functional.gelu(self.linear_1(self.norm_in(image)))))


@dataclass(frozen=True)
class Packed:
    """Embedded samples of any sizes, one after the other."""

    x: Tensor  # [N, D] reference and video tokens
    y: Tensor  # [M, D] text and what else stands beside it
    x_runs: Runs
    y_runs: Runs
    x_rotation: Rotation
    y_rotation: Rotation | None
    text_places: Tensor | None  # [text tokens] in y; None: all of y is text
    text_runs: Runs
    is_clean: Tensor | None  # bool [N]: tokens with sigma 0; None: there are none
    sigma: Tensor  # [samples]


class MMDiT(nn.Module):
    """Predicts one value per latent of each video token."""

    def __init__(self, config: Model, latent_channels: int, text_width: int) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, (1, config.patch_size, config.patch_size)
        shape = (width, config.num_heads, config.mlp_ratio)
        self.x_embedder = nn.Conv3d(2 * latent_channels + 1, width, kernel_size=patch, stride=patch)
        self.text_embedder = TextEmbedding(text_width, width)
        self.image_embedder = ImageEmbedding(config.image_width, width) if config.image_width else None
        self.sigma_embedding = SigmaEmbedding(width)
        dual = [DualBlock(*shape, config.text_attention_dual) for _ in range(config.num_dual_blocks)]
        single = [SingleBlock(*shape, config.text_attention_single) for _ in range(config.num_single_blocks)]
        decoder = [SingleBlock(*shape, False) for _ in range(config.num_decoder_blocks)]
        for block in [*dual, *single, *decoder]:
            block.qkv.start_local(config.rope_axes[0])
        self.dual_blocks, self.single_blocks = nn.ModuleList(dual), nn.ModuleList(single)
        self.decoder_blocks = nn.ModuleList(decoder)
        self.norm_out = nn.Linear(width, 2 * width)
        self.proj_out = nn.Linear(width, latent_channels * config.patch_size**2)
        for layer in (self.norm_out, self.proj_out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def num_blocks(self) -> int:
        """Blocks of all kinds."""
        return len(self.dual_blocks) + len(self.single_blocks) + len(self.decoder_blocks)

    def forward(self, packed: Packed, listen: Listen | None = None) -> Tensor:
        """Values [N, C patch^2] of every token of x.

        Args:
            packed: embedded tokens.
            listen: is given the tokens after every block.
        """
        x, y, layout = packed.x, packed.y, self._layout(packed)
        listen = listen or _hear_nothing
        number = 0
        for block in self.dual_blocks:
            x, y = block(x, y, layout)
            x, number = listen(number, x, None), number + 1
        streams = layout.streams
        z = streams.join(x, y)
        for block in self.single_blocks:
            z = block(z, layout)
            z, number = listen(number, z, streams.x_places), number + 1
        x = streams.take_x(z)
        if len(self.decoder_blocks):
            layout = _decoder_layout(layout)
            streams = layout.streams
            z = streams.join(packed.x, x)
            for block in self.decoder_blocks:
                z = block(z, layout)
                z, number = listen(number, z, streams.x_places), number + 1
            x = streams.take_x(z)
        scale, shift = layout.x_levels.of_tokens(self.norm_out(layout.x_levels.embedded)).chunk(2, dim=-1)
        return self.proj_out(modulate(x, shift, scale))

    def _layout(self, packed: Packed) -> Layout:
        streams = Joint.of(packed.x_runs, packed.y_runs)
        x_levels, y_levels, z_levels = self._levels(packed, streams)
        y_rotation = packed.y_rotation or no_rotation(len(packed.y), packed.x_rotation)
        return Layout(
            streams=streams,
            x_levels=x_levels,
            y_levels=y_levels,
            z_levels=z_levels,
            x_rotation=packed.x_rotation,
            y_rotation=packed.y_rotation,
            z_rotation=Rotation(*(streams.join(*pair) for pair in zip(packed.x_rotation, y_rotation, strict=True))),
            text_places=packed.text_places,
            text=packed.text_runs,
        )

    def _levels(self, packed: Packed, streams: Joint) -> tuple[Levels, Levels, Levels]:
        """Levels of x, y and both: that of each sample, and a last one of sigma 0 for clean tokens."""
        sigma, of_x, of_y = packed.sigma, run_numbers(streams.x), run_numbers(streams.y)
        if packed.is_clean is None:
            embedded = functional.silu(self.sigma_embedding(sigma))
            runs, numbers = (streams.x, streams.y, streams.both), (of_x, of_y, streams.join(of_x, of_y))
            x, y, z = (None if r.equal else _choices(n, embedded) for r, n in zip(runs, numbers, strict=True))
            return Levels(embedded, x), Levels(embedded, y), Levels(embedded, z)
        embedded = functional.silu(self.sigma_embedding(torch.cat([sigma, sigma.new_zeros(1)])))
        x, y = _choices(of_x.masked_fill(packed.is_clean, len(sigma)), embedded), _choices(of_y, embedded)
        return Levels(embedded, x), Levels(embedded, y), Levels(embedded, streams.join(x, y))


def _choices(levels: Tensor, embedded: Tensor) -> Tensor:
    """[N, R], one 1 in each row, of the number of each token's level."""
    return functional.one_hot(levels, len(embedded)).to(embedded.dtype)


def _decoder_layout(layout: Layout) -> Layout:
    """The encoder's tokens take the place of the text, at the same levels as the decoder's and without position."""
    streams = Joint.of(layout.streams.x, layout.streams.x)
    levels, angles = layout.x_levels, layout.x_rotation
    if levels.chosen is not None:
        levels = replace(levels, chosen=streams.join(levels.chosen, levels.chosen))
    still = no_rotation(len(angles.cosine), angles)
    rotation = Rotation(*(streams.join(*pair) for pair in zip(angles, still, strict=True)))
    return replace(layout, streams=streams, z_levels=levels, z_rotation=rotation)


def _hear_nothing(_: int, tokens: Tensor, __: Tensor | None) -> Tensor:
    return tokens
