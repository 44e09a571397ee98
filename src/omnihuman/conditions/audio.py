"""Sound: each latent frame attends to the sound of its own frames and their neighbours (OmniHuman-1, sec. 3.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from omnihuman.encoders.video_codec import TEMPORAL_FACTOR
from omnihuman.packed import Runs, attend

NEIGHBOURS = 2
"""Frames of sound on either side of a latent's own frames."""
WINDOW = TEMPORAL_FACTOR + 2 * NEIGHBOURS
"""Frames of sound A behind one latent frame; the first latent covers one frame and leaves the surplus masked."""


@dataclass(frozen=True)
class SpeechWindows:
    """Sound features gathered per latent frame."""

    features: np.ndarray  # float32 [T, A, speech layers, speech width]
    mask: np.ndarray  # bool [T, A], False beyond the sound and at surplus places


def speech_windows(features: np.ndarray, start: int, num_latents: int, *, in_midstream: bool = False) -> SpeechWindows:
    """Cuts the windows of a segment that begins at video frame `start` out of a clip's features [F, layers, width].

    Latent t > 0 covers frames 4t - 3 .. 4t of the segment, latent 0 covers frame 0.

    Args:
        in_midstream: the segment continues a stream of latents, so that latent 0 covers the frames -3 .. 0.
    """
    last = start + TEMPORAL_FACTOR * np.arange(num_latents)
    alone = (np.arange(num_latents) == 0) & (not in_midstream)
    first = np.where(alone, last, last - TEMPORAL_FACTOR + 1)
    frames = (first - NEIGHBOURS)[:, None] + np.arange(WINDOW)
    mask = (frames <= (last + NEIGHBOURS)[:, None]) & (frames >= 0) & (frames < len(features))
    gathered = features[np.clip(frames, 0, len(features) - 1)] * mask[..., None, None]
    return SpeechWindows(gathered.astype(np.float32), mask)


@dataclass(frozen=True)
class Sound:
    """Sound tokens of the latent frames that hear any, packed frame after frame."""

    tokens: Tensor  # [frames * A', audio width]
    frames: Runs
    """The tokens of each frame."""
    heard_by: Tensor
    """[n], places in x of the video tokens that hear, in the same order of frames."""
    listeners: Runs
    """The video tokens of each frame."""


class AudioCondition(nn.Module):
    """Features of all layers are weighed, compressed by an MLP and joined with adjacent frames' into a few tokens."""

    def __init__(self, speech_layers: int, speech_width: int, audio_width: int, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.layer_weights = nn.Parameter(torch.zeros(speech_layers))
        self.compress = nn.Linear(speech_width, audio_width)
        self.join = nn.Linear(WINDOW * audio_width, num_tokens * audio_width)

    def forward(self, speech: Tensor, mask: Tensor) -> Tensor:
        """Windows [B, T, A, layers, speech width] with mask [B, T, A] to tokens [B, T, A', audio width]."""
        weighed = torch.einsum("btalw,l->btaw", speech, self.layer_weights.softmax(dim=0))
        compressed = functional.silu(self.compress(weighed)) * mask[..., None]
        return self.join(compressed.flatten(2)).unflatten(-1, (self.num_tokens, -1))


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

    def forward(self, tokens: Tensor, sound: Sound, places: Tensor) -> Tensor:
        """The tokens [N, D] with what sound says added to those that hear; the others stay exactly as they are.

        Args:
            places: [n], where the tokens `sound.heard_by` stand in `tokens`.
        """
        listening = tokens.index_select(0, places)
        q = self.to_q(self.norm(listening)).unflatten(-1, (self.num_heads, -1))
        k, v = self.to_kv(sound.tokens).unflatten(-1, (2, self.num_heads, -1)).unbind(dim=1)
        heard = self.to_out(attend(q, k, v, sound.listeners, sound.frames))
        return tokens.index_add(0, places, heard.to(tokens.dtype))


class AudioStream(nn.Module):
    """Sound tokens at the model's width, to stand beside the text in the joint attention (for an ablation)."""

    def __init__(self, width: int, audio_width: int) -> None:
        super().__init__()
        self.project = nn.Linear(audio_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., audio width] to [..., D]."""
        return self.project(tokens)
