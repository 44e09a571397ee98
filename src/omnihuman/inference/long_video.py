"""Video of any length: segments chained by motion frames (OmniHuman-1, sec. 3.4)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from omnihuman.conditions.assembly import ActiveConditions, SegmentInputs, assemble
from omnihuman.conditions.audio import speech_windows
from omnihuman.conditions.motion_frames import NUM_MOTION_FRAMES, NUM_MOTION_LATENTS
from omnihuman.encoders.video_codec import num_latent_frames
from omnihuman.inference.segment import Generator


@dataclass(frozen=True)
class VideoInputs:
    """Encoded inputs of a whole video of F frames at model time."""

    num_frames: int
    reference: np.ndarray  # [C, h, w]
    reference_keypoints: np.ndarray  # [K, 3]; zeros where the pose in the picture is not known
    text: np.ndarray  # [L, text width]
    speech: np.ndarray  # [F, speech layers, speech width]; without meaning where audio is off
    audio: bool
    keypoints: np.ndarray | None  # [F, K, 3]; None: pose off


def num_segments(num_frames: int, segment_frames: int) -> int:
    """How many segments cover a video: the first whole, every further one less the motion frames."""
    return 1 + max(0, -(-(num_frames - segment_frames) // (segment_frames - NUM_MOTION_FRAMES)))


def generate_video(generator: Generator, inputs: VideoInputs, seed: int) -> Iterator[np.ndarray]:
    """Yields the new frames of each segment, float32 [n, H, W, 3] in 0..1, in all exactly `inputs.num_frames`.

    The last five decoded frames stay in memory as floats and are encoded again as 1 + 4 for the next segment; they
    never pass through a file. Each segment has noise of its own.
    """
    codec = generator.codec()
    segment_frames = generator.encoders.num_frames
    advance = segment_frames - NUM_MOTION_FRAMES
    tail: Tensor | None = None
    for number in range(num_segments(inputs.num_frames, segment_frames)):
        conditions = assemble(
            _segment_inputs(inputs, number * advance, segment_frames, None if tail is None else codec.encode(tail)[0]),
            ActiveConditions(
                text=True,
                reference=True,
                audio=inputs.audio,
                pose=inputs.keypoints is not None,
                motion=tail is not None,
            ),
            generator.encoders.max_text_tokens,
        )
        latents = generator.segment(conditions, num_latent_frames(segment_frames), [(seed, "segment", number)])
        video = codec.decode(latents).clamp(-1.0, 1.0)
        known = 0 if tail is None else NUM_MOTION_FRAMES
        tail = video[:, :, -NUM_MOTION_FRAMES:]
        left = inputs.num_frames - number * advance - known
        frames = video[0, :, known:].permute(1, 2, 3, 0)[:left]
        yield ((frames + 1.0) / 2.0).numpy()


def _segment_inputs(inputs: VideoInputs, start: int, segment_frames: int, motion: Tensor | None) -> SegmentInputs:
    """Cuts one segment out; beyond the video's end the sound is absent and the last pose stays."""
    num_latents = num_latent_frames(segment_frames)
    keypoints = np.zeros_like(inputs.reference_keypoints)[None] if inputs.keypoints is None else inputs.keypoints
    frames = np.minimum(np.arange(start, start + segment_frames), len(keypoints) - 1)
    nothing = np.zeros((len(inputs.reference), NUM_MOTION_LATENTS, *inputs.reference.shape[1:]), np.float32)
    return SegmentInputs(
        text=inputs.text,
        reference=inputs.reference,
        reference_keypoints=inputs.reference_keypoints,
        speech=speech_windows(inputs.speech, start, num_latents),
        keypoints=keypoints[frames],
        motion=nothing if motion is None else motion.numpy(),
    )
