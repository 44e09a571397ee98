"""From the inputs of one segment to the `Conditions` of a batch."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from omnihuman.batch import Conditions
from omnihuman.conditions.audio import SpeechWindows


@dataclass(frozen=True)
class ActiveConditions:
    """What is on in one sample."""

    text: bool
    reference: bool
    audio: bool
    pose: bool
    motion: bool
    reference_pose: bool = True  # whether the pose in the reference picture is known to a sample with pose


@dataclass(frozen=True)
class SegmentInputs:
    """Encoded inputs of one segment; whether they act is said by `ActiveConditions`."""

    text: np.ndarray  # [L, text width]; the empty prompt's embedding where text is off
    reference: np.ndarray  # [C, h, w]
    reference_keypoints: np.ndarray  # [K, 3]; zeros where not known
    speech: SpeechWindows
    keypoints: np.ndarray  # [F, K, 3]; F = 4 T in mid-stream
    motion: np.ndarray  # [C, M, h, w]


def assemble(inputs: SegmentInputs, active: ActiveConditions, max_text_tokens: int) -> Conditions:
    """Conditions of one segment as a batch of one, text padded to `max_text_tokens`."""
    padded_text = np.zeros((max_text_tokens, inputs.text.shape[1]), np.float32)
    padded_text[: len(inputs.text)] = inputs.text
    reference_keypoints = inputs.reference_keypoints * (active.reference and active.reference_pose)
    return Conditions(
        text=torch.from_numpy(padded_text)[None],
        text_mask=(torch.arange(max_text_tokens) < len(inputs.text))[None],
        reference=torch.from_numpy(inputs.reference.astype(np.float32))[None],
        reference_on=torch.tensor([active.reference]),
        reference_keypoints=torch.from_numpy(reference_keypoints.astype(np.float32))[None],
        speech=torch.from_numpy(inputs.speech.features)[None],
        speech_mask=torch.from_numpy(inputs.speech.mask)[None],
        audio_on=torch.tensor([active.audio]),
        keypoints=torch.from_numpy(inputs.keypoints.astype(np.float32))[None],
        pose_on=torch.tensor([active.pose]),
        motion=torch.from_numpy(inputs.motion.astype(np.float32))[None],
        motion_on=torch.tensor([active.motion]),
    )


def join_conditions(items: list[Conditions] | tuple[Conditions, ...]) -> Conditions:
    """Concatenates conditions of one size along the batch."""
    return Conditions(**{f.name: torch.cat([getattr(item, f.name) for item in items]) for f in fields(Conditions)})


def sizes_of(conditions: Conditions) -> tuple[torch.Size, ...]:
    """What must be equal for conditions to be joined."""
    return tuple(getattr(conditions, f.name).shape[1:] for f in fields(Conditions))
