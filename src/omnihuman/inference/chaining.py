"""How the segments of a long video are joined (OmniHuman-1, sec. 3.4): two ways behind one interface.

Both make F = 4 (T - 1) + 1 frames first and 4 (T - 2) with every further segment of T latents.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from omnihuman.batch import Conditions
from omnihuman.conditions.assembly import ActiveConditions, SegmentInputs, assemble
from omnihuman.conditions.audio import NEIGHBOURS, SpeechWindows, speech_windows
from omnihuman.conditions.motion_frames import NUM_MOTION_FRAMES, NUM_MOTION_LATENTS
from omnihuman.config.schema.evaluate import Render
from omnihuman.data.shards import Encoders
from omnihuman.encoders.video_codec import TEMPORAL_FACTOR, VideoCodec, num_latent_frames
from omnihuman.errors import UserError
from omnihuman.inference.colour import towards_reference
from omnihuman.inference.speech_track import SpeechTrack


@dataclass(frozen=True)
class VideoInputs:
    """Encoded inputs of a whole video of F frames at model time."""

    num_frames: int
    reference: np.ndarray  # [C, h, w]
    reference_keypoints: np.ndarray  # [K, 3]; zeros where the pose in the picture is not known
    text: np.ndarray  # [L, text width]
    speech: SpeechTrack
    keypoints: np.ndarray  # [F, K, 3]; without meaning where pose is off
    active: ActiveConditions
    """Of the first segment; every later one has motion frames."""

    def sha256(self) -> str:
        """Hexadecimal digest of all of them."""
        digest = hashlib.sha256(repr((self.num_frames, self.active)).encode())
        for array in (self.reference, self.reference_keypoints, self.text, self.speech.samples, self.keypoints):
            digest.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def num_segments(num_frames: int, segment_frames: int) -> int:
    """How many segments cover a video: the first whole, every further one less the motion frames.

    Raises:
        UserError: one does not suffice, and a further one would hold nothing but motion frames.
    """
    if num_frames <= segment_frames:
        return 1
    if segment_frames <= NUM_MOTION_FRAMES:
        raise UserError(
            f"the model makes segments of {segment_frames} frames, of which {NUM_MOTION_FRAMES} repeat the one before:"
            f" {num_frames} frames cannot be made of them, shorten the sound or the pose"
        )
    return 1 - (segment_frames - num_frames) // (segment_frames - NUM_MOTION_FRAMES)


class Chain(ABC):
    """The segments of one video, one after another: `conditions` of the next, `accept` its latents, and so on."""

    def __init__(self, inputs: VideoInputs, codec: VideoCodec, encoders: Encoders) -> None:
        self.num_segments = num_segments(inputs.num_frames, encoders.num_frames)
        self.num_latents = num_latent_frames(encoders.num_frames)
        """T of every segment."""
        self.finished = 0
        """Segments."""
        self._inputs, self._codec, self._encoders = inputs, codec, encoders
        self._frames_left = inputs.num_frames
        self._motion: Tensor | None = None  # [C, M, h, w], the motion latents of the next segment

    def conditions(self) -> Conditions:
        """Of the next segment, as a batch of one."""
        active = replace(self._inputs.active, motion=self._motion is not None)
        return assemble(self._segment_inputs(), active, self._encoders.max_text_tokens)

    def accept(self, latents: Tensor) -> np.ndarray:
        """Takes the next segment's latents [1, C, T, h, w] and returns its new frames, float32 [n, H, W, 3] in 0..1."""
        video = self._new_frames(latents)
        self.finished += 1
        frames = video[0].permute(1, 2, 3, 0)[: self._frames_left]
        self._frames_left -= len(frames)
        return ((frames + 1.0) / 2.0).cpu().numpy()

    @abstractmethod
    def _new_frames(self, latents: Tensor) -> Tensor:
        """[1, 3, n, H, W] in -1..1, without those of the segment before; sets the motion latents of the next one."""

    @abstractmethod
    def _in_midstream(self) -> bool:
        """Whether the first latent of the next segment covers four frames, as all others do."""

    def _segment_inputs(self) -> SegmentInputs:
        """Cuts one segment out; beyond the video's end the sound is absent and the last pose stays."""
        inputs, start = self._inputs, self.finished * (self._encoders.num_frames - NUM_MOTION_FRAMES)
        first = start - TEMPORAL_FACTOR + 1 if self._in_midstream() else start
        frames = np.minimum(np.arange(first, start + self._encoders.num_frames), len(inputs.keypoints) - 1)
        no_motion = np.zeros((len(inputs.reference), NUM_MOTION_LATENTS, *inputs.reference.shape[1:]), np.float32)
        return SegmentInputs(
            text=inputs.text,
            reference=inputs.reference,
            reference_keypoints=inputs.reference_keypoints,
            speech=self._speech(start),
            keypoints=inputs.keypoints[frames],
            motion=no_motion if self._motion is None else self._motion.cpu().numpy(),
        )

    def _speech(self, start: int) -> SpeechWindows:
        track = self._inputs.speech
        heard_from = max(0, start - TEMPORAL_FACTOR - NEIGHBOURS)
        heard_to = min(track.num_frames, start + self._encoders.num_frames + NEIGHBOURS)
        return speech_windows(
            track.between(heard_from, heard_to),
            start - heard_from,
            self.num_latents,
            in_midstream=self._in_midstream(),
        )


