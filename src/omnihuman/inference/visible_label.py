"""Text in a corner of every frame, for example that a model made it."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from omnihuman.errors import UserError

FONT_VARIABLE = "OMNIHUMAN_LABEL_FONT"
"""A font file for writing systems that DejaVu Sans lacks, such as Chinese, Japanese, Korean, Thai or Devanagari."""
_SHARE_OF_HEIGHT = 1 / 24
_SMALLEST_PIXELS = 9
"""Below that letters cannot be told apart."""
_BACKGROUND = (0, 0, 0, 176)  # dark behind white letters: readable on anything


class VisibleLabel:
    """White text on a dark, translucent plate, drawn once and laid over each frame."""

    def __init__(self, text: str, width: int, height: int) -> None:
        """Draws it for frames of one size.

        Raises:
            UserError: the font has no glyph for a character, or the text is too long for the width.
        """
        path = _font(text)
        size = max(_SMALLEST_PIXELS, round(height * _SHARE_OF_HEIGHT))
        plate = _plate(text, path, size)
        if plate.width > width:
            size = int(size * width / plate.width)
            plate = _plate(text, path, max(size, _SMALLEST_PIXELS))
        if plate.width > width or plate.height > height:
            raise UserError(f"render.label: {text!r} is too long for a picture of {width} x {height}, shorten it")
        pixels = np.asarray(plate)
        opacity = pixels[..., 3:].astype(np.float32) / 255
        self._shown = 1 - opacity
        self._colour = pixels[..., :3] * opacity

    def over(self, frame: np.ndarray) -> np.ndarray:
        """The frame, uint8 [H, W, 3], with the label in its lower left corner."""
        height, width = self._shown.shape[:2]
        labelled = frame.copy()
        corner = labelled[-height:, :width]
        corner[:] = (corner * self._shown + self._colour).round().astype(np.uint8)
        return labelled


def _plate(text: str, path: Path, size: int) -> Image.Image:
    font = ImageFont.truetype(str(path), size)
    margin = max(2, size // 3)
    left, top, right, bottom = font.getbbox(text)
    ascent, descent = font.getmetrics()
    above, below = min(0, top), max(ascent + descent, bottom)
    area = (round(right - left) + 2 * margin, round(below - above) + margin)
    plate = Image.new("RGBA", area, _BACKGROUND)
    ImageDraw.Draw(plate).text((margin - left, margin // 2 - above), text, font=font, fill=(255, 255, 255, 255))
    return plate


def _font(text: str) -> Path:
    """The font file; every character of the text is in it."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    named = os.environ.get(FONT_VARIABLE, "")
    path = Path(named) if named else Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    try:
        known = FT2Font(path).get_charmap()
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{FONT_VARIABLE} {path}: cannot be read as a font ({error}); give a TTF or OTF file"
        ) from error
    missing = "".join(dict.fromkeys(character for character in text if ord(character) not in known))
    if missing:
        raise UserError(
            f"render.label: the font {path.name} has no {missing!r}; set {FONT_VARIABLE} to a font file that has"
        )
    return path
