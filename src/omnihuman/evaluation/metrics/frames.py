"""What frames alone show, without weights: flicker, motion, subject consistency, artefacts."""

from itertools import pairwise

import numpy as np

from omnihuman.evaluation.metrics.measure import Shown

BLOCK = 8
"""Side, in pixels, of the blocks of common codecs."""


def flicker(shown: Shown) -> float | None:
    """1 - mean absolute difference of neighbouring frames / 255: VBench's temporal flickering. Motion lowers it too."""
    if len(shown.frames) < 2:
        return None
    differences = [np.abs(after.astype(np.int16) - before).mean() for before, after in pairwise(shown.frames)]
    return float(1 - np.mean(differences) / 255)


def consistency(features: np.ndarray) -> float | None:
    """How like the first frame and the one before each frame is, by features [F, d] of whatever extractor.

    VBench's subject consistency: the mean of both cosines, where negative ones count as zero.
    """
    if len(features) < 2:
        return None
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    to_first = np.clip(unit[1:] @ unit[0], 0, None)
    to_before = np.clip((unit[1:] * unit[:-1]).sum(axis=1), 0, None)
    return float(((to_first + to_before) / 2).mean())


def noise_levels(frame: np.ndarray) -> float:
    """Standard deviation of noise in grey levels: the median magnitude of the finest diagonal Haar wavelet / 0.6745.

    Donoho and Johnstone's robust estimate (1994): edges are few, so that the median does not see them. A picture of
    perfectly flat areas has none.
    """
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    grey = grey[: len(grey) // 2 * 2, : grey.shape[1] // 2 * 2]
    diagonal = (grey[::2, ::2] - grey[1::2, ::2] - grey[::2, 1::2] + grey[1::2, 1::2]) / 2
    return float(np.median(np.abs(diagonal)) / 0.6745)


def blockiness(frame: np.ndarray) -> float:
    """How much steeper steps across the edges of 8 x 8 blocks are than other steps, as a share of the mean step.

    Blocks are those of a grid that begins at the corner, as codecs and latents of 8 pixels have it; about 0 without,
    also where a picture was cropped or resized after it had been coded.
    """
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    shares = []
    for picture in (grey, grey.T):
        steps = np.abs(np.diff(picture, axis=1)).mean(axis=0)
        places = np.array([steps[first::BLOCK].mean() for first in range(BLOCK)])
        shares.append((places[BLOCK - 1] - np.median(places)) / (places.mean() + 0.5))
    return float(np.mean(shares))
