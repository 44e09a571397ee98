"""Rendering from Python: `omnihuman.render(...)`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference.generator import LoadedGenerator, load_generator
from omnihuman.inference.output import RenderedVideo
from omnihuman.inference.pose_inputs import with_known_weights
from omnihuman.inference.render import Progress, render_frames
from omnihuman.inference.render import render as render_file
from omnihuman.inference.request import InputOptions, RenderRequest


class RenderCancelledError(Exception):
    """The caller asked for an end. Segments that were finished are kept: the same call goes on there."""


def render(
    image: str | Path,
    *,
    model: str | Path | LoadedGenerator,
    audio: str | Path | None = None,
    pose: str | Path | None = None,
    image_pose: str | Path | None = None,
    video: str | Path | None = None,
    text: str = "",
    output: str | Path | None = None,
    seed: int = 0,
    conditions: Sequence[str] | None = None,
    options: InputOptions | None = None,
    sampling: Sampling | None = None,
    config: Render | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> RenderedVideo | np.ndarray:
    """Makes a video of the person in a picture, as `omnihuman render` does.

    ```
    if __name__ == "__main__":  # inputs are read in processes of their own, which import the script
        model = omnihuman.load_generator("models/3_pose")
        omnihuman.render("anna.png", audio="speech.wav", model=model, output="anna.mp4")
        frames = omnihuman.render("anna.png", audio="speech.wav", model=model)
    ```

    Args:
        model: a trained stage's folder, or what `load_generator` has loaded once for many calls.
        output: an .mp4 to write, with its sidecar; None returns the frames instead.
        conditions: to activate instead of what the paper's rules say; see `inference.activation`.
        sampling, config: how the flow is solved and the file written; by default as loaded, or as the schema says.
        progress: called with finished and all segments.
        cancelled: asked before each step of the solver; once it says true, the call ends.

    Returns:
        What was written, or uint8 [F, H, W, 3] at model time (25 frames a second), at the size the model makes.

    Raises:
        UserError: an input or setting is wrong, or the output cannot be written.
        RenderCancelledError: `cancelled` said so.
    """
    generator = model if isinstance(model, LoadedGenerator) else load_generator(Path(model))
    generator = replace(generator, sampling=sampling or generator.sampling, before_step=_stop_if(cancelled))
    audio, pose, image_pose, video, output = (
        None if path is None else Path(path) for path in (audio, pose, image_pose, video, output)
    )
    request = RenderRequest(
        Path(image),
        output,
        audio,
        pose,
        image_pose,
        text,
        seed,
        None if conditions is None else tuple(conditions),
        video,
        options or InputOptions(),
    )
    request = with_known_weights(request)
    config, progress = config or Render(), progress or _silent
    if output is not None:
        return render_file(request, generator, config, progress)
    frames = render_frames(request, generator, config, progress)
    return np.stack([(frame * 255).round().astype(np.uint8) for frame in frames])


def _stop_if(cancelled: Callable[[], bool] | None) -> Callable[[], None] | None:
    if cancelled is None:
        return None

    def check() -> None:
        if cancelled():
            raise RenderCancelledError

    return check


def _silent(finished: int, num_segments: int) -> None:
    """Shows no progress."""
