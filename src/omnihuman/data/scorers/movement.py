"""How much moves between pictures, and whether anything does."""

from itertools import pairwise

import cv2
import numpy as np

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable

FLOW_SIDE = 80
"""Flow is measured on pictures whose longer side has this many pixels."""
FLOW_STEP_SECONDS = 0.12
"""Time between the two pictures of a pair, so that the frame rate does not change the estimate's difficulty."""
MAX_PAIRS = 6
SAME_PICTURE_LEVELS = 0.35
"""Largest mean difference, in grey levels, of a picture that a codec repeats."""
SAME_BLOCK_LEVELS = 3.0
"""Largest difference of any small block of such a picture; a mouth that moves alone exceeds it."""


def measure_motion(content: ClipContent) -> tuple[Measurement, ...]:
    """Mean flow, in picture diagonals a second, after a similarity transform (the camera) has been taken away."""
    distinct = content.distinct
    seconds = content.frames.seconds[distinct]
    firsts = np.unique(np.linspace(0, len(distinct) - 1, MAX_PAIRS + 1).astype(int))[:-1]
    seconds_wanted = seconds[firsts] + FLOW_STEP_SECONDS - 1e-6
    seconds_index = np.minimum(np.searchsorted(seconds, seconds_wanted), len(distinct) - 1)
    pairs = [(a, b) for a, b in zip(firsts, seconds_index, strict=True) if b > a]
    if not pairs:
        return not_applicable(("motion",), "motion needs two pictures")
    small = {index: _shrink(content.grey[distinct[index]]) for pair in pairs for index in pair}
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    speeds = []
    for a, b in pairs:
        moved = flow.calc(small[a], small[b], None)  # pyright: ignore[reportArgumentType,reportCallIssue] (stub: no None)
        rest = moved - _camera(moved)
        diagonal = np.hypot(*small[a].shape)
        speeds.append(np.hypot(rest[..., 0], rest[..., 1]).mean() / diagonal / (seconds[b] - seconds[a]))
    return (measured("motion", float(np.mean(speeds)), len(speeds)),)


def measure_frozen_share(content: ClipContent) -> tuple[Measurement, ...]:
    """Share of pictures, each with a time of its own, that repeat the one before."""
    distinct = content.distinct
    if len(distinct) < 2:
        return not_applicable(("frozen_share",), "a repeated picture needs two pictures")
    grey = content.grey[distinct]
    repeats = [_is_repeat(before, after) for before, after in pairwise(grey)]
    return (measured("frozen_share", float(np.mean(repeats)), len(repeats)),)


def _is_repeat(before: np.ndarray, after: np.ndarray) -> bool:
    difference = cv2.absdiff(before, after)
    if cv2.mean(difference)[0] > SAME_PICTURE_LEVELS:
        return False
    return bool(cv2.blur(difference, (4, 4)).max() <= SAME_BLOCK_LEVELS)


def _shrink(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape
    scale = FLOW_SIDE / max(height, width)
    size = max(16, round(width * scale)), max(16, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _camera(flow: np.ndarray) -> np.ndarray:
    """Flow [h, w, 2] of the similarity transform that most of the border follows; people stand in the middle."""
    height, width = flow.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    step = max(1, height // 16)
    edge = (np.minimum(x, width - 1 - x) < width / 5) | (y < height / 6)
    chosen = edge & (x % step == 0) & (y % step == 0)
    before = np.stack([x[chosen], y[chosen]], axis=1)
    cv2.setRNGSeed(0)
    matrix, _ = cv2.estimateAffinePartial2D(before, before + flow[chosen], ransacReprojThreshold=0.5, maxIters=100)
    if matrix is None:
        return np.zeros_like(flow)
    a, b, dx = matrix[0]
    c, d, dy = matrix[1]
    return np.stack([a * x + b * y + dx - x, c * x + d * y + dy - y], axis=-1).astype(np.float32)


MOTION = Scorer(("motion",), measure_motion, "1")
FROZEN_SHARE = Scorer(("frozen_share",), measure_frozen_share, "1")
