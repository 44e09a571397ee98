"""The instruments: they see what is there, and nothing where nothing is."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tests.tiny import DESCRIPTION, random_clip, random_model, write_encoded

from omnihuman.batch import KEYPOINTS
from omnihuman.config.schema.evaluate import Evaluate, Sampling
from omnihuman.encoders.speech import SAMPLE_RATE
from omnihuman.evaluation.figures import pose_figures
from omnihuman.evaluation.held_out import GeneratedClip, HeldOut
from omnihuman.evaluation.mouth import mouth_region, track_mouth
from omnihuman.evaluation.pose_following import PoseScene, pose_error
from omnihuman.evaluation.regions import background_mask, masked_psnr
from omnihuman.evaluation.run import evaluate
from omnihuman.evaluation.sound_tracks import envelope, vowel_spread
from omnihuman.evaluation.statistics import bootstrap_mean, correlation, shuffled_null
from omnihuman.model.checkpoint import save_model


def test_correlation_of_a_constant_is_zero():
    track = np.sin(np.arange(17.0))
    assert correlation(track, 3 * track + 1) == pytest.approx(1.0)
    assert correlation(track, np.ones(17)) == 0.0


def test_bootstrap_interval_covers_the_mean_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        estimate = bootstrap_mean(random.normal(0.3, 1.0, 40), [str(i) for i in range(40)], 0.95, 500, seed)
        covered.append(estimate.low <= 0.3 <= estimate.high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_clips_of_one_person_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(0.3, 1.0, 10), 4)
    alone = bootstrap_mean(values, [str(i) for i in range(40)], 0.95, 2000, seed=0)
    together = bootstrap_mean(values, [str(i // 4) for i in range(40)], 0.95, 2000, seed=0)
    assert (together.high - together.low) > 1.6 * (alone.high - alone.low)
    assert (together.num_clips, together.num_people) == (40, 10)


def test_shuffled_null_never_uses_the_matching_sound():
    null = shuffled_null(np.eye(12), ["a"] * 12, 0.95, 200, seed=0)
    assert (null.value, null.low, null.high) == (0.0, 0.0, 0.0)
    assert np.isnan(shuffled_null(np.eye(1), ["a"], 0.95, 10, seed=0).value)


def face(opening: float, width: float) -> np.ndarray:
    """float32 [64, 64, 3]: skin with lips and the inside of a mouth."""
    picture = np.full((256, 256, 3), (225, 180, 150), np.uint8)
    for eye in (100, 156):
        cv2.circle(picture, (eye, 100), 8, (40, 30, 30), -1)
    axes = (round(width), round(opening))
    cv2.ellipse(picture, (128, 165), (axes[0] + 8, axes[1] + 8), 0, 0, 360, (200, 60, 70), -1)
    if opening > 1:
        cv2.ellipse(picture, (128, 165), axes, 0, 0, 360, (50, 10, 20), -1)
    return cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def face_keypoints() -> np.ndarray:
    points = np.zeros((17, 3), np.float32)
    for name, x, y in (("left_eye", 156, 100), ("right_eye", 100, 100), ("nose", 128, 130)):
        points[KEYPOINTS.index(name)] = (x / 256, y / 256, 1.0)
    return points


def test_mouth_opening_and_width_are_two_measurements():
    opening, width = (grid.ravel() for grid in np.meshgrid(np.linspace(0, 24, 7), np.linspace(16, 36, 6)))
    region = mouth_region(face_keypoints(), 64, 64)
    assert region is not None
    track = track_mouth(np.stack([face(o, w) for o, w in zip(opening, width, strict=True)]), region)
    assert correlation(track.opening, opening) > 0.9
    assert correlation(track.width, width) > 0.9
    assert abs(correlation(track.width, opening)) < 0.35
    assert abs(correlation(track.opening, width)) < 0.35


def test_no_mouth_without_eyes_and_nose():
    assert mouth_region(np.zeros((17, 3), np.float32), 64, 64) is None


def test_envelope_and_vowel_follow_their_own_part_of_the_sound():
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    loud = 0.2 + 0.15 * np.sin(2 * np.pi * 2 * time)
    spread = (np.sin(2 * np.pi * 3 * time) > 0).astype(float)
    sound = loud * (spread * np.sin(2 * np.pi * 2000 * time) + (1 - spread) * np.sin(2 * np.pi * 950 * time))
    frames = np.arange(50) * SAMPLE_RATE // 25
    assert correlation(envelope(sound, 50, 25.0), loud[frames]) > 0.95
    assert correlation(vowel_spread(sound, 50, 25.0), spread[frames]) > 0.8
    assert np.ptp(vowel_spread(np.zeros(SAMPLE_RATE), 25, 25.0)) == 0


def test_background_leaves_out_what_moves_and_the_person():
    reference = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)
    real = np.repeat(reference[None], 5, axis=0)
    real[2, :10, :10] = 1 - real[2, :10, :10]
    keypoints = np.zeros((5, 17, 3), np.float32)
    keypoints[:, :3] = [[0.4, 0.4, 1], [0.6, 0.4, 1], [0.5, 0.7, 1]]
    mask = background_mask(real, reference, keypoints)
    assert mask is not None
    assert not mask[:10, :10].any() and not mask[28:40, 30:34].any() and mask[60, 60]
    assert masked_psnr(real + 0.1, reference, mask) == pytest.approx(20.0, abs=1e-3)
    assert background_mask(1 - real, reference, keypoints) is None


def square_at(x: int) -> np.ndarray:
    """A textured square, in the middle of the height, around column `x` of 64."""
    texture = cv2.resize(np.random.default_rng(0).random((6, 6, 3)), (12, 12), interpolation=cv2.INTER_NEAREST)
    frame = np.full((64, 64, 3), 0.5, np.float32)
    frame[26:38, x - 6 : x + 6] = texture
    return frame


def wrist_at(x: int) -> np.ndarray:
    points = np.zeros((17, 3), np.float32)
    points[KEYPOINTS.index("left_wrist")] = (x / 64, 0.5, 1.0)
    return points


PLACES = (20, 26, 32, 38)
DRIVING, REAL = (np.stack([draw(x) for x in PLACES]) for draw in (wrist_at, square_at))


def test_pose_error_tells_a_video_that_follows_from_one_that_does_not():
    scene = PoseScene(DRIVING, REAL, wrist_at(20), square_at(20))
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in REAL])
    follows, stays = pose_error(blurred, scene), pose_error(np.stack([square_at(20)] * 4), scene)
    assert follows is not None and stays is not None
    assert follows.to_driving < 0.02 < follows.to_reference and follows.gain > 0.1
    assert stays.to_reference < 0.02 < stays.to_driving and stays.gain < -0.1
    assert pose_error(REAL, PoseScene(np.stack([wrist_at(20)] * 4), REAL, wrist_at(20), square_at(20))) is None


def test_a_pose_is_followed_where_it_decides_and_not_where_any_pose_would_do():
    still = np.stack([square_at(20)] * 4)

    def clips(video: np.ndarray) -> list[GeneratedClip]:
        return [
            GeneratedClip(
                HeldOut(f"{number}", f"{number}", True, random_clip(np.random.default_rng(number)), 0, 0),
                video, REAL, square_at(20), DRIVING, wrist_at(20),
            )
            for number in range(3)
        ]  # fmt: skip

    config = Evaluate(num_resamples=50)
    followed = pose_figures(clips(REAL), clips(still), config, 0)
    assert followed.over_null.low > 0.1 and followed.over_still.low > 0.1 and followed.null == followed.still
    ignored = pose_figures(clips(REAL), clips(REAL), config, 0)
    assert ignored.over_null.value == 0, "a video that is the same with any pose follows none"
    short = pose_figures(clips(REAL), [None] * 3, config, 0)
    assert short.gain == followed.gain and short.null.num_clips == short.over_null.num_clips == 0
    nothing = pose_figures([], [], config, 0)
    assert nothing.gain.num_clips == 0 and np.isnan(nothing.over_null.value)


def test_another_pose_is_of_another_moment_of_the_same_clip():
    first = HeldOut("a", "a", True, random_clip(np.random.default_rng(0), num_frames=30), 0, 0)
    other, back = first.by_another_pose(), replace(first, window=1).by_another_pose()
    assert first.pose_start is None and first.by_own_pose().pose_start == 0
    assert other and back and (other.pose_start, back.pose_start) == (11, 10)
    short = HeldOut("a", "a", True, random_clip(np.random.default_rng(0), num_frames=20), 0, 0)
    assert short.by_another_pose() is None, "nine frames a window, six away"


def test_a_match_at_random_is_as_near_to_either_pose():
    random = np.random.default_rng(0)
    gains = []
    for _ in range(60):
        pose, driving = np.zeros((17, 3), np.float32), np.zeros((1, 17, 3), np.float32)
        wrist = KEYPOINTS.index("left_wrist")
        pose[wrist], driving[0, wrist] = (0.4, 0.5, 1.0), (0.6, 0.5, 1.0)
        noise = random.random((3, 64, 64, 3)).astype(np.float32)
        error = pose_error(noise[:1], PoseScene(driving, noise[1:2], pose, noise[2]))
        assert error is not None
        gains.append(error.gain)
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(len(gains))


def test_evaluate_writes_figures_or_says_that_there_are_none(tmp_path):
    import json

    model = tmp_path / "model"
    model.mkdir()
    save_model(
        model,
        random_model(),
        DESCRIPTION,
    )
    config, sampling = Evaluate(num_audio_clips=2, num_pose_clips=2, num_resamples=50), Sampling(num_steps=1)
    for name, eligible in (("some", [(True, True)] * 3), ("none", [(False, False)])):
        write_encoded(tmp_path / name, eligible, split="test")
        figures, pictures = tmp_path / f"{name}.json", tmp_path / f"{name}-pictures"
        evaluate(config, sampling, 0, tmp_path / name, model, figures, pictures)
        written = json.loads(figures.read_text())
        if name == "none":
            assert written["opening"]["generated"]["value"] is None
            assert (pictures / "sound-none.txt").exists()
        else:
            assert (pictures / "sound-contact-sheet.png").exists() and (pictures / "pose-0.mp4").exists()
