"""From the files of a request to the encoded inputs of a video."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from omnihuman.batch import Sound
from omnihuman.data.sidecar import fit_keypoints
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.encoders.text import TextEncoder
from omnihuman.errors import UserError
from omnihuman.inference.activation import active_conditions
from omnihuman.inference.chaining import VideoInputs
from omnihuman.inference.generator import Generator
from omnihuman.inference.picture_inputs import FittedPicture, read_fitted
from omnihuman.inference.pose_inputs import (
    MAX_SECONDS,
    PoseTrack,
    driving_keypoints,
    num_frames_of,
    pose_of_picture,
    read_pose,
    warn_of_other_length,
)
from omnihuman.inference.request import RenderRequest
from omnihuman.inference.speech_track import SpeechTrack
from omnihuman.media.loudness import SILENCE_LUFS, at_loudness
from omnihuman.media.sound import read_whole_sound, resample, to_mono
from omnihuman.media.worker import Limits, run_guarded

log = logging.getLogger(__name__)
TARGET_LUFS = -23.0
"""Loudness at which the model hears any sound: EBU R 128's, and that of the drawn corpus within 0.5 LU."""
_MAX_WRITTEN_RATE = 48_000
_READING = Limits(deadline_seconds=120.0, memory_megabytes=8192)
"""An hour of stereo at 48 kHz takes 5.4 GB while it is handed over (measured)."""


@dataclass(frozen=True)
class RenderInputs:
    """What a request's files hold."""

    video: VideoInputs
    width: int  # in pixels, of what the model makes
    height: int
    sound: Sound | None
    """Of the written file, at its own rate up to 48 kHz, its own loudness, in stereo if it is; None for none."""


def read_inputs(request: RenderRequest, generator: Generator) -> RenderInputs:
    """Reads, checks and encodes all that a request names.

    Raises:
        UserError: an input is missing, unreadable or empty.
    """
    request.check()
    encoders = generator.encoders
    fitted = read_fitted(request.image, encoders, request.options)
    sound = _read_sound(request.sound_from) if request.sound_from else None
    track = read_pose(request.pose_from, request.options) if request.pose_from else None
    num_frames = _num_frames(sound, track, encoders.fps)
    if track is not None and sound is not None and request.pose_from is not None:
        warn_of_other_length(track, num_frames, encoders.fps, request.pose_from)
    person = None if track is None else _person(request, fitted)
    text_encoder = generator.text_encoder()
    _warn_of_cut_text(request.text, text_encoder, encoders.max_text_tokens)
    nobody = np.zeros((1, encoders.num_keypoints, 3), np.float32)
    video = VideoInputs(
        num_frames=num_frames,
        reference=_encode_picture(generator, fitted.pixels),
        reference_keypoints=(nobody if person is None else fit_keypoints(person[None], encoders.num_keypoints))[0],
        text=text_encoder.encode(request.text),
        speech=_speech(sound, num_frames, generator),
        keypoints=nobody
        if track is None
        else driving_keypoints(track, num_frames, encoders, person, fitted.aspect, request.options),
        active=active_conditions(sound is not None, track is not None, request.conditions),
    )
    height, width = fitted.pixels.shape[:2]
    return RenderInputs(video, width, height, sound)


def _num_frames(sound: Sound | None, track: PoseTrack | None, fps: float) -> int:
    """Of the whole video: as long as the sound, or else as the pose."""
    if sound is not None:
        return max(1, round(len(sound.samples) / sound.sample_rate * fps))
    return 0 if track is None else num_frames_of(track, fps)


def _person(request: RenderRequest, fitted: FittedPicture) -> np.ndarray | None:
    """The pose in the picture, [K, 3] in shares of what is shown of it; None where it is not known."""
    if request.image_pose is None:
        return pose_of_picture(fitted.pixels, request.options)
    points = read_pose(request.image_pose, request.options).keypoints.points
    seen = (points[..., 2] > 0).any(axis=1)
    if not seen.any():
        log.warning("%s: shows nobody, so the pose in the picture is not known", request.image_pose)
        return None
    return fitted.shown(points[int(seen.argmax())])


def _encode_picture(generator: Generator, pixels: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] to latents [C, h, w]."""
    scaled = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1.0
    return generator.codec().encode(scaled[None, :, None])[0, :, 0].numpy()


def _speech(sound: Sound | None, num_frames: int, generator: Generator) -> SpeechTrack:
    """The sound as the model hears it; zeros without one."""
    heard = None if sound is None else resample(to_mono(sound), SAMPLE_RATE)
    if heard is not None:
        heard, measured = at_loudness(heard, TARGET_LUFS)
        if measured < SILENCE_LUFS:
            log.warning("the sound is silence; the mouth will rest")
    return SpeechTrack(generator.speech_encoder(), heard, num_frames, generator.encoders.fps)


def _read_sound(path: Path) -> Sound:
    """The whole sound, decoded in a worker that can be killed."""
    (outcome,) = run_guarded(partial(read_whole_sound, MAX_SECONDS, _MAX_WRITTEN_RATE), [path], _READING, "")
    if outcome.status != "ok":
        raise UserError(f"sound {path}: cannot be read ({outcome.error}); give WAV, MP3, FLAC, M4A, OGG or a video")
    if outcome.value is None or not len(outcome.value.samples):
        raise UserError(f"sound {path}: holds no sound")
    if len(outcome.value.samples) > MAX_SECONDS * outcome.value.sample_rate:
        raise UserError(f"sound {path}: longer than {MAX_SECONDS:g} seconds, cut it")
    return outcome.value


def _warn_of_cut_text(text: str, encoder: TextEncoder, max_tokens: int) -> None:
    if (count := encoder.num_tokens(text)) > max_tokens:
        log.warning("text: has %d tokens, the model reads the first %d of them", count, max_tokens)
