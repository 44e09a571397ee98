"""From generated frames to the written file with what proves where it comes from."""

import errno
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from omnihuman.config.schema.evaluate import Render
from omnihuman.errors import UserError
from omnihuman.inference.content_credentials import prepare
from omnihuman.inference.inputs import RenderInputs
from omnihuman.inference.provenance import Provenance
from omnihuman.inference.visible_label import VisibleLabel
from omnihuman.media.write import write_video
from omnihuman.storage.files import publish, temporary_path

_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or name a place on another disk"),
    errno.ENAMETOOLONG: "give a shorter name",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "name a folder that you may write into"),
    errno.EFBIG: "files may not be as large here, name another place",
}


class OutputError(UserError):
    """The place of the output is full, forbidden or gone; the same may succeed later."""


@dataclass(frozen=True)
class RenderedVideo:
    """What was written."""

    path: Path
    num_frames: int
    fps: float
    width: int
    height: int
    sound_seconds: float  # 0 without sound
    provenance: Provenance
    """As its sidecar has it."""


def write_rendered(
    path: Path,
    frames: Iterable[np.ndarray],
    inputs: RenderInputs,
    fps: float,
    config: Render,
    made_of: Provenance,
    files: Mapping[str, Path],
) -> RenderedVideo:
    """Enlarges, labels and encodes frames while they come, signs the file, and publishes it and then its sidecar.

    What can be found wrong is found before the first frame is asked for.

    Args:
        frames: float32 [H, W, 3] in 0..1, at `fps`; as many as `inputs` says.
        made_of: what sidecar and manifest tell.
        files: the inputs by role.

    Raises:
        OutputError: the file cannot be written there.
        UserError: the label or the certificate cannot be used.
    """
    width, height = _size(inputs, config)
    label = VisibleLabel(config.label, width, height) if config.label else None
    rate = Fraction(config.fps or fps).limit_denominator(1001)
    sound_seconds = len(inputs.sound.samples) / inputs.sound.sample_rate if inputs.sound else 0.0
    num_frames = max(1, round((sound_seconds or inputs.video.num_frames / fps) * rate))
    with _named_errors(path):
        _try_place(path)
        credentials = prepare(made_of, files) if config.content_credentials else None
        pictures = retimed(
            _pictures(frames, width, height, label), Fraction(fps).limit_denominator(1001), rate, num_frames
        )
        with publish(path) as temporary:
            write_video(
                temporary, pictures, float(rate), inputs.sound, crf=config.crf, codec=config.codec, faststart=True
            )
            if credentials:
                credentials.sign(temporary)
            provenance = made_of.of_file(temporary)
        provenance.save(path)
    return RenderedVideo(path, num_frames, float(rate), width, height, sound_seconds, provenance)


def retimed(frames: Iterable[np.ndarray], fps: Fraction, new_fps: Fraction, num_frames: int) -> Iterator[np.ndarray]:
    """Frames at another rate: at each new time the one whose time is nearest, the earlier of two; the last one stays.

    All frames are taken, also those that come after the last new time, so that who makes them comes to an end.
    """
    given = iter(frames)
    index, frame = -1, None
    for number in range(num_frames):
        nearest = max(0, math.ceil(number * fps / new_fps - Fraction(1, 2)))
        while index < nearest and (following := next(given, None)) is not None:
            index, frame = index + 1, following
        if frame is None:
            return
        yield frame
    for _ in given:
        pass


def _size(inputs: RenderInputs, config: Render) -> tuple[int, int]:
    """Width and height of the file, both even."""
    if not (config.width or config.height):
        return inputs.width * config.upscale, inputs.height * config.upscale
    aspect = inputs.width / inputs.height
    width = config.width or max(2, 2 * round(config.height * aspect / 2))
    height = config.height or max(2, 2 * round(config.width / aspect / 2))
    return width, height


def _pictures(
    frames: Iterable[np.ndarray], width: int, height: int, label: VisibleLabel | None
) -> Iterator[np.ndarray]:
    for frame in frames:
        image = Image.fromarray((frame * 255).round().astype(np.uint8))
        picture = np.asarray(ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS))
        yield picture if label is None else label.over(picture)


def _try_place(path: Path) -> None:
    """Writes an empty file beside the path and removes it, before hours are spent on what cannot be written."""
    if path.is_dir():
        raise OutputError(f"{path}: a folder has this name, give another")
    path.parent.mkdir(parents=True, exist_ok=True)
    longest = temporary_path(temporary_path(path))  # what is signed is published within what is published
    longest.touch()
    longest.unlink()


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Tells people what the system says of files."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "name another place")
        elsewhere = error.filename and Path(error.filename).absolute().parent != path.absolute().parent
        where = error.filename if elsewhere else path
        raise OutputError(f"{where}: {error.strerror or error}; {remedy}") from error
