"""Rendered files without a model: drawn frames through the real output."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tests.tiny import WIDTHS

from omnihuman.batch import Sound
from omnihuman.config.schema.evaluate import Render
from omnihuman.encoders.speech import LogMel
from omnihuman.inference.activation import active_conditions
from omnihuman.inference.chaining import VideoInputs
from omnihuman.inference.inputs import RenderInputs
from omnihuman.inference.output import RenderedVideo, write_rendered
from omnihuman.inference.provenance import ModelIdentity, describe
from omnihuman.inference.speech_track import SpeechTrack

WIDTH, HEIGHT, FPS = 64, 48, 25.0
MODEL = ModelIdentity("omnihuman", 3, "ab" * 32)


def tone(seconds: float, rate: int = 16000, channels: int = 1) -> Sound:
    samples = (0.2 * np.sin(np.arange(round(seconds * rate)) / 12)).astype(np.float32)
    return Sound(samples if channels == 1 else np.stack([samples, -samples], axis=1), rate)


def pictures(num_frames: int) -> Iterator[np.ndarray]:
    """Frames that all differ."""
    ramp = np.linspace(0, 0.5, WIDTH, dtype=np.float32)[None, :, None]
    for index in range(num_frames):
        yield np.broadcast_to(np.roll(ramp, index, axis=1) + index % 7 / 20, (HEIGHT, WIDTH, 3))


def none(num_frames: int) -> Iterator[np.ndarray]:
    """In place of `pictures`, where none may be asked for."""
    raise AssertionError(f"one of {num_frames} frames was asked for")
    yield


def inputs(num_frames: int, sound: Sound | None) -> RenderInputs:
    video = VideoInputs(
        num_frames=num_frames,
        reference=np.zeros((WIDTHS.latent_channels, 6, 8), np.float32),
        reference_keypoints=np.zeros((17, 3), np.float32),
        text=np.zeros((2, 64), np.float32),
        speech=SpeechTrack(LogMel(), None, num_frames, FPS),
        keypoints=np.zeros((1, 17, 3), np.float32),
        active=active_conditions(audio=True, pose=False),
    )
    return RenderInputs(video, WIDTH, HEIGHT, sound)


def write(
    path: Path, config: Render, sound: Sound | None = None, num_frames: int = 0, picture: Path | None = None
) -> RenderedVideo:
    """As many frames as the sound has at model time, by default of a sound of half a second.

    Args:
        picture: what the video is said to be made of; by default a red one beside it.
    """
    sound = sound if sound or num_frames else tone(0.5)
    num_frames = num_frames or (round(len(sound.samples) / sound.sample_rate * FPS) if sound else 0)
    if picture is None:
        picture = path.with_name("picture.png")
        Image.new("RGB", (WIDTH, HEIGHT), "red").save(picture)
    files = {"image": picture}
    made_of = describe(MODEL, files, {"text": "ein Gruß", "seed": 7, **vars(config)})
    return write_rendered(path, pictures(num_frames), inputs(num_frames, sound), FPS, config, made_of, files)
