"""What precomputation writes for training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encode:
    """Resolution, window length and the frozen encoders."""

    fps: float = 25.0
    """Model time; every clip is resampled to it by timestamps."""
    num_frames: int = 17
    """Frames in one training window; 4k + 1."""
    windows_per_clip: int = 3
    area_pixels: int = 4096
    """Width times height of the encoded video; the clip's aspect is kept."""
    size_multiple: int = 8
    """Width and height are multiples of this, so that latents and patches fit."""
    max_aspect: float = 2.0
    video_codec: str = "cosine"
    speech_encoder: str = "log_mel"
    """`log_mel` (no weights) or `wav2vec2`."""
    speech_weights: str = ""
    """Folder or hub id of the speech encoder's weights; empty for `log_mel`."""
    text_encoder: str = "hashed_words"
    max_text_tokens: int = 16
    shard_clips: int = 64
    """Clips per shard file."""
    deadline_seconds: float = 120.0
    memory_megabytes: int = 2048
