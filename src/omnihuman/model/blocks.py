"""Blocks of the multimodal diffusion transformer.

x is the packed stream of reference and video tokens [N, D], y the packed text stream [M, D], z both as one, sample
after sample [N + M, D]. See `omnihuman.packed` for how samples of any size share a sequence. The forward passes are
those of the published open base, MotifVideoTransformer3DModel of huggingface/diffusers, so that its weights load.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.model.modulation import Levels, Modulation, gated, modulate
from omnihuman.model.rope import Rotation, rotate
from omnihuman.packed import Joint, Runs, attend


@dataclass(frozen=True)
class Layout:
    """What every block knows of the tokens beside their values."""

    streams: Joint
    x_levels: Levels
    y_levels: Levels
    z_levels: Levels
    x_rotation: Rotation
    y_rotation: Rotation | None  # None: text has no position
    z_rotation: Rotation
    text_places: Tensor | None  # [text tokens] in y; None where y holds nothing but text
    text: Runs

    def take_text(self, y: Tensor) -> Tensor:
        """The tokens of y that are text, [text tokens, D]."""
        return y if self.text_places is None else y.index_select(0, self.text_places)


_SHARPNESS = 2.0
"""Initial scale of normalised queries and keys; with 1, attention to one position takes long to sharpen."""


class QueryKeyValue(nn.Module):
    """Projections of one stream, normalised per head (qk-norm)."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.norm_q = nn.RMSNorm(width // num_heads, eps=1e-6)
        self.norm_k = nn.RMSNorm(width // num_heads, eps=1e-6)

    def start_local(self, time_channels: int) -> None:
        """Lets half of the heads begin by attending to the same place in all frames and in the reference.

        Equal constant queries and keys make RoPE's product largest at distance zero; channels that rotate with time are
        left out, so that the place counts and the moment does not.
        """
        bias = torch.zeros(self.num_heads, self.to_q.out_features // self.num_heads)
        bias[: max(1, self.num_heads // 2), time_channels:] = 1.0
        with torch.no_grad():
            for projection, norm in ((self.to_q, self.norm_q), (self.to_k, self.norm_k)):
                projection.bias.copy_(bias.flatten())
                norm.weight.fill_(_SHARPNESS)

    def heads(self, projected: Tensor) -> Tensor:
        """[N, D] to [N, heads, d]."""
        return projected.unflatten(-1, (self.num_heads, -1))

    def query(self, x: Tensor, angles: Rotation | None) -> Tensor:
        """[N, D] to [N, heads, d]."""
        q = self.norm_q(self.heads(self.to_q(x)))
        return q if angles is None else rotate(q, angles)

    def key(self, x: Tensor, angles: Rotation | None) -> Tensor:
        """[N, D] to [N, heads, d]."""
        k = self.norm_k(self.heads(self.to_k(x)))
        return k if angles is None else rotate(k, angles)

    def forward(self, x: Tensor, angles: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """[N, D] to three [N, heads, d]."""
        return self.query(x, angles), self.key(x, angles), self.heads(self.to_v(x))


class TextCrossAttention(QueryKeyValue):
    """Video tokens ask the text once more, beside the joint attention."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__(width, num_heads)
        self.to_out = nn.Linear(width, width)

    def read(self, x: Tensor, text: Tensor, layout: Layout) -> Tensor:
        """x [N, D] and text [text tokens, D] to [N, D]."""
        q, k, v = self.query(x, layout.x_rotation), self.key(text, None), self.heads(self.to_v(text))
        return self.to_out(attend(q, k, v, layout.streams.x, layout.text))


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, int(width * mlp_ratio))
        self.linear_2 = nn.Linear(int(width * mlp_ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """[N, D] to [N, D]."""
        return self.linear_2(functional.gelu(self.linear_1(x), approximate="tanh"))


class DualBlock(nn.Module):
    """Two streams with weights of their own that meet in one attention."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, text_attention: bool) -> None:
        super().__init__()
        self.modulation, self.text_modulation = Modulation(width, 6), Modulation(width, 6)
        self.qkv, self.text_qkv = QueryKeyValue(width, num_heads), QueryKeyValue(width, num_heads)
        self.to_out, self.text_to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.text_attention = TextCrossAttention(width, num_heads) if text_attention else None
        self.feed_forward, self.text_feed_forward = FeedForward(width, mlp_ratio), FeedForward(width, mlp_ratio)

    def forward(self, x: Tensor, y: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """x [N, D] and y [M, D] to the same shapes."""
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = self.modulation(layout.x_levels)
        text_shift, text_scale, text_gate, text_mlp_shift, text_mlp_scale, text_mlp_gate = self.text_modulation(
            layout.y_levels
        )
        normed_y = modulate(y, text_shift, text_scale)
        qkv_x = self.qkv(modulate(x, shift, scale), layout.x_rotation)
        qkv_y = self.text_qkv(normed_y, layout.y_rotation)
        streams = layout.streams
        q, k, v = (streams.join(of_x, of_y) for of_x, of_y in zip(qkv_x, qkv_y, strict=True))
        attended = attend(q, k, v, streams.both, streams.both)
        attended_x = self.to_out(streams.take_x(attended))

        x = gated(x, gate, attended_x)
        if self.text_attention:
            x = x + self.text_attention.read(attended_x, layout.take_text(normed_y), layout)
        x = gated(x, mlp_gate, self.feed_forward(modulate(x, mlp_shift, mlp_scale)))
        y = gated(y, text_gate, self.text_to_out(streams.take_y(attended)))
        y = gated(y, text_mlp_gate, self.text_feed_forward(modulate(y, text_mlp_shift, text_mlp_scale)))
        return x, y


class SingleBlock(nn.Module):
    """One stream over both; attention and feed-forward run side by side."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, text_attention: bool) -> None:
        super().__init__()
        self.modulation = Modulation(width, 3)
        self.qkv = QueryKeyValue(width, num_heads)
        self.text_attention = TextCrossAttention(width, num_heads) if text_attention else None
        self.proj_mlp = nn.Linear(width, int(width * mlp_ratio))
        self.proj_out = nn.Linear(width + int(width * mlp_ratio), width)

    def forward(self, z: Tensor, layout: Layout) -> Tensor:
        """z [N + M, D] to the same shape."""
        shift, scale, gate = self.modulation(layout.z_levels)
        normed = modulate(z, shift, scale)
        streams = layout.streams
        q, k, v = self.qkv(normed, layout.z_rotation)
        attended = attend(q, k, v, streams.both, streams.both)
        if self.text_attention:
            text = layout.take_text(streams.take_y(normed))
            read = self.text_attention.read(streams.take_x(attended), text, layout)
            attended = attended + streams.join(read, read.new_zeros(len(z) - len(read), read.shape[1]))
        hidden = functional.gelu(self.proj_mlp(normed), approximate="tanh")
        return gated(z, gate, self.proj_out(torch.cat([attended, hidden], dim=-1)))
