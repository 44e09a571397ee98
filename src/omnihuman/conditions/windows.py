"""What one window of an encoded clip offers as conditions."""

import numpy as np

from omnihuman.conditions.assembly import SegmentInputs
from omnihuman.conditions.audio import speech_windows
from omnihuman.conditions.motion_frames import NUM_MOTION_LATENTS
from omnihuman.data.shards import EncodedClip
from omnihuman.encoders.video_codec import num_frames


def choose_reference(clip: EncodedClip, window: int, random: np.random.Generator) -> int:
    """A reference picture from outside the window where there is one, or the model learns to copy the first frame."""
    start = clip.starts[window]
    end = start + num_frames(clip.latents.shape[2])
    outside = np.flatnonzero((clip.reference_frames < start) | (clip.reference_frames >= end))
    return int(random.choice(outside if len(outside) else len(clip.reference_frames)))


def window_inputs(clip: EncodedClip, window: int, reference: int, text: np.ndarray) -> SegmentInputs:
    """What one window of a clip offers as conditions."""
    start = int(clip.starts[window])
    latents = clip.latents[window]
    num_latents = latents.shape[1]
    return SegmentInputs(
        text=text,
        reference=clip.references[reference],
        reference_keypoints=clip.keypoints[clip.reference_frames[reference]],
        speech=speech_windows(clip.speech.astype(np.float32), start, num_latents),
        keypoints=clip.keypoints[start : start + num_frames(num_latents)],
        motion=latents[:, :NUM_MOTION_LATENTS],
    )
