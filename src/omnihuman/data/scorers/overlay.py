"""Text laid over the picture."""

import cv2
import numpy as np

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable

STROKE_PIXELS = 7
"""Letters of a banner have strokes narrower than this at the size at which clips are scored."""
STROKE_LEVELS = 55
"""Least contrast of a stroke against both sides: letters are made to be read, stripes of a wall are not."""
STILL_LEVELS = 36
"""Largest change over the clip of a pixel that stands still; codecs flicker at edges."""
BAND_ROWS = 5
MIN_FRAMES = 10


def measure_overlaid_text(content: ClipContent) -> tuple[Measurement, ...]:
    """Narrow strokes of high contrast, per row, in the band of the picture that has most and stands still.

    Stillness, not presence, is what tells a banner from a person's clothes; narrowness and contrast tell it from a
    still background.
    """
    if len(content.distinct) < MIN_FRAMES:
        return not_applicable(("overlaid_text",), f"a banner is told by {MIN_FRAMES} pictures that it outlasts")
    grey = content.grey[content.few]
    lowest, highest = grey.min(axis=0), grey.max(axis=0)
    still = cv2.subtract(highest, lowest) <= STILL_LEVELS
    middle = np.sort(grey, axis=0)[len(grey) // 2]
    kernel = np.ones((1, STROKE_PIXELS), np.uint8)
    strokes = np.zeros(middle.shape[0])
    for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        narrow = (cv2.morphologyEx(middle, operation, kernel) >= STROKE_LEVELS) & still
        starts = narrow & ~np.pad(narrow, ((0, 0), (1, 0)))[:, :-1]
        strokes = np.maximum(strokes, starts.sum(axis=1))
    bands = np.convolve(strokes, np.ones(BAND_ROWS) / BAND_ROWS, "valid")
    return (measured("overlaid_text", float(bands.max()), len(grey)),)


OVERLAID_TEXT = Scorer(("overlaid_text",), measure_overlaid_text, "1")
