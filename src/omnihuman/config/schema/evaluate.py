"""Evaluation on held-out identities and sounds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """How the flow is solved when a video is made."""

    num_steps: int = 16
    guidance_text: float = 1.0
    guidance_audio: float = 2.0
    guidance_end: float = 1.0
    """Scale at the last step; the annealing from the first is linear (OmniHuman-1, sec. 3.4)."""
    shift: float = 1.0
    """Moves the steps' noise levels towards noise: SD3's static shift."""
    solver: str = "euler"
    """`euler`; `heun`, of second order, evaluates the model twice a step; `adams_bashforth`, of second order, once."""
    shift_by_tokens: bool = False
    """Instead of `shift`, one that grows with the picture: from 1.6 at 256 tokens to 3.2 at 4096."""


@dataclass(frozen=True)
class Evaluate:
    """How many held-out clips are generated and how intervals are drawn."""

    num_audio_clips: int = 48
    num_pose_clips: int = 32
    batch_size: int = 8
    num_resamples: int = 2000
    """Bootstrap resamples and shuffles of the sound."""
    confidence: float = 0.95


@dataclass(frozen=True)
class Render:
    """Output of `omnihuman render`."""

    upscale: int = 4
    """Factor by which decoded frames are enlarged before the file is written (Lanczos, after the model)."""
    crf: int = 16
