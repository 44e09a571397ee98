"""The encoders by their names. Each is built once in a process, since some hold gigabytes of weights."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from omnihuman.encoders.speech import LogMel, SpeechEncoder
from omnihuman.encoders.text import HashedWords, TextEncoder
from omnihuman.encoders.video_codec import CosineCodec, VideoCodec
from omnihuman.errors import UserError


@dataclass(frozen=True)
class Choice:
    """Which encoder with which weights."""

    name: str
    weights: str = ""  # folder or hub id; empty for an encoder without
    sha256: str = ""  # of the weights that data were encoded with; empty: not known yet


@cache
def video_codec(choice: Choice, tile_pixels: int = 0, tile_stride_pixels: int = 0, device: str = "cpu") -> VideoCodec:
    """The codec of that name.

    Args:
        tile_pixels, tile_stride_pixels: side and stride of the tiles of a published VAE; 0: no tiles.
        device: of its weights, and of the videos that it takes.

    Raises:
        UserError: the name is unknown, or the weights are missing or others.
    """
    if choice.name == CosineCodec.name:
        return CosineCodec()
    if choice.name == "wan":
        from omnihuman.encoders.wan_vae import Tiling, WanVae

        tiling = Tiling(tile_pixels, tile_stride_pixels) if tile_pixels else None
        return WanVae(choice.weights, tiling, device=device, expected_sha256=choice.sha256)
    raise _unknown("video_codec", choice, "cosine, wan")


@cache
def text_encoder(choice: Choice, max_tokens: int, device: str = "cpu") -> TextEncoder:
    """The encoder of that name; errors as for `video_codec`."""
    if choice.name == HashedWords.name:
        return HashedWords(max_tokens)
    if choice.name in ("t5", "t5gemma2"):
        from omnihuman.encoders.t5 import PublishedText

        return PublishedText(choice.name, choice.weights, max_tokens, device=device, expected_sha256=choice.sha256)
    raise _unknown("text_encoder", choice, "hashed_words, t5, t5gemma2")


@cache
def empty_text(choice: Choice, max_tokens: int, device: str = "cpu") -> np.ndarray:
    """float32 [L, width]: text that is off."""
    return text_encoder(choice, max_tokens, device).encode("")


@cache
def speech_encoder(choice: Choice, device: str = "cpu") -> SpeechEncoder:
    """The encoder of that name; errors as for `video_codec`."""
    if choice.name == LogMel.name:
        return LogMel()
    if choice.name in ("wav2vec2", "whisper"):
        from omnihuman.encoders.published_speech import Wav2Vec2, Whisper

        network = Wav2Vec2 if choice.name == "wav2vec2" else Whisper
        return network(choice.weights, device=device, expected_sha256=choice.sha256)
    raise _unknown("speech_encoder", choice, "log_mel, wav2vec2, whisper")


def _unknown(key: str, choice: Choice, known: str) -> UserError:
    return UserError(f"encode.{key}: unknown '{choice.name}', expected one of {known}")


def weights_sha256(encoder: VideoCodec | TextEncoder | SpeechEncoder) -> str:
    """Of the files that an encoder was loaded from; empty for one without weights."""
    weights = getattr(encoder, "weights", None)
    return "" if weights is None else weights.sha256()


def forget() -> None:
    """Lets go of all encoders and their memory."""
    for built in (video_codec, text_encoder, empty_text, speech_encoder):
        built.cache_clear()
