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
from omnihuman.inference.provenance import ModelIdentity, Parameters, Provenance, content_id, record
from omnihuman.inference.request import RenderRequest
from omnihuman.storage.files import file_sha256, remove_abandoned
from omnihuman.storage.work import code_key, content_key, held_work_folder

Progress = Callable[[int, int], None]
"""Called with finished and all segments."""
_MAKES_LATENTS = ("inference", "model", "diffusion", "conditions", "encoders", "packed.py")
"""Code that decides what a segment becomes."""


def render(request: RenderRequest, generator: LoadedGenerator, config: Render, progress: Progress) -> RenderedVideo:
    """Renders one video as long as its sound (within a frame), or as its pose where there is no sound.

    Finished segments are kept below `$OMNIHUMAN_HOME/work` until the file is written, so that the same request goes on
    where a killed one was.

    Raises:
        UserError: an input is missing, unreadable or empty.
    """
    inputs = read_inputs(request, generator)
    warn_of_untrained(inputs.video.active, generator.modalities)
    with held_work_folder(_work_key(request, generator, config)) as folder:
        remove_abandoned(request.output)
        job = VideoJob(inputs.video, request.seed, KeptSegments(folder))
        frames = _frames(generator, job, config, progress)
        video = write_rendered(request.output, frames, inputs, generator.encoders.fps, config)
        KeptSegments(folder).clear()
    return video


def record_rendered(request: RenderRequest, generator: LoadedGenerator, config: Render) -> Provenance:
    """Writes the sidecar of a video that `render` has made with a model from a folder."""
    model = ModelIdentity("", None, generator.sha256)
    return record(request.output, model, request.inputs(), parameters(request, generator.sampling, config))


def parameters(request: RenderRequest, sampling: Sampling, config: Render) -> Parameters:
    """All that decides on the video beside the model and the input files."""
    chosen = {} if request.conditions is None else {"conditions": ",".join(request.conditions)}
    return {"text": request.text, "seed": request.seed, **chosen, **asdict(sampling), **asdict(config)}


def _work_key(request: RenderRequest, generator: LoadedGenerator, config: Render) -> str:
    hashes = {role: file_sha256(path) for role, path in request.inputs().items()}
    video = content_id(hashes, generator.sha256, parameters(request, generator.sampling, config))
    return content_key(render=video, code=code_key(*_MAKES_LATENTS))


def _frames(generator: LoadedGenerator, job: VideoJob, config: Render, progress: Progress) -> Iterator[np.ndarray]:
    """Yields float32 [H, W, 3] in 0..1."""
    total = num_segments(job.inputs.num_frames, generator.encoders.num_frames)
    progress(0, total)
    for number, frames in enumerate(generate_video(generator, job, config), start=1):
        progress(number, total)
        yield from frames
