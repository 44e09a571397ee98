"""What does not belong to the scene: borders around the picture, and marks in its corners."""

import cv2
import numpy as np

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable

FLAT_LEVELS = 4.0
"""Largest standard deviation along a row of a border, and over time of its mean; codecs leave some."""
STEP_LEVELS = 6
STEP_SHARE = 0.5
"""Where a border ends, at least this share of the row steps by that much: a head before a plain wall is narrower."""
MAX_BORDER_SHARE = 0.45
"""Of the side; a picture that is flat as a whole has no border."""
STEP_ROWS = 2
"""Rows over which a border may end, because frames are made smaller."""

CORNER_SHARE = 0.25
STROKE_PIXELS = 5
STROKE_LEVELS = 24
"""Least contrast of a mark against both sides; half of a banner's, because marks are often see-through."""
MARK_FRAMES = 9
MIN_FRAMES = 5


def measure_borders(content: ClipContent) -> tuple[Measurement, ...]:
    """Share of the picture's area that flat borders cover; 0 without any. Borders with a blurred copy are not found."""
    grey = content.grey[content.few].astype(np.float32)
    height, width = grey.shape[1:]
    top, bottom = _border(grey), _border(grey[:, ::-1])
    turned = grey.transpose(0, 2, 1)
    left, right = _border(turned), _border(turned[:, ::-1])
    inside = (height - top - bottom) * (width - left - right)
    return (measured("borders", 1 - inside / (height * width), len(grey)),)


def _border(grey: np.ndarray) -> int:
    """Rows of a border at the top of pictures, float32 [F, H, W]."""
    flat = (grey.std(axis=2).max(axis=0) <= FLAT_LEVELS) & (grey.mean(axis=2).std(axis=0) <= FLAT_LEVELS)
    num_flat = int(flat.argmin()) if not flat.all() else len(flat)
    if not 0 < num_flat <= MAX_BORDER_SHARE * len(flat):
        return 0
    middle = np.median(grey, axis=0)
    steps = np.abs(middle[num_flat - 1 + STEP_ROWS] - middle[num_flat - 1]) >= STEP_LEVELS
    return num_flat if steps.mean() >= STEP_SHARE else 0


def measure_watermark(content: ClipContent) -> tuple[Measurement, ...]:
    """Share of a corner that narrow strokes cover which stay while the clip lasts; 0..1.

    Of the corner that has most, less the median of the four: a textured background fills several, a mark one.
    """
    if len(content.distinct) < MIN_FRAMES:
        return not_applicable(("watermark",), f"a mark is told by {MIN_FRAMES} pictures that it outlasts")
    chosen = content.distinct[np.linspace(0, len(content.distinct) - 1, MARK_FRAMES).astype(int)]
    grey = content.grey[np.unique(chosen)]
    height, width = (round(CORNER_SHARE * side) for side in grey.shape[1:])
    shares = [
        float(_lasting_strokes(grey[:, rows, columns]).mean())
        for rows in (slice(0, height), slice(-height, None))
        for columns in (slice(0, width), slice(-width, None))
    ]
    return (measured("watermark", max(shares) - float(np.median(shares)), len(grey)),)


def _lasting_strokes(grey: np.ndarray) -> np.ndarray:
    """Pixels on narrow strokes in the median over time of each direction's contrast, bool [H, W]."""
    lasting = np.zeros(grey.shape[1:], bool)
    for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        for shape in ((1, STROKE_PIXELS), (STROKE_PIXELS, 1)):
            kernel = np.ones(shape, np.uint8)
            contrast = np.stack([cv2.morphologyEx(picture, operation, kernel) for picture in grey])
            lasting |= np.median(contrast, axis=0) >= STROKE_LEVELS
    return lasting


BORDERS = Scorer(("borders",), measure_borders, "1")
WATERMARK = Scorer(("watermark",), measure_watermark, "1")
