"""From the files of a request to the encoded inputs of a video."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from omnihuman.batch import Sound
from omnihuman.config.schema.encode import Encode
from omnihuman.data.shards import Encoders
from omnihuman.data.sidecar import fit_keypoints, read_keypoints
from omnihuman.encoders.sizes import encoded_size
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.errors import UserError
from omnihuman.inference.activation import active_conditions
from omnihuman.inference.chaining import VideoInputs
from omnihuman.inference.generator import Generator
from omnihuman.inference.request import RenderRequest
from omnihuman.inference.speech_track import SpeechTrack
from omnihuman.media.picture import read_picture, resize_picture
from omnihuman.media.sound import read_sound
from omnihuman.media.worker import Limits, run_guarded

_READING = Limits(deadline_seconds=60.0, memory_megabytes=4096)
_MAX_SECONDS = 3600.0


@dataclass(frozen=True)
class RenderInputs:
    """What a request's files hold."""

    video: VideoInputs
    width: int  # in pixels, of what the model makes
    height: int
    sound: Sound | None
    """Of the written file; None leaves it without."""


def read_inputs(request: RenderRequest, generator: Generator) -> RenderInputs:
    """Reads, checks and encodes all that a request names.

    Raises:
        UserError: an input is missing, unreadable or empty.
    """
    request.check()
    encoders = generator.encoders
    picture = read_picture(request.image)
    width, height = _size(picture, encoders)
    sound = _read_sound(request.audio) if request.audio else None
    num_frames = max(1, round(len(sound.samples) / SAMPLE_RATE * encoders.fps)) if sound else None
    pose = _read_pose(request.pose, encoders, num_frames) if request.pose else None
    known = _read_pose(request.image_pose, encoders, 1)[0] if request.image_pose else None
    num_frames = num_frames or (0 if pose is None else len(pose))
    video = VideoInputs(
        num_frames=num_frames,
        reference=_encode_picture(generator, resize_picture(picture, width, height)),
        reference_keypoints=np.zeros((encoders.num_keypoints, 3), np.float32) if known is None else known,
        text=generator.text_encoder().encode(request.text),
        speech=SpeechTrack(generator.speech_encoder(), sound, num_frames, encoders.fps),
        keypoints=np.zeros((1, encoders.num_keypoints, 3), np.float32) if pose is None else pose,
        active=active_conditions(sound is not None, pose is not None, request.conditions),
    )
    return RenderInputs(video, width, height, sound)


def _encode_picture(generator: Generator, pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to latents [C, h, w]."""
    scaled = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1.0
    return generator.codec().encode(scaled[None, :, None])[0, :, 0].numpy()


def _size(picture: np.ndarray, encoders: Encoders) -> tuple[int, int]:
    """Width and height at the highest resolution that the model was trained on."""
    config = Encode(size_multiple=encoders.size_multiple, max_aspect=encoders.max_aspect)
    return encoded_size(picture.shape[1], picture.shape[0], max(encoders.resolutions), config)


def _read_sound(path: Path) -> Sound:
    """The sound at the speech encoder's rate, decoded in a worker that can be killed."""
    (outcome,) = run_guarded(partial(read_sound, sample_rate=SAMPLE_RATE), [path], _READING, "")
    if outcome.status != "ok":
        raise UserError(f"sound {path}: cannot be read ({outcome.error}); give WAV, MP3, FLAC, M4A, OGG or a video")
    if outcome.value is None or not len(outcome.value.samples):
        raise UserError(f"sound {path}: holds no sound")
    if len(outcome.value.samples) > _MAX_SECONDS * SAMPLE_RATE:
        raise UserError(f"sound {path}: longer than {_MAX_SECONDS:g} seconds, cut it")
    return outcome.value


def _read_pose(path: Path, encoders: Encoders, num_frames: int | None) -> np.ndarray:
    """Keypoints [F, K, 3] at model time from second 0, by the nearest declared moment, `num_frames` if given."""
    try:
        declared = read_keypoints(path)
    except ValueError as error:
        raise UserError(f"pose {path}: {error}") from error
    if declared.seconds[-1] > _MAX_SECONDS:
        raise UserError(f"pose {path}: longer than {_MAX_SECONDS:g} seconds, cut it")
    moments = np.arange(num_frames or round(declared.seconds[-1] * encoders.fps) + 1) / encoders.fps
    after = np.clip(np.searchsorted(declared.seconds, moments), 1, max(1, len(declared.seconds) - 1))
    after = np.minimum(after, len(declared.seconds) - 1)
    before = np.maximum(after - 1, 0)
    nearer = moments - declared.seconds[before] <= declared.seconds[after] - moments
    return fit_keypoints(declared.points[np.where(nearer, before, after)], encoders.num_keypoints)
