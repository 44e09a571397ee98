"""What a stage's knobs come to on its clips: shares of draws, shares of conditions, repeats."""

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from omnihuman.data.manifest import one_row_a_clip
from omnihuman.training.dataset import SampleSettings, drawn_conditions
from omnihuman.training.sampling import SampleOrder

log = logging.getLogger(__name__)
_TOLERANCE = 0.005
_POOLS = {"audio": "fit for sound", "pose": "fit for pose"}


@dataclass(frozen=True)
class Shares:
    """Shares of draws, from 0 to 1."""

    audio_eligible: float
    """Of the draws that do not train text alone, as the mix has it; likewise `pose_eligible`."""
    pose_eligible: float
    text: float
    reference: float
    audio: float
    """Of the draws from clips eligible for it, as activation has it, where nothing else turns it off; `pose` too."""
    pose: float
    motion: float
    text_only: float
    pictures: float
    nothing: float
    """Without text, reference, sound and pose, by guidance dropout or by chance."""


def realised_shares(order: SampleOrder, settings: SampleSettings, samples: pd.DataFrame, num_draws: int) -> Shares:
    """Counts the first draws of a stage; nothing is loaded."""
    flags = {name: samples[f"{name}_eligible"].to_numpy(bool) for name in _POOLS}
    rows = []
    for step in range(-(-num_draws // order.batch_size)):
        for draw in order.batch(step):
            has = {name: bool(flags[name][draw.row]) for name in _POOLS}
            active = drawn_conditions(settings, draw, has_audio=has["audio"], has_pose=has["pose"])
            on = (active.text, active.reference, active.audio, active.pose)
            rows.append((*on, active.motion, draw.text_only, draw.is_picture, not any(on), *has.values()))
    table = np.array(rows[:num_draws], bool)
    text, reference, audio, pose, motion, text_only, pictures, nothing, has_audio, has_pose = table.T
    return Shares(
        audio_eligible=_mean(has_audio[~text_only]),
        pose_eligible=_mean(has_pose[~text_only]),
        text=_mean(text),
        reference=_mean(reference),
        audio=_mean(audio[has_audio & ~text_only & ~pictures]),
        pose=_mean(pose[has_pose & ~text_only & ~pictures]),
        motion=_mean(motion),
        text_only=_mean(text_only),
        pictures=_mean(pictures),
        nothing=_mean(nothing),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def log_draws(order: SampleOrder, samples: pd.DataFrame, settings: SampleSettings) -> dict[str, float]:
    """Says how often a clip of each pool is drawn over the stage, and which share of the mix cannot be met.

    Returns:
        Repeats of the most drawn clip of each pool: `audio`, `pose` and `other`, as far as there are any.
    """
    name, stage = settings.stage_name, settings.stage
    clip = np.cumsum(samples["larger_area_pixels"] == 0) - 1  # a clip's sizes stand together, the largest first
    expected = np.bincount(clip, order.expected_draws())
    clips = one_row_a_clip(samples)
    flags = {pool: clips[f"{pool}_eligible"].to_numpy(bool) for pool in _POOLS}
    pools = {**flags, "other": ~(flags["audio"] | flags["pose"])}
    repeats = {pool: float(expected[rows].max()) for pool, rows in pools.items() if rows.any()}
    shown = (f"{count:.1f} times where {_POOLS.get(pool, 'fit for neither')}" for pool, count in repeats.items())
    log.info("%s: a clip is drawn %s", name, ", ".join(shown))
    limit = stage.data.max_repeats_per_clip
    if (most := max(repeats.values())) > limit:
        log.warning(
            "%s: clips are drawn up to %.0f times, more than stages.%s.data.max_repeats_per_clip (%g): add clips of"
            " that kind, lower their share of the mix, or train fewer steps",
            name, most, name, limit,
        )  # fmt: skip
    text_only = stage.data.text_only_fraction
    for pool, rows in flags.items():
        wanted = getattr(stage.mix, f"{pool}_eligible")
        drawn = expected[rows].sum() / expected.sum()
        if wanted is not None and abs(drawn - ((1 - text_only) * wanted + text_only * rows.mean())) > _TOLERANCE:
            log.warning(
                "%s: stages.%s.mix.%s_eligible is %g, but %.1f%% of the draws are: %.1f%% of the clips are eligible,"
                " and the shares of the mix cannot be met together; set one that can be",
                name, name, pool, wanted, 100 * drawn, 100 * rows.mean(),
            )  # fmt: skip
    return repeats
