"""Blocks of the multimodal diffusion transformer.

x is the stream of reference and video tokens [B, N, D], y the text stream [B, L, D]. Modulation is per token, because
clean tokens (reference, motion frames) have sigma 0 while the rest have the sample's sigma.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.conditions.audio import AudioCrossAttention
from omnihuman.model.rope import rotate


@dataclass(frozen=True)
class BlockInputs:
    """What every block sees beside its two streams."""

    noisy: Tensor  # [B, D], embedding of the sample's sigma
    clean: Tensor  # [B, D], embedding of sigma 0
    is_clean: Tensor  # bool [B, N, 1]
    rotation: tuple[Tensor, Tensor]  # cosine and sine [N, d / 2]
    key_mask: Tensor | None  # bool [B, 1, 1, N + L]
    num_reference: int  # tokens of x that come before the video
    audio: Tensor | None  # [B, T, sound tokens, audio width]; None: off in the whole batch
    audio_on: Tensor  # bool [B]


class Modulation(nn.Module):
    """adaLN: from an embedding of sigma to (shift, scale, gate), once or twice; independent of sigma at first."""

    def __init__(self, width: int, num_chunks: int) -> None:
        super().__init__()
        self.num_chunks = num_chunks
        self.linear = nn.Linear(width, num_chunks * width)
        nn.init.zeros_(self.linear.weight)
        # Shifts and scales begin neutral, every third chunk, a gate, begins open.
        with torch.no_grad():
            self.linear.bias.copy_((torch.arange(num_chunks) % 3 == 2).float().repeat_interleave(width))

    def text(self, inputs: BlockInputs) -> tuple[Tensor, ...]:
        """Chunks [B, 1, D] at the sample's sigma."""
        return self.linear(functional.silu(inputs.noisy))[:, None].chunk(self.num_chunks, dim=-1)

    def video(self, inputs: BlockInputs) -> tuple[Tensor, ...]:
        """Chunks [B, N, D], at sigma 0 for clean tokens."""
        noisy = self.linear(functional.silu(inputs.noisy))[:, None].chunk(self.num_chunks, dim=-1)
        clean = self.linear(functional.silu(inputs.clean))[:, None].chunk(self.num_chunks, dim=-1)
        return tuple(torch.where(inputs.is_clean, c, n) for c, n in zip(clean, noisy, strict=True))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters, then an affine map given from outside."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, N, D] to three [B, heads, N, d]."""
        q, k, v = (
            projection(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection in (self.to_q, self.to_k, self.to_v)
        )
        return self.norm_q(q), self.norm_k(k), v


def attend(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
    """Joint attention [B, heads, N, d] to [B, N, D]."""
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=key_mask).transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, width: int, mlp_ratio: float) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, int(width * mlp_ratio))
        self.linear_2 = nn.Linear(int(width * mlp_ratio), width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        return self.linear_2(functional.gelu(self.linear_1(x), approximate="tanh"))


def add_audio(attention: AudioCrossAttention, x: Tensor, inputs: BlockInputs) -> Tensor:
    """Adds what sound says to the video tokens; reference tokens have no time and hear nothing."""
    if inputs.audio is None:
        return x
    reference, video = x[:, : inputs.num_reference], x[:, inputs.num_reference :]
    video = video + attention(video, inputs.audio, inputs.audio_on)
    return torch.cat([reference, video], dim=1)


class DualBlock(nn.Module):
    """Two streams with weights of their own that meet in one attention."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, audio_width: int) -> None:
        super().__init__()
        self.modulation, self.text_modulation = Modulation(width, 6), Modulation(width, 6)
        self.qkv, self.text_qkv = QueryKeyValue(width, num_heads), QueryKeyValue(width, num_heads)
        self.to_out, self.text_to_out = nn.Linear(width, width), nn.Linear(width, width)
        self.feed_forward, self.text_feed_forward = FeedForward(width, mlp_ratio), FeedForward(width, mlp_ratio)
        self.audio_attention = AudioCrossAttention(width, num_heads, audio_width)

    def forward(self, x: Tensor, y: Tensor, inputs: BlockInputs) -> tuple[Tensor, Tensor]:
        """x [B, N, D] and y [B, L, D] to the same shapes."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation.video(inputs)
        text_shift_a, text_scale_a, text_gate_a, text_shift_m, text_scale_m, text_gate_m = self.text_modulation.text(
            inputs
        )
        q, k, v = self.qkv(modulate(x, shift_a, scale_a))
        text_q, text_k, text_v = self.text_qkv(modulate(y, text_shift_a, text_scale_a))
        q, k = rotate(q, *inputs.rotation), rotate(k, *inputs.rotation)
        attended = attend(
            torch.cat([q, text_q], dim=2), torch.cat([k, text_k], dim=2), torch.cat([v, text_v], dim=2), inputs.key_mask
        )
        attended_x, attended_y = attended.split([x.shape[1], y.shape[1]], dim=1)

        x = x + gate_a * self.to_out(attended_x)
        x = add_audio(self.audio_attention, x, inputs)
        x = x + gate_m * self.feed_forward(modulate(x, shift_m, scale_m))
        y = y + text_gate_a * self.text_to_out(attended_y)
        y = y + text_gate_m * self.text_feed_forward(modulate(y, text_shift_m, text_scale_m))
        return x, y


class SingleBlock(nn.Module):
    """One stream over both; attention and feed-forward run side by side."""

    def __init__(self, width: int, num_heads: int, mlp_ratio: float, audio_width: int) -> None:
        super().__init__()
        self.modulation = Modulation(width, 3)
        self.qkv = QueryKeyValue(width, num_heads)
        self.proj_mlp = nn.Linear(width, int(width * mlp_ratio))
        self.proj_out = nn.Linear(width + int(width * mlp_ratio), width)
        self.audio_attention = AudioCrossAttention(width, num_heads, audio_width)

    def forward(self, x: Tensor, y: Tensor, inputs: BlockInputs) -> tuple[Tensor, Tensor]:
        """x [B, N, D] and y [B, L, D] to the same shapes."""
        num_tokens = x.shape[1]
        video_chunks, text_chunks = self.modulation.video(inputs), self.modulation.text(inputs)
        shift, scale, gate = video_chunks
        text_shift, text_scale, text_gate = text_chunks
        z = torch.cat([modulate(x, shift, scale), modulate(y, text_shift, text_scale)], dim=1)

        q, k, v = self.qkv(z)
        q = torch.cat([rotate(q[:, :, :num_tokens], *inputs.rotation), q[:, :, num_tokens:]], dim=2)
        k = torch.cat([rotate(k[:, :, :num_tokens], *inputs.rotation), k[:, :, num_tokens:]], dim=2)
        attended = attend(q, k, v, inputs.key_mask)
        out = self.proj_out(torch.cat([attended, functional.gelu(self.proj_mlp(z), approximate="tanh")], dim=-1))

        x = add_audio(self.audio_attention, x + gate * out[:, :num_tokens], inputs)
        return x, y + text_gate * out[:, num_tokens:]
