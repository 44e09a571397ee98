"""`omnihuman render`: a picture and a driving signal to an MP4 file."""

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference.activation import warn_of_untrained
from omnihuman.inference.chaining import num_segments
from omnihuman.inference.generator import LoadedGenerator
from omnihuman.inference.inputs import RenderInputs, read_inputs
from omnihuman.inference.long_video import generate_video
from omnihuman.inference.output import RenderedVideo, write_rendered
from omnihuman.inference.provenance import ModelIdentity, Parameters, Provenance, record
from omnihuman.inference.request import RenderRequest

Progress = Callable[[int, int], None]
"""Called with finished and all segments."""


def render(request: RenderRequest, generator: LoadedGenerator, config: Render, progress: Progress) -> RenderedVideo:
    """Renders one video as long as its sound (within a frame), or as its pose where there is no sound.

    Raises:
        UserError: an input is missing, unreadable or empty.
    """
    inputs = read_inputs(request, generator)
    warn_of_untrained(inputs.video.active, generator.modalities)
    frames = _frames(request, generator, inputs, progress)
    return write_rendered(request.output, frames, inputs, generator.encoders.fps, config)


def record_rendered(request: RenderRequest, generator: LoadedGenerator, config: Render) -> Provenance:
    """Writes the sidecar of a video that `render` has made with a model from a folder."""
    model = ModelIdentity("", None, generator.sha256)
    return record(request.output, model, request.inputs(), parameters(request, generator.sampling, config))


def parameters(request: RenderRequest, sampling: Sampling, config: Render) -> Parameters:
    """All that decides on the video beside the model and the input files."""
    options = asdict(request.options)
    return {"text": request.text, "seed": request.seed, **options, **asdict(sampling), **asdict(config)}


def _frames(
    request: RenderRequest, generator: LoadedGenerator, inputs: RenderInputs, progress: Progress
) -> Iterator[np.ndarray]:
    """Yields float32 [H, W, 3] in 0..1."""
    total = num_segments(inputs.video.num_frames, generator.encoders.num_frames)
    progress(0, total)
    for number, frames in enumerate(generate_video(generator, inputs.video, request.seed), start=1):
        progress(number, total)
        yield from frames
