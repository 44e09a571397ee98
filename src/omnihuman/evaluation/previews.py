"""Small copies of the first videos of a set, which a page can hold."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from omnihuman.batch import Sound
from omnihuman.evaluation.metrics.measure import SAMPLE_RATE, Shown
from omnihuman.evaluation.scoring import Pair
from omnihuman.media.picture import resize_picture
from omnihuman.media.write import write_video

PREVIEWS = "previews"
GENERATED, REAL = "generated", "real"
NUM_PREVIEWS = 8
_SHORT_SIDE_PIXELS = 192
_CRF = 30


def with_previews(pairs: Iterable[Pair], folder: Path) -> Iterator[Pair]:
    """Hands pairs on, and writes previews/{generated,real}/ITEM.mp4 and ITEM.jpg, the picture, of the first ones."""
    for number, pair in enumerate(pairs):
        if number < NUM_PREVIEWS:
            _write(pair.generated, folder / PREVIEWS / GENERATED)
            if pair.real is not None:
                _write(pair.real, folder / PREVIEWS / REAL)
        yield pair


def _write(shown: Shown, folder: Path) -> None:
    height, width = shown.frames.shape[1:3]
    scale = _SHORT_SIDE_PIXELS / min(width, height)
    size = (2 * round(width * scale / 2), 2 * round(height * scale / 2))
    heard = shown.sound is not None and len(shown.sound)
    sound = Sound(shown.sound, SAMPLE_RATE) if shown.sound is not None and heard else None
    frames = (resize_picture(frame, *size) for frame in shown.frames)
    write_video(folder / f"{shown.item}.mp4", frames, shown.fps, sound, crf=_CRF, faststart=True)
    if shown.reference is not None:
        Image.fromarray(resize_picture(shown.reference, *size)).save(folder / f"{shown.item}.jpg", quality=80)
