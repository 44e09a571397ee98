"""The figures of one evaluation, from generated clips to intervals; pure functions of their inputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

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
    clips: Sequence[GeneratedClip], by_another: Sequence[GeneratedClip], config: Evaluate, seed: int
) -> PoseFigures:
    """Keypoint distances of pose-driven clips in which the pose moves.

    Args:
        by_another: the same clips in the same order, driven by the pose of another moment.
    """
    pairs = zip(clips, by_another, strict=True)
    measured = [(clip.item.identity, errors) for clip, other in pairs if (errors := _pose_errors(clip, other))]
    people = [person for person, _ in measured]
    own, other, still, real = zip(*[errors for _, errors in measured], strict=True) if measured else ((), (), (), ())

    def gains(errors: Sequence[PoseError]) -> np.ndarray:
        return np.array([error.gain for error in errors])

    values = {
        "to_driving": np.array([error.to_driving for error in own]),
        "to_reference": np.array([error.to_reference for error in own]),
        "gain": gains(own),
        "null": gains(other),
        "still": gains(still),
        "real": gains(real),
        "over_null": gains(own) - gains(other),
        "over_still": gains(own) - gains(still),
    }
    return PoseFigures(**{name: _estimate(value, people, config, seed) for name, value in values.items()})


def _estimate(values: np.ndarray, people: Sequence[str], config: Evaluate, seed: int) -> Estimate:
    return bootstrap_mean(values, people, config.confidence, config.num_resamples, seed)


def _mouths(clip: GeneratedClip) -> tuple[MouthTrack, MouthTrack] | None:
    """Tracks of the generated and of the real clip."""
    region = mouth_region(clip.reference_keypoints, *clip.reference.shape[:2])
    return None if region is None else (track_mouth(clip.video, region), track_mouth(clip.real, region))


def _background(clip: GeneratedClip) -> float | None:
    mask = background_mask(clip.real, clip.reference, clip.keypoints)
    return None if mask is None else masked_psnr(clip.video, clip.reference, mask)


def _pose_errors(clip: GeneratedClip, other: GeneratedClip) -> tuple[PoseError, ...] | None:
    """Of the generated clip, of the one driven by another pose, of a still picture, of the real clip a frame late."""
    scene = PoseScene(clip.keypoints, clip.real, clip.reference_keypoints, clip.reference)
    still = np.broadcast_to(clip.reference, clip.real.shape)
    late = np.concatenate([clip.real[:1], clip.real[:-1]])
    errors = [pose_error(video, scene) for video in (clip.video, other.video, still, late)]
    return None if None in errors else tuple(error for error in errors if error)
