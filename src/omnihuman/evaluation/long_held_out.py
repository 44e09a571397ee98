"""Held-out people who speak for long: the sounds of other held-out clips, joined."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from omnihuman.batch import Sound
from omnihuman.conditions.assembly import ActiveConditions
from omnihuman.config.schema.evaluate import Render
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.evaluation.held_out import HeldOut, held_out_windows
from omnihuman.evaluation.metrics.measure import Shown
from omnihuman.inference.chaining import VideoInputs
from omnihuman.inference.generator import Generator
from omnihuman.inference.long_video import VideoJob, generate_videos
from omnihuman.inference.speech_track import SpeechTrack

_RENDER = Render()
"""Segments are joined as in the paper."""


def long_speech(
    generator: Generator, encoded: Path, count: int, seconds: float, seed: int, batch_size: int
) -> Iterator[Shown]:
    """Up to `count` videos of different people, one after another as they are finished."""
    windows = held_out_windows(encoded, "audio", 10**9, seed) if count else []
    chosen = list({window.identity: number for number, window in reversed(list(enumerate(windows)))}.values())
    speakers = [(windows[number], _joined(windows, number, seconds)) for number in sorted(chosen)[:count]]
    jobs = [
        VideoJob(_inputs(generator, window, sound), seed + number) for number, (window, sound) in enumerate(speakers)
    ]
    frames: dict[int, list[np.ndarray]] = {}
    for number, new in generate_videos(generator, jobs, _RENDER, batch_size):
        made = frames.setdefault(number, [])
        made += [(frame * 255).round().astype(np.uint8) for frame in new]
        if len(made) == jobs[number].inputs.num_frames:
            yield _shown(generator, *speakers[number], np.stack(frames.pop(number)))


def _joined(windows: Sequence[HeldOut], number: int, seconds: float) -> Sound:
    """The sounds of the clips that follow one, without its own where others are enough."""
    sounds = [window.clip.sound for window in [*windows[number + 1 :], *windows[:number], windows[number]]]
    samples = np.concatenate(sounds)[: round(seconds * SAMPLE_RATE)]
    return Sound(samples.astype(np.float32) / 32767, SAMPLE_RATE)


def _inputs(generator: Generator, window: HeldOut, sound: Sound) -> VideoInputs:
    clip, encoders = window.clip, generator.encoders
    num_frames = max(1, round(len(sound.samples) / SAMPLE_RATE * encoders.fps))
    return VideoInputs(
        num_frames=num_frames,
        reference=clip.references[window.reference].astype(np.float32),
        reference_keypoints=clip.keypoints[clip.reference_frames[window.reference]],
        text=clip.text.astype(np.float32),
        speech=SpeechTrack(generator.speech_encoder(), sound, num_frames, encoders.fps),
        keypoints=np.zeros((1, encoders.num_keypoints, 3), np.float32),
        active=ActiveConditions(text=True, reference=True, audio=True, pose=False, motion=False),
    )


def _shown(generator: Generator, window: HeldOut, sound: Sound, frames: np.ndarray) -> Shown:
    clip = window.clip
    latent = torch.from_numpy(clip.references[window.reference].astype(np.float32))
    picture = generator.codec().decode(latent[None, :, None]).clamp(-1, 1)[0, :, 0].permute(1, 2, 0)
    points = clip.keypoints[clip.reference_frames[window.reference]]
    return Shown(
        item=window.clip_id,
        person=window.identity,
        fps=generator.encoders.fps,
        frames=frames,
        sound=sound.samples,
        reference=((picture + 1) * 127.5).round().to(torch.uint8).numpy(),
        reference_points=points if points[:, 2].any() else None,
    )
