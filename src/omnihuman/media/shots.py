"""Finding shots: spans of a video without a cut."""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scenedetect import AdaptiveDetector, FrameTimecode, HistogramDetector

from omnihuman.config.schema.split import Split
from omnihuman.media.video import stream_frames

SAME_CUT_SECONDS = 0.2
"""Cuts closer than this are one: both detectors see it, or it is a fade."""
NOMINAL_FPS = 25.0
"""PySceneDetect counts frames only; their times are kept beside it, so the value has no effect."""


@dataclass(frozen=True)
class Shot:
    """A span without a cut."""

    start_seconds: float
    end_seconds: float


def find_shots(config: Split, path: Path) -> list[Shot]:
    """Shots of one video, from its first picture to the end of its last; runs inside a guarded worker.

    AdaptiveDetector finds hard cuts in spite of motion; HistogramDetector finds what fades.

    Raises:
        ValueError: the video cannot be decoded.
    """
    # A minimum length would make a detector forget a cut that comes soon after another.
    adaptive = AdaptiveDetector(adaptive_threshold=config.adaptive_threshold, min_scene_len=1)
    histogram = HistogramDetector(threshold=config.histogram_threshold, min_scene_len=1)
    starts: list[float] = []
    cuts: set[int] = set()
    end = 0.0
    for seconds, length, pixels in stream_frames(path, config.detection_short_side_pixels):
        timecode = FrameTimecode(len(starts), fps=NOMINAL_FPS)
        starts.append(seconds)
        end = seconds + length
        blue_green_red = np.ascontiguousarray(pixels[..., ::-1])
        for detector in (adaptive, histogram):
            cuts.update(cut.frame_num for cut in detector.process_frame(timecode, blue_green_red))
    if not starts:
        raise ValueError("has no picture that can be decoded")
    edges = [starts[0]]
    for cut in sorted(cuts):
        if starts[cut] - edges[-1] >= SAME_CUT_SECONDS:
            edges.append(starts[cut])
    return [Shot(start, stop) for start, stop in pairwise([*edges, end])]


def cut_shot(config: Split, shot: Shot) -> list[Shot]:
    """Equal parts of at most the largest length."""
    length = shot.end_seconds - shot.start_seconds
    # A shot that is longer by less than 1 ms is not worth a second part.
    num_parts = max(1, math.ceil((length - 1e-3) / config.max_clip_seconds))
    edges = [shot.start_seconds + length * part / num_parts for part in range(num_parts)] + [shot.end_seconds]
    return [Shot(start, stop) for start, stop in pairwise(edges)]
