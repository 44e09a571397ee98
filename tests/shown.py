"""Drawn people as metrics see them, and known damage to them."""

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np

from omnihuman.batch import KEYPOINTS
from omnihuman.config.schema.collect import SyntheticCorpus
from omnihuman.data.synthetic.plan import ClipPlan, plan_corpus
from omnihuman.data.synthetic.render import render_clip
from omnihuman.evaluation.metrics.measure import SAMPLE_RATE, Shown

WRISTS = [KEYPOINTS.index("left_wrist"), KEYPOINTS.index("right_wrist")]


def drawn_people(
    count: int, short_side: int, seconds: float, seed: int = 3, shots: tuple[str, ...] = ()
) -> list[Shown]:
    """One clip each of drawn people without a defect, resized; at 25 frames a second, as models make them.

    Args:
        shots: of `plan.SHOTS`, those that are wanted; empty: all.
    """
    config = SyntheticCorpus(20 * count, 1, seconds / 0.8, 0.0, 0.0, 160)
    plans = [plan for plan in plan_corpus(config, seed) if plan.fps == 25 and plan.scenes[0].shot in (shots or SHOTS)]
    return [drawn_person(plan, short_side, round(25 * seconds)) for plan in plans[:count]]


SHOTS = ("face", "half body", "full body")


def drawn_person(plan: ClipPlan, short_side: int, num_frames: int) -> Shown:
    """The first frames of a planned clip; its declared pose drives, and that of its first frame is the reference's."""
    clip = render_clip(plan)
    scale = short_side / min(plan.height, plan.width)
    size = (round(plan.width * scale), round(plan.height * scale))
    frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in islice(clip.frames, num_frames)]
    points = clip.keypoints.points[: len(frames)]
    sound = clip.sound.samples[: round(len(frames) / plan.fps * SAMPLE_RATE)]
    return Shown(plan.name, plan.person.name, plan.fps, np.stack(frames), sound, frames[0], points, points[0])


def changed(shown: Shown, frames: np.ndarray) -> Shown:
    """The video with other frames, rounded to uint8."""
    return replace(shown, frames=np.clip(np.round(frames), 0, 255).astype(np.uint8))


def blurred(shown: Shown, sigma: float) -> Shown:
    """`sigma` is a share of the short side."""
    short = min(shown.frames.shape[1:3])
    return changed(shown, np.stack([cv2.GaussianBlur(frame, (0, 0), sigma * short) for frame in shown.frames]))


def noisy(shown: Shown, levels: float) -> Shown:
    """Independent Gaussian noise."""
    noise = np.random.default_rng(0).normal(0, levels, shown.frames.shape)
    return changed(shown, shown.frames + noise)


def late(shown: Shown, num_frames: int) -> Shown:
    """The sound comes later by so many frames."""
    assert shown.sound is not None
    return replace(shown, sound=np.roll(shown.sound, round(num_frames / shown.fps * SAMPLE_RATE)))


def drifting(shown: Shown, levels: float) -> Shown:
    """Red grows and blue falls by up to so many levels until the end."""
    slope = np.linspace(0, 1, len(shown.frames))[:, None, None, None] * np.array([levels, 0, -levels])
    return changed(shown, shown.frames + slope)


def frozen(shown: Shown) -> Shown:
    """The first frame only: nothing moves any more."""
    return replace(shown, frames=np.repeat(shown.frames[:1], len(shown.frames), axis=0))
