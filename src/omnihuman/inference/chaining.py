"""How the segments of a long video are joined (OmniHuman-1, sec. 3.4)."""

from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from omnihuman.batch import Conditions
from omnihuman.conditions.assembly import ActiveConditions, SegmentInputs, assemble
from omnihuman.conditions.audio import speech_windows
from omnihuman.conditions.motion_frames import NUM_MOTION_FRAMES, NUM_MOTION_LATENTS
from omnihuman.data.shards import Encoders
from omnihuman.encoders.video_codec import VideoCodec, num_latent_frames


@dataclass(frozen=True)
class VideoInputs:
    """Encoded inputs of a whole video of F frames at model time."""

    num_frames: int
    reference: np.ndarray  # [C, h, w]
    reference_keypoints: np.ndarray  # [K, 3]; zeros where the pose in the picture is not known
    text: np.ndarray  # [L, text width]
    speech: np.ndarray  # [F, speech layers, speech width]; without meaning where audio is off
    keypoints: np.ndarray  # [F, K, 3]; without meaning where pose is off
    active: ActiveConditions
    """Of the first segment; every later one has motion frames."""


def num_segments(num_frames: int, segment_frames: int) -> int:
    """How many segments cover a video: the first whole, every further one less the motion frames."""
    return 1 + max(0, -(-(num_frames - segment_frames) // (segment_frames - NUM_MOTION_FRAMES)))


class DecodedFramesChain:
    """Segments joined as in the paper: the last five decoded frames stay in memory as floats, are encoded again as
    1 + 4, and begin the next segment; they never pass through a file.
    """

    def __init__(self, inputs: VideoInputs, codec: VideoCodec, encoders: Encoders) -> None:
        self.num_segments = num_segments(inputs.num_frames, encoders.num_frames)
        self.num_latents = num_latent_frames(encoders.num_frames)
        self.finished = 0
        """Segments."""
        self._inputs, self._codec, self._encoders = inputs, codec, encoders
        self._tail: Tensor | None = None

    def conditions(self) -> Conditions:
        """Of the next segment, as a batch of one."""
        active = replace(self._inputs.active, motion=self._tail is not None)
        return assemble(self._segment_inputs(), active, self._encoders.max_text_tokens)

    def accept(self, latents: Tensor) -> np.ndarray:
        """Takes the next segment's latents [1, C, T, h, w] and returns its new frames, float32 [n, H, W, 3] in 0..1."""
        video = self._codec.decode(latents).clamp(-1.0, 1.0)
        known = 0 if self._tail is None else NUM_MOTION_FRAMES
        self._tail = video[:, :, -NUM_MOTION_FRAMES:]
        left = self._inputs.num_frames - self._start() - known
        self.finished += 1
        frames = video[0, :, known:].permute(1, 2, 3, 0)[:left]
        return ((frames + 1.0) / 2.0).numpy()

    def _start(self) -> int:
        """First frame of the next segment, its motion frames included."""
        return self.finished * (self._encoders.num_frames - NUM_MOTION_FRAMES)

    def _segment_inputs(self) -> SegmentInputs:
        """Cuts one segment out; beyond the video's end the sound is absent and the last pose stays."""
        inputs, start = self._inputs, self._start()
        frames = np.minimum(np.arange(start, start + self._encoders.num_frames), len(inputs.keypoints) - 1)
        motion = np.zeros((len(inputs.reference), NUM_MOTION_LATENTS, *inputs.reference.shape[1:]), np.float32)
        return SegmentInputs(
            text=inputs.text,
            reference=inputs.reference,
            reference_keypoints=inputs.reference_keypoints,
            speech=speech_windows(inputs.speech, start, self.num_latents),
            keypoints=inputs.keypoints[frames],
            motion=motion if self._tail is None else self._codec.encode(self._tail)[0].numpy(),
        )
