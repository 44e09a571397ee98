"""How many faces a clip shows, with the cascade that OpenCV carries."""

from collections.abc import Sequence

import numpy as np

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured
from omnihuman.data.scorers.face import search_faces

NAMES = ("num_faces", "num_faces_steadiness")
SMALLEST = 0.5
"""Of the main face's height; smaller faces lie in the background. It also makes the search quick."""


def measure_faces(content: ClipContent) -> tuple[Measurement, ...]:
    """Median number of faces at least half as large as the main one, and the share of pictures that show as many.

    0 where the main face itself is not found. The cascade misses profiles, as published detectors do not.
    """
    face, few = content.face, content.few
    if not face.found.any():
        return measured(NAMES[0], 0.0, len(few)), measured(NAMES[1], 1.0, len(few))
    smallest = round(SMALLEST * float(np.median(face.height[face.found])))
    return usual_number([len(search_faces(content.grey[index], smallest)) for index in few])


def usual_number(counts: Sequence[int]) -> tuple[Measurement, Measurement]:
    """Of the faces in several pictures: the median, and the share of pictures that show as many."""
    usual = sorted(counts)[len(counts) // 2]
    share = np.mean(np.array(counts) == usual)
    return measured(NAMES[0], usual, len(counts)), measured(NAMES[1], float(share), len(counts))


FACES = Scorer(NAMES, measure_faces, "1")
