"""The frozen dataclasses that travel between layers.

Shape letters, used in every comment of the project:
    B batch              F frames at 25 a second      T latent frames, F = 4 (T - 1) + 1
    C latent channels    H, W height and width        h, w height and width in latent positions
    L text tokens        A sound tokens of one latent frame
    K keypoints          D width of the model         N tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:  # importing torch takes seconds that the steps without a network need not spend
    from torch import Tensor

KEYPOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""COCO's seventeen body keypoints; left and right are the person's own."""

_FEET = ("big_toe", "small_toe", "heel")
_FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
_HAND = ("hand_root", *(f"{finger}_{joint}" for finger in _FINGERS for joint in (1, 2, 3, 4)))
WHOLE_BODY_KEYPOINTS = (
    *KEYPOINTS,
    *(f"{side}_{part}" for side in ("left", "right") for part in _FEET),
    *(f"face_{number}" for number in range(68)),
    *(f"{side}_{part}" for side in ("left", "right") for part in _HAND),
)
"""COCO-WholeBody's 133: body, feet, face (the 68 of 300-W: jaw, brows, nose, eyes, lips), left and right hand."""
KEYPOINT_SETS = {"body": KEYPOINTS, "whole_body": WHOLE_BODY_KEYPOINTS}

LIMBS = (
    ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_hip", "right_hip"),
    ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"),
    ("right_knee", "right_ankle"),
)
"""Pairs of keypoints joined by a limb."""


@dataclass(frozen=True)
class Frames:
    """Decoded pictures with their presentation times."""

    pixels: np.ndarray  # uint8 [F, H, W, 3], RGB
    seconds: np.ndarray  # float64 [F], from the start of the file


@dataclass(frozen=True)
class Sound:
    """One channel of sound; where it says so, two."""

    samples: np.ndarray  # float32 [samples], or [samples, 2], -1..1
    sample_rate: int


@dataclass(frozen=True)
class Keypoints:
    """A pose track, declared beside a clip; never measured ground truth."""

    points: np.ndarray  # float32 [F, K, 3]: x and y as shares of width and height, confidence 0..1
    seconds: np.ndarray  # float64 [F]


@dataclass(frozen=True)
class Conditions:
    """Everything that may steer a video. An off-state is the same in training, guidance and use.

    text off: the empty prompt's embedding; reference off: no tokens; audio off: cross-attention output zero (silence is
    a sound, not an off-state); pose off: zeros; motion off: mask channel zero.
    """

    text: Tensor  # [B, L, text width]
    text_mask: Tensor  # bool [B, L], True at real tokens
    reference: Tensor  # [B, C, h, w], the reference picture as one latent frame
    reference_on: Tensor  # bool [B]
    reference_keypoints: Tensor  # [B, K, 3], the pose in the reference picture; zeros where it is not known
    speech: Tensor  # [B, T, A, speech layers, speech width], each latent frame's own window
    speech_mask: Tensor  # bool [B, T, A]
    audio_on: Tensor  # bool [B]
    keypoints: Tensor  # [B, F, K, 3]; F = 4 T where the segment continues a stream of latents
    pose_on: Tensor  # bool [B]
    motion: Tensor  # [B, C, M, h, w], clean latents of the motion frames
    motion_on: Tensor  # bool [B]


@dataclass(frozen=True)
class ModelInput:
    """Noisy samples of one size with their conditions; samples of several sizes are several of these."""

    noisy: Tensor  # [B, C, T, h, w]
    sigma: Tensor  # [B]
    conditions: Conditions


@dataclass(frozen=True)
class TrainingBatch:
    """Samples of one size with the noise they are given."""

    latents: Tensor  # [B, C, T, h, w]
    noise: Tensor  # [B, C, T, h, w]
    sigma: Tensor  # [B]
    conditions: Conditions


Pack: TypeAlias = "tuple[TrainingBatch, ...]"
"""Samples of any sizes that go through the network as one sequence, those of equal size together."""


@dataclass(frozen=True)
class Widths:
    """Channel counts that the frozen encoders decide; they come with the encoded data and with every checkpoint."""

    latent_channels: int
    text_width: int
    speech_width: int
    speech_layers: int
    num_keypoints: int
