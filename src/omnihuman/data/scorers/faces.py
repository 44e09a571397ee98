"""How many faces a clip shows, with the cascade that OpenCV carries."""

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
    counts = np.array([len(search_faces(content.grey[index], smallest)) for index in few])
    usual = np.sort(counts)[len(counts) // 2]
    return measured(NAMES[0], usual, len(few)), measured(NAMES[1], np.mean(counts == usual), len(few))


FACES = Scorer(NAMES, measure_faces, "1")
