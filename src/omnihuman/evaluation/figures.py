"""The figures of one evaluation, from generated clips to intervals; pure functions of their inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from omnihuman.config.schema.evaluate import Evaluate
from omnihuman.evaluation.held_out import GeneratedClip
from omnihuman.evaluation.mouth import MouthTrack, mouth_region, track_mouth
from omnihuman.evaluation.pose_following import PoseError, PoseScene, pose_error
from omnihuman.evaluation.regions import background_mask, masked_psnr
from omnihuman.evaluation.sound_tracks import envelope, vowel_spread
from omnihuman.evaluation.statistics import Estimate, bootstrap_mean, correlation, shuffled_null


@dataclass(frozen=True)
class Following:
    """How one part of the mouth follows one part of the sound."""

    generated: Estimate  # mean correlation in generated clips
    null: Estimate  # the same with other clips' sounds
    real: Estimate  # the same in the real held-out clips: what the instrument sees at best


@dataclass(frozen=True)
class SoundFigures:
    """What sound-driven clips show."""

    opening: Following
    width: Following
    background_psnr: Estimate  # against the reference as the codec gives it back


@dataclass(frozen=True)
class PoseFigures:
    """What pose-driven clips show where the pose leaves the reference's, in shares of the picture's height."""

    to_driving: Estimate  # keypoint distance to the driving pose
    to_reference: Estimate  # keypoint distance to the reference's pose
    gain: Estimate  # the second minus the first, per clip; zero for a match at random
    null: Estimate  # the gain of videos that were driven by the pose of another moment
    still: Estimate  # the gain of the reference picture standing still: a video that ignores the pose
    real: Estimate  # the gain of the real clip, one frame late: what the instrument sees at best
    over_null: Estimate  # gain minus null, per clip: above zero where the driving pose decides, and not noise
    over_still: Estimate  # gain minus still, per clip: above zero where the driving pose is followed better


def sound_figures(clips: Sequence[GeneratedClip], fps: float, config: Evaluate, seed: int) -> SoundFigures:
    """Correlations and background of sound-driven clips; without a visible mouth only the background counts."""
    measured = [(clip, tracks) for clip in clips if (tracks := _mouths(clip)) is not None]
    sounds = [clip.sound(fps) for clip, _ in measured]
    people = [clip.item.identity for clip, _ in measured]
    length = min((len(clip.video) for clip, _ in measured), default=0)

    def following(part: Callable[[MouthTrack], np.ndarray], of_sound: Callable[..., np.ndarray]) -> Following:
        wanted = [of_sound(sound, length, fps) for sound in sounds]
        table = np.array([[correlation(part(generated), track) for track in wanted] for _, (generated, _) in measured])
        real = np.array([correlation(part(r), track) for (_, (_, r)), track in zip(measured, wanted, strict=True)])
        matched = np.diag(table) if len(table) else np.zeros(0)
        return Following(
            generated=_estimate(matched, people, config, seed),
            null=shuffled_null(table, people, config.confidence, config.num_resamples, seed),
            real=_estimate(real, people, config, seed),
        )

    backgrounds = [(clip.item.identity, psnr) for clip in clips if (psnr := _background(clip)) is not None]
    return SoundFigures(
        opening=following(lambda track: track.opening, envelope),
        width=following(lambda track: track.width, vowel_spread),
        background_psnr=_estimate(
            np.array([psnr for _, psnr in backgrounds]), [person for person, _ in backgrounds], config, seed
        ),
    )


def pose_figures(
    clips: Sequence[GeneratedClip], by_another: Sequence[GeneratedClip | None], config: Evaluate, seed: int
) -> PoseFigures:
    """Keypoint distances of pose-driven clips in which the pose moves.

    Args:
        by_another: the same clips in the same order, driven by the pose of another moment; None where there is none.
    """
    rows = [
        _pose_row(clip, other, errors)
        for clip, other in zip(clips, by_another, strict=True)
        if (errors := _pose_errors(clip))
    ]
    table = pd.DataFrame(rows, columns=["person", *(field.name for field in fields(PoseFigures))])

    def estimate(name: str) -> Estimate:
        known = table.dropna(subset=name)
        return _estimate(known[name].to_numpy(float), list(known["person"]), config, seed)

    return PoseFigures(**{field.name: estimate(field.name) for field in fields(PoseFigures)})


def _estimate(values: np.ndarray, people: Sequence[str], config: Evaluate, seed: int) -> Estimate:
    return bootstrap_mean(values, people, config.confidence, config.num_resamples, seed)


def _mouths(clip: GeneratedClip) -> tuple[MouthTrack, MouthTrack] | None:
    """Tracks of the generated and of the real clip."""
    region = mouth_region(clip.reference_keypoints, *clip.reference.shape[:2])
    return None if region is None else (track_mouth(clip.video, region), track_mouth(clip.real, region))


def _background(clip: GeneratedClip) -> float | None:
    mask = background_mask(clip.real, clip.reference, clip.keypoints)
    return None if mask is None else masked_psnr(clip.video, clip.reference, mask)


def _pose_row(clip: GeneratedClip, other: GeneratedClip | None, errors: tuple[PoseError, ...]) -> dict[str, Any]:
    """One clip's part of each of the `PoseFigures`, as far as there is one."""
    own, still, real = errors
    row = {
        "person": clip.item.identity,
        "to_driving": own.to_driving,
        "to_reference": own.to_reference,
        "gain": own.gain,
        "still": still.gain,
        "real": real.gain,
        "over_still": own.gain - still.gain,
    }
    null = pose_error(other.video, _scene(clip)) if other else None
    return row | ({"null": null.gain, "over_null": own.gain - null.gain} if null else {})


def _scene(clip: GeneratedClip) -> PoseScene:
    return PoseScene(clip.keypoints, clip.real, clip.reference_keypoints, clip.reference)


def _pose_errors(clip: GeneratedClip) -> tuple[PoseError, ...] | None:
    """Of the generated clip, of a still picture, of the real clip a frame late."""
    still = np.broadcast_to(clip.reference, clip.real.shape)
    late = np.concatenate([clip.real[:1], clip.real[:-1]])
    errors = [pose_error(video, _scene(clip)) for video in (clip.video, still, late)]
    return None if None in errors else tuple(error for error in errors if error)
