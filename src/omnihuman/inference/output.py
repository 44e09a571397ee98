"""From generated frames to the written file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omnihuman.config.schema.evaluate import Render
from omnihuman.inference.inputs import RenderInputs
from omnihuman.media.picture import resize_picture
from omnihuman.media.write import write_video


@dataclass(frozen=True)
class RenderedVideo:
    """What was written."""

    path: Path
    num_frames: int
    fps: float
    width: int
    height: int
    sound_seconds: float  # 0 without sound


def write_rendered(
    path: Path, frames: Iterable[np.ndarray], inputs: RenderInputs, fps: float, config: Render
) -> RenderedVideo:
    """Enlarges and encodes frames while they come.

    Args:
        frames: float32 [H, W, 3] in 0..1, at `fps`.
    """
    width, height, sound = inputs.width * config.upscale, inputs.height * config.upscale, inputs.sound
    pictures = (resize_picture((frame * 255).round().astype(np.uint8), width, height) for frame in frames)
    write_video(path, pictures, fps, sound, crf=config.crf)
    seconds = len(sound.samples) / sound.sample_rate if sound else 0.0
    return RenderedVideo(path, inputs.video.num_frames, fps, width, height, seconds)
