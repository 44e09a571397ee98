"""`omnihuman render`: a picture and a driving signal to an MP4 file."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from omnihuman.batch import Sound
from omnihuman.config.schema.encode import Encode
from omnihuman.config.schema.evaluate import Render, Sampling
from omnihuman.data.shards import Encoders
from omnihuman.data.sidecar import fit_keypoints, read_keypoints
from omnihuman.encoders.sizes import encoded_size
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.errors import UserError
from omnihuman.inference.long_video import VideoInputs, generate_video, num_segments
from omnihuman.inference.provenance import ModelIdentity, Parameters, Provenance, record
from omnihuman.inference.segment import Generator
from omnihuman.media.picture import read_picture, resize_picture
from omnihuman.media.sound import read_sound
from omnihuman.media.worker import Limits, run_guarded
from omnihuman.media.write import write_video
from omnihuman.model.checkpoint import load_model
from omnihuman.storage.files import file_sha256

log = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
_READING = Limits(deadline_seconds=60.0, memory_megabytes=4096)
_MAX_SECONDS = 3600.0


@dataclass(frozen=True)
class RenderRequest:
    """What to render; at least one of sound and pose drives the video."""

    image: Path
    output: Path
    audio: Path | None = None
    pose: Path | None = None
    """NAME.keypoints.npz with `points` [F, K, 3] and `seconds` [F]."""
    image_pose: Path | None = None
    """A track whose first moment is the pose in the picture; helps to follow `pose`."""
    text: str = ""
    seed: int = 0

    def inputs(self) -> dict[str, Path]:
        """The files by their roles."""
        given = {"image": self.image, "audio": self.audio, "pose": self.pose, "image_pose": self.image_pose}
        return {role: path for role, path in given.items() if path is not None}

    def check(self) -> None:
        """Finds what is wrong without a look into the files.

        Raises:
            UserError: nothing drives the video, the output is no .mp4, or a file is missing.
        """
        if self.audio is None and self.pose is None:
            raise UserError("nothing drives the video: give --audio, --pose or both")
        if self.image_pose is not None and self.pose is None:
            raise UserError("--image-pose says where the person stands before following --pose: give --pose too")
        if self.output.suffix.lower() != ".mp4":
            remedy = f"only .mp4 can be written, name it {self.output.with_suffix('.mp4')}"
            raise UserError(f"--output {self.output}: {remedy}")
        for role, path in self.inputs().items():
            if not path.is_file():
                raise UserError(f"{role} {path}: no such file")


@dataclass(frozen=True)
class LoadedGenerator(Generator):
    """A generator that knows which weights it holds and what they were trained on."""

    modalities: tuple[str, ...]
    sha256: str
    """Of the file of weights."""


@dataclass(frozen=True)
class RenderedVideo:
    """What was written."""

    path: Path
    num_frames: int
    fps: float
    width: int
    height: int
    sound_seconds: float  # 0 without sound


def load_generator(folder: Path, sampling: Sampling) -> LoadedGenerator:
    """Loads a trained model once, for any number of renderings.

    Raises:
        UserError: the folder holds no model, or one that does not fit its description.
    """
    network, description = load_model(folder)
    sha256 = file_sha256(folder / WEIGHTS)
    return LoadedGenerator(network, description.encoders, sampling, description.modalities, sha256)


def render(
    request: RenderRequest, generator: LoadedGenerator, config: Render, progress: Callable[[int, int], None]
) -> RenderedVideo:
    """Renders one video as long as its sound (within a frame), or as its pose where there is no sound.

    Sound alone activates all conditions but pose; pose with sound activates all; pose alone leaves sound off
    (OmniHuman-1, sec. 3.4).

    Args:
        progress: called with finished and all segments.

    Raises:
        UserError: an input is missing, unreadable or empty.
    """
    request.check()
    picture = read_picture(request.image)
    sound = _read_sound(request.audio) if request.audio else None
    _warn_of_untrained(request, generator.modalities)
    size = _size(picture, generator.encoders)
    inputs = _video_inputs(request, generator, resize_picture(picture, *size), sound)
    frames = _enlarged_frames(
        generator, inputs, request.seed, (size[0] * config.upscale, size[1] * config.upscale), progress
    )
    write_video(request.output, frames, generator.encoders.fps, sound, crf=config.crf)
    return RenderedVideo(
        path=request.output,
        num_frames=inputs.num_frames,
        fps=generator.encoders.fps,
        width=size[0] * config.upscale,
        height=size[1] * config.upscale,
        sound_seconds=len(sound.samples) / sound.sample_rate if sound else 0.0,
    )


def record_rendered(request: RenderRequest, generator: LoadedGenerator, config: Render) -> Provenance:
    """Writes the sidecar of a video that `render` has made with a model from a folder."""
    model = ModelIdentity("", None, generator.sha256)
    return record(request.output, model, request.inputs(), parameters(request, generator.sampling, config))


def parameters(request: RenderRequest, sampling: Sampling, config: Render) -> Parameters:
    """All that decides on the video beside the model and the input files."""
    return {"text": request.text, "seed": request.seed, **asdict(sampling), **asdict(config)}


def _warn_of_untrained(request: RenderRequest, modalities: tuple[str, ...]) -> None:
    for given, modality in ((request.audio, "audio"), (request.pose, "pose")):
        if given and modality not in modalities:
            log.warning("the model was never trained on %s: %s will not steer the video", modality, given)


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


def _video_inputs(
    request: RenderRequest, generator: Generator, picture: np.ndarray, sound: Sound | None
) -> VideoInputs:
    encoders = generator.encoders
    num_frames = max(1, round(len(sound.samples) / SAMPLE_RATE * encoders.fps)) if sound else None
    pose = _read_pose(request.pose, encoders, num_frames) if request.pose else None
    reference_keypoints = np.zeros((encoders.num_keypoints, 3), np.float32)
    if request.image_pose:
        reference_keypoints = _read_pose(request.image_pose, encoders, 1)[0]
    if num_frames is None:
        num_frames = len(pose) if pose is not None else 0
    speech = np.zeros((num_frames, encoders.speech_layers, encoders.speech_width), np.float32)
    if sound:
        speech = generator.speech_encoder().encode(sound, num_frames, encoders.fps)
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 127.5 - 1.0
    reference = generator.codec().encode(pixels[None, :, None])[0, :, 0]
    return VideoInputs(
        num_frames=num_frames,
        reference=reference.numpy(),
        reference_keypoints=reference_keypoints,
        text=generator.text_encoder().encode(request.text),
        speech=speech,
        audio=sound is not None,
        keypoints=pose,
    )


def _enlarged_frames(
    generator: Generator, inputs: VideoInputs, seed: int, size: tuple[int, int], progress: Callable[[int, int], None]
) -> Iterator[np.ndarray]:
    total = num_segments(inputs.num_frames, generator.encoders.num_frames)
    progress(0, total)
    for number, frames in enumerate(generate_video(generator, inputs, seed), start=1):
        progress(number, total)
        for frame in frames:
            yield resize_picture((frame * 255).round().astype(np.uint8), *size)
