"""What one window of an encoded clip offers as conditions."""

import numpy as np

from omnihuman.conditions.assembly import SegmentInputs
from omnihuman.conditions.audio import speech_windows
from omnihuman.conditions.motion_frames import NUM_MOTION_LATENTS
from omnihuman.data.shards import EncodedClip
from omnihuman.encoders.video_codec import TEMPORAL_FACTOR, num_frames


def choose_reference(
    clip: EncodedClip, window: int, random: np.random.Generator, num_latents: int | None = None
) -> int:
    """A reference picture from outside the window where there is one, or the model learns to copy the first frame.

    Args:
        num_latents: to which the window is cut; none: it stays whole.
    """
    start = clip.starts[window]
    end = start + num_frames(num_latents or clip.latents.shape[2])
    outside = np.flatnonzero((clip.reference_frames < start) | (clip.reference_frames >= end))
    return int(random.choice(outside if len(outside) else len(clip.reference_frames)))


def window_latents(
    clip: EncodedClip, window: int, num_latents: int | None = None, *, in_midstream: bool = False
) -> np.ndarray:
    """float16 [C, T, h, w]: the first latents of a window, which a causal codec makes of its first frames alone.

    Args:
        in_midstream: without the very first, which alone covers a single frame.
    """
    return clip.latents[window, :, int(in_midstream) : num_latents]


def window_inputs(
    clip: EncodedClip,
    window: int,
    reference: int,
    text: np.ndarray,
    num_latents: int | None = None,
    *,
    in_midstream: bool = False,
) -> SegmentInputs:
    """What one window of a clip offers as conditions.

    Args:
        num_latents: to which the window is cut; none: it stays whole.
        in_midstream: the window is to look as if it continued a stream, see `window_latents`.
    """
    latents = window_latents(clip, window, num_latents, in_midstream=in_midstream)
    first = int(clip.starts[window])
    start = first + TEMPORAL_FACTOR if in_midstream else first  # the last frame of the first latent
    end = start + num_frames(latents.shape[1])
    return SegmentInputs(
        text=text,
        reference=clip.references[reference],
        reference_keypoints=clip.keypoints[clip.reference_frames[reference]],
        speech=speech_windows(clip.speech.astype(np.float32), start, latents.shape[1], in_midstream=in_midstream),
        keypoints=clip.keypoints[first + 1 if in_midstream else first : end],
        motion=latents[:, :NUM_MOTION_LATENTS],
    )
