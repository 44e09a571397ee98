"""`omnihuman render`: a picture and a driving signal to an MP4 file."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict

import numpy as np

from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.inference.activation import warn_of_untrained
from omnihuman.inference.chaining import num_segments
from omnihuman.inference.generator import LoadedGenerator
from omnihuman.inference.inputs import RenderInputs, read_inputs
from omnihuman.inference.kept_segments import KeptSegments
from omnihuman.inference.long_video import VideoJob, generate_video
from omnihuman.inference.output import RenderedVideo, write_rendered
from omnihuman.inference.provenance import ModelIdentity, Parameters, describe
from omnihuman.inference.request import RenderRequest
from omnihuman.storage.files import remove_abandoned
from omnihuman.storage.work import code_key, content_key, held_work_folder

log = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
"""Called with finished and all segments."""
_MAKES_LATENTS = (
    *(
        f"inference/{name}.py"
        for name in ("chaining", "colour", "generator", "long_video", "placement", "speech_track")
    ),
    *("model", "diffusion", "conditions", "encoders", "packed.py", "keyed_random.py"),
)
"""Code that decides what a segment becomes, once the inputs are encoded."""


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
    if request.output is None:
        raise ValueError("the request names no output: `render_frames` gives frames")
    inputs = _inputs(request, generator, config)
    told = parameters(request, generator.sampling, config)
    made_of = describe(model or ModelIdentity("", None, generator.sha256), request.inputs(), told)
    with held_work_folder(_work_key(request, generator, inputs, config)) as folder:
        remove_abandoned(request.output)
        kept = KeptSegments(folder)
        frames = _frames(generator, VideoJob(inputs.video, request.seed, kept), config, progress)
        fps = generator.encoders.fps
        video = write_rendered(request.output, frames, inputs, fps, config, made_of, request.inputs())
        kept.clear()
    return video


def render_frames(
    request: RenderRequest, generator: LoadedGenerator, config: Render, progress: Progress
) -> Iterator[np.ndarray]:
    """Yields the frames of a video that is not written, float32 [H, W, 3] in 0..1, as the model makes them.

    Raises:
        UserError: an input is missing, unreadable or empty.
    """
    inputs = _inputs(request, generator, config)
    yield from _frames(generator, VideoJob(inputs.video, request.seed), config, progress)


def parameters(request: RenderRequest, sampling: Sampling, config: Render) -> Parameters:
    """All that decides on the video beside the model and the input files."""
    chosen = {} if request.conditions is None else {"conditions": ",".join(request.conditions)}
    options = request.options.told(has_pose=request.pose_from is not None)
    return {"text": request.text, "seed": request.seed, **chosen, **options, **asdict(sampling), **asdict(config)}


def _work_key(request: RenderRequest, generator: LoadedGenerator, inputs: RenderInputs, config: Render) -> str:
    """Of all that decides on the latents, and of nothing else: a killed render goes on also with another label."""
    return content_key(
        inputs=inputs.video.sha256(),
        seed=request.seed,
        model=generator.sha256,
        encoders=generator.encoders.fingerprint,
        sampling=asdict(generator.sampling),
        chaining=(config.chaining, config.keep_colour),
        code=code_key(*_MAKES_LATENTS),
    )


def _inputs(request: RenderRequest, generator: LoadedGenerator, config: Render) -> RenderInputs:
    inputs = read_inputs(request, generator)
    warn_of_untrained(inputs.video.active, generator.modalities)
    if config.chaining == "latent_stream" and not generator.continues_streams:
        log.warning("the model was trained without training.midstream_share: a long latent_stream may break up")
    return inputs


def _frames(generator: LoadedGenerator, job: VideoJob, config: Render, progress: Progress) -> Iterator[np.ndarray]:
    """Yields float32 [H, W, 3] in 0..1."""
    total = num_segments(job.inputs.num_frames, generator.encoders.num_frames)
    progress(0, total)
    for number, frames in enumerate(generate_video(generator, job, config), start=1):
        progress(number, total)
        yield from frames