class DecodedFrames(Chain):
    """As in the paper: the last five decoded frames stay in memory as floats, are encoded again as 1 + 4, and begin the
    next segment; they never pass through a file.
    """

    def __init__(self, inputs: VideoInputs, codec: VideoCodec, encoders: Encoders, keep_colour: float = 0.0) -> None:
        super().__init__(inputs, codec, encoders)
        self._keep_colour = keep_colour
        self._reference = self._decode(torch.from_numpy(inputs.reference)[None, :, None]) if keep_colour else None

    def _new_frames(self, latents: Tensor) -> Tensor:
        video = self._decode(latents)
        known = 0 if self._motion is None else NUM_MOTION_FRAMES
        tail = video[:, :, -NUM_MOTION_FRAMES:]
        if self._reference is not None:
            tail = towards_reference(tail, self._reference, self._keep_colour)
        self._motion = self._codec.encode(tail)[0]
        return video[:, :, known:]

    def _decode(self, latents: Tensor) -> Tensor:
        return self._codec.decode(latents).clamp(-1.0, 1.0)

    def _in_midstream(self) -> bool:
        return False


class LatentStream(Chain):
    """The last two latents, of four frames each, begin the next segment as they are; one decoder runs through all."""

    def __init__(self, inputs: VideoInputs, codec: VideoCodec, encoders: Encoders) -> None:
        super().__init__(inputs, codec, encoders)
        self._waiting: deque[Tensor] = deque()
        self._decoded = codec.decode_stream(self._latents())

    def _latents(self) -> Iterator[Tensor]:
        while True:
            yield self._waiting.popleft()

    def _new_frames(self, latents: Tensor) -> Tensor:
        known = 0 if self._motion is None else NUM_MOTION_LATENTS
        self._motion = latents[0, :, -NUM_MOTION_LATENTS:]
        frames = []
        for latent in latents[:, :, known:].split(1, dim=2):
            self._waiting.append(latent)
            frames.append(next(self._decoded))
        return torch.cat(frames, dim=2).clamp(-1.0, 1.0)

    def _in_midstream(self) -> bool:
        return self._motion is not None


def make_chain(inputs: VideoInputs, codec: VideoCodec, encoders: Encoders, config: Render) -> Chain:
    """The chain that `render.chaining` names.

    Raises:
        UserError: a segment is too short for it.
    """
    if config.chaining == "decoded_frames":
        return DecodedFrames(inputs, codec, encoders, config.keep_colour)
    if num_latent_frames(encoders.num_frames) <= NUM_MOTION_LATENTS:
        raise UserError(f"render.chaining=latent_stream: segments of {encoders.num_frames} frames are too short")
    return LatentStream(inputs, codec, encoders)
