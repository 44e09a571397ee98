"""Sound: each latent frame attends to the sound of its own frames and their neighbours (OmniHuman-1, sec. 3.2)."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.encoders.video_codec import TEMPORAL_FACTOR

NEIGHBOURS = 2
"""Frames of sound on either side of a latent's own frames."""
WINDOW = TEMPORAL_FACTOR + 2 * NEIGHBOURS
"""Frames of sound A behind one latent frame; the first latent covers one frame and leaves the surplus masked."""
NUM_TOKENS = 4
"""Sound tokens of one latent frame."""


@dataclass(frozen=True)
class SpeechWindows:
    """Sound features gathered per latent frame."""

    features: np.ndarray  # float32 [T, A, speech layers, speech width]
    mask: np.ndarray  # bool [T, A], False beyond the sound and at surplus places


def speech_windows(features: np.ndarray, start: int, num_latents: int) -> SpeechWindows:
    """Cuts the windows of a segment that begins at video frame `start` out of a clip's features [F, layers, width].

    Latent t > 0 covers frames 4t - 3 .. 4t of the segment, latent 0 covers frame 0.
    """
    last = start + TEMPORAL_FACTOR * np.arange(num_latents)
    first = np.where(np.arange(num_latents) == 0, last, last - TEMPORAL_FACTOR + 1)
    frames = (first - NEIGHBOURS)[:, None] + np.arange(WINDOW)
    mask = (frames <= (last + NEIGHBOURS)[:, None]) & (frames >= 0) & (frames < len(features))
    gathered = features[np.clip(frames, 0, len(features) - 1)] * mask[..., None, None]
    return SpeechWindows(gathered.astype(np.float32), mask)


class AudioCondition(nn.Module):
    """Each frame's features are compressed by an MLP and joined with those of adjacent frames into a few tokens."""

    def __init__(self, speech_width: int, audio_width: int) -> None:
        super().__init__()
        self.compress = nn.Linear(speech_width, audio_width)
        self.join = nn.Linear(WINDOW * audio_width, NUM_TOKENS * audio_width)
        self.audio_width = audio_width

    def forward(self, speech: Tensor, mask: Tensor) -> Tensor:
        """Windows [B, T, A, layers, speech width] with mask [B, T, A] to tokens [B, T, NUM_TOKENS, audio width]."""
        compressed = functional.silu(self.compress(speech.mean(dim=-2))) * mask[..., None]
        tokens = self.join(compressed.flatten(2))
        return tokens.unflatten(-1, (NUM_TOKENS, self.audio_width))


class AudioCrossAttention(nn.Module):
    """Video tokens of a latent frame attend to that frame's sound tokens; zero at initialisation."""

    def __init__(self, width: int, num_heads: int, audio_width: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.to_q = nn.Linear(width, width)
        self.to_kv = nn.Linear(audio_width, 2 * width)
        self.to_out = nn.Linear(width, width)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(self.to_out.bias)

    def forward(self, video: Tensor, audio: Tensor, audio_on: Tensor) -> Tensor:
        """What sound adds to the video tokens.

        Args:
            video: [B, T h w, D]
            audio: [B, T, NUM_TOKENS, audio width]
            audio_on: bool [B]; where off, the output is exactly zero.
        """
        batch, num_tokens, width = video.shape
        num_latents = audio.shape[1]
        q = self.to_q(self.norm(video)).reshape(batch * num_latents, num_tokens // num_latents, self.num_heads, -1)
        k, v = self.to_kv(audio).reshape(batch * num_latents, NUM_TOKENS, 2, self.num_heads, -1).unbind(dim=2)
        attended = functional.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        out = self.to_out(attended.transpose(1, 2).reshape(batch, num_tokens, width))
        return out * audio_on[:, None, None]
