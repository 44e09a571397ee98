"""`omnihuman render`: a picture and a driving signal to an MP4 file."""

from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference.activation import warn_of_untrained
from omnihuman.inference.chaining import num_segments
from omnihuman.inference.generator import LoadedGenerator
from omnihuman.inference.inputs import read_inputs
from omnihuman.inference.kept_segments import KeptSegments
from omnihuman.inference.long_video import VideoJob, generate_video
from omnihuman.inference.output import RenderedVideo, write_rendered
from omnihuman.inference.provenance import ModelIdentity, Parameters, describe
from omnihuman.inference.request import RenderRequest
from omnihuman.storage.files import remove_abandoned
from omnihuman.storage.work import code_key, content_key, held_work_folder

Progress = Callable[[int, int], None]
"""Called with finished and all segments."""
_MAKES_LATENTS = ("inference", "model", "diffusion", "conditions", "encoders", "packed.py")
"""Code that decides what a segment becomes."""


def render(
    request: RenderRequest,
    generator: LoadedGenerator,
    config: Render,
    progress: Progress,
    model: ModelIdentity | None = None,
) -> RenderedVideo:
    """Renders one video with its sidecar, as long as its sound (within a frame), or as its pose where there is none.

    Finished segments are kept below `$OMNIHUMAN_HOME/work` until the file is written, so that the same request goes on
    where a killed one was.

    Args:
        model: which registered version `generator` is; None where it came from a folder.

    Raises:
        UserError: an input is missing, unreadable or empty, or the output cannot be written or signed.
    """
    inputs = read_inputs(request, generator)
    warn_of_untrained(inputs.video.active, generator.modalities)
    told = parameters(request, generator.sampling, config)
    made_of = describe(model or ModelIdentity("", None, generator.sha256), request.inputs(), told)
    with held_work_folder(content_key(render=made_of.content_id, code=code_key(*_MAKES_LATENTS))) as folder:
        remove_abandoned(request.output)
        job = VideoJob(inputs.video, request.seed, KeptSegments(folder))
        frames = _frames(generator, job, config, progress)
        fps = generator.encoders.fps
        video = write_rendered(request.output, frames, inputs, fps, config, made_of, request.inputs())
        KeptSegments(folder).clear()
    return video


def parameters(request: RenderRequest, sampling: Sampling, config: Render) -> Parameters:
    """All that decides on the video beside the model and the input files."""
    chosen = {} if request.conditions is None else {"conditions": ",".join(request.conditions)}
    return {"text": request.text, "seed": request.seed, **chosen, **asdict(sampling), **asdict(config)}


def _frames(generator: LoadedGenerator, job: VideoJob, config: Render, progress: Progress) -> Iterator[np.ndarray]:
    """Yields float32 [H, W, 3] in 0..1."""
    total = num_segments(job.inputs.num_frames, generator.encoders.num_frames)
    progress(0, total)
    for number, frames in enumerate(generate_video(generator, job, config), start=1):
        progress(number, total)
        yield from frames
