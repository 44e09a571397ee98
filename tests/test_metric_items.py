"""Metrics with a value for each video: what is refused, how they are joined, keypoints, pixels, windows."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.damage import WRISTS, drawn_people

from omnihuman.batch import KEYPOINTS, WHOLE_BODY_KEYPOINTS
from omnihuman.config.schema.evaluate import Extractors
from omnihuman.errors import UserError
from omnihuman.evaluation.drift import slope_a_minute
from omnihuman.evaluation.extractors.drawn_hands import find_hands
from omnihuman.evaluation.extractors.whole_body import HANDS, split
from omnihuman.evaluation.metrics.checks import check_pair
from omnihuman.evaluation.metrics.frames import blockiness, consistency, flicker, noise_levels
from omnihuman.evaluation.metrics.items import ItemMetric
from omnihuman.evaluation.metrics.keypoints import (
    HEIGHT,
    Found,
    hand_confidence,
    hand_variance,
    hand_variance_in_shoulders,
    keypoint_distance,
    shoulder_width,
)
from omnihuman.evaluation.metrics.measure import Extractor, Kept, Shown
from omnihuman.evaluation.metrics.once import Once
from omnihuman.evaluation.metrics.registry import METRICS, make_metrics

MEAN = ItemMetric("mean", lambda shown: float(shown.frames.mean()), Extractor("pixels", "none"), "higher")


def video(num_frames: int = 4, height: int = 8, width: int = 6, **more: object) -> Shown:
    return Shown("item", "person", 25.0, np.zeros((num_frames, height, width, 3), np.uint8), **more)  # pyright: ignore


def test_parts_that_do_not_fit_each_other_are_refused_with_item_and_sizes():
    assert MEAN.keep(video()) is not None
    with pytest.raises(UserError, match="item: frames of float64"):
        MEAN.keep(replace(video(), frames=np.zeros((4, 8, 6, 3))))
    with pytest.raises(UserError, match="expected uint8"):
        MEAN.keep(video(num_frames=0))
    with pytest.raises(UserError, match="6 x 8 pixels, the reference 5 x 8 pixels"):
        MEAN.keep(video(reference=np.zeros((8, 5, 3), np.uint8)))
    with pytest.raises(UserError, match="item: the video has 4 frames, its driving pose 3"):
        MEAN.keep(video(driving=np.zeros((3, 17, 3))))


@pytest.mark.parametrize("real", [video(num_frames=5), video(height=9), replace(video(), fps=24.0)])
def test_a_pair_of_other_length_size_or_rate_is_refused_with_both(real: Shown):
    check_pair(video(), video())
    with pytest.raises(UserError, match="item: the generated video has 4 frames of 6 x 8 pixels at 25 a second, the"):
        check_pair(video(), real)


def test_a_mean_keeps_values_of_items_and_tells_what_real_videos_reach():
    kept = [Kept(f"item-{i}", f"person-{i // 2}", np.array([float(i)])) for i in range(6)]
    figure = MEAN.figure(kept, kept[:2], 0.95, seed=0)
    assert figure.items == {f"item-{i}": float(i) for i in range(6)}
    assert figure.estimate.value == 2.5 and (figure.estimate.num_clips, figure.estimate.num_people) == (6, 3)
    assert figure.estimate.low < 2.5 < figure.estimate.high and figure.note == "real videos: 0.5 (n = 2)"
    assert np.isnan(MEAN.figure(kept[:1], [], 0.95, 0).estimate.value)
    assert MEAN.figure([], [], 0.95, 0).note == "needs 2 videos on which it can be measured, there are 0"
    with pytest.raises(UserError, match="item-0 stands in one set twice"):
        MEAN.figure([kept[0], kept[0]], [], 0.95, seed=0)


def test_what_metrics_share_is_computed_once_a_video():
    calls: list[str] = []
    once = Once(lambda shown: calls.append(shown.item))
    first, other = video(), video()
    for shown in (first, first, other, other, first):
        once(shown)
    assert len(calls) == 3
    frames = Once(lambda shown: shown.frames)
    seen = weakref.ref(frames(video()))
    assert seen() is None, "what was computed goes with its video"


def test_flicker_is_vbenchs():
    frames = np.zeros((3, 2, 2, 3), np.uint8)
    frames[1] = 51
    assert flicker(replace(video(), frames=frames)) == pytest.approx(1 - 51 / 255)
    assert flicker(video()) == 1.0 and flicker(video(num_frames=1)) is None


def test_consistency_is_the_mean_of_both_cosines_and_negative_ones_count_as_zero():
    x, y = np.array([1.0, 0.0]), np.array([0.0, 2.0])
    assert consistency(np.stack([x, x, 3 * x])) == pytest.approx(1.0)
    assert consistency(np.stack([x, y, y])) == pytest.approx((0 + (0 + 1) / 2) / 2)
    assert consistency(np.stack([x, -x, -x])) == pytest.approx((0 + 1 / 2) / 2)
    assert consistency(x[None]) is None


@pytest.mark.parametrize("levels", [2.0, 5.0, 12.0])
def test_noise_is_measured_in_levels_whatever_the_edges(levels: float):
    picture = np.full((64, 64, 3), 120.0)
    picture[:, 31:] = 60
    grain = np.random.default_rng(0).normal(0, levels, (64, 64, 1))
    assert noise_levels(np.round(picture + grain)) == pytest.approx(
        levels, rel=0.15
    )  # the median of whole levels is coarse
    assert noise_levels(picture) == 0


def test_blocks_of_eight_are_found_and_smooth_pictures_have_none():
    smooth = np.random.default_rng(0).normal(128, 3, (64, 64, 3)) + np.linspace(0, 90, 64)[:, None, None]
    blocks = np.repeat(np.repeat(smooth[::8, ::8], 8, axis=0), 8, axis=1)
    assert abs(blockiness(smooth)) < 0.1
    assert blockiness(blocks) > blockiness((smooth + blocks) / 2) > 0.3


def hands(places: np.ndarray, confidence: float = 1.0) -> np.ndarray:
    """[F, 1, 3] of places [F, 2] in shares of width and height."""
    return np.concatenate([places, np.full((len(places), 1), confidence)], axis=1)[:, None]


def test_hand_figures_are_what_they_say():
    swing = np.stack([0.5 + 0.1 * np.sin(np.arange(40)), np.full(40, 0.5)], axis=1)
    body = np.zeros((40, 17, 3))
    body[:, KEYPOINTS.index("left_shoulder")] = (0.7, 0.4, 1)
    body[:, KEYPOINTS.index("right_shoulder")] = (0.3, 0.4, 1)
    across = shoulder_width(body, 100, 50)
    assert across == pytest.approx(0.4 * 50 / 100)
    found = Found(body, hands(swing), across)
    variance = (0.1 * HEIGHT / 2) ** 2 * np.sin(np.arange(40)).var()
    assert hand_confidence(found) == 1 and hand_variance(found, 100, 50) == pytest.approx(variance)
    assert hand_variance_in_shoulders(found, 100, 50) == pytest.approx(variance / (0.2 * HEIGHT) ** 2)
    # The same person filmed twice as large, and a point that is never seen.
    larger = replace(found, hands=hands(0.5 + 2 * (swing - 0.5)), shoulder_width=2 * across)
    assert hand_variance(larger, 100, 50) == pytest.approx(4 * variance)
    assert hand_variance_in_shoulders(larger, 100, 50) == pytest.approx(variance / (0.2 * HEIGHT) ** 2)
    unsure = replace(found, hands=np.concatenate([hands(swing), hands(swing, 0.1)], axis=1))
    assert hand_confidence(unsure) == pytest.approx(0.55) and hand_variance(unsure, 100, 50) == pytest.approx(variance)
    assert hand_variance(replace(found, hands=hands(swing, 0.1)), 100, 50) is None
    assert hand_variance_in_shoulders(replace(found, shoulder_width=None), 100, 50) is None


def test_the_distance_to_the_driving_pose_counts_what_both_are_sure_of():
    driving, body = np.zeros((3, 17, 3)), np.zeros((3, 133, 3))
    driving[:, 0], body[:, 0] = (0.5, 0.5, 1), (0.5, 0.6, 1)
    driving[:, 1], body[:, 1] = (0.5, 0.5, 1), (0.9, 0.9, 0.1)
    found = Found(body, np.zeros((3, 42, 3)), None)
    assert keypoint_distance(found, driving, 80, 80) == pytest.approx(0.1 * HEIGHT)
    assert keypoint_distance(found, 0 * driving, 80, 80) is None


def test_a_whole_body_is_split_into_42_points_of_the_hands():
    assert len(HANDS) == 42 and WHOLE_BODY_KEYPOINTS[HANDS[0]] == "left_hand_root"
    assert WHOLE_BODY_KEYPOINTS[HANDS[21]] == "right_hand_root" and WHOLE_BODY_KEYPOINTS[HANDS[41]].endswith("finger_4")
    assert split(np.zeros((2, 133, 3)), 10, 10).hands.shape == (2, 42, 3)


def test_hands_of_drawn_people_are_found_where_they_are_declared():
    distances, seen, variances = [], [], []
    for shown in drawn_people(8, 96, 1.0, shots=("half body", "full body")):
        found, wanted = find_hands(shown), shown.driving[:, WRISTS]
        assert found is not None
        both = (found.hands[..., 2] > 0.3) & (wanted[..., 2] > 0.5)
        seen += list(both[wanted[..., 2] > 0.5])
        distances += list(np.linalg.norm(found.hands[both][:, :2] - wanted[both][:, :2], axis=1))
        variances.append(
            [hand_variance(replace(found, hands=h), *shown.frames.shape[1:3]) for h in (found.hands, wanted)]
        )
    assert np.mean(seen) > 0.9 and np.median(distances) < 0.08
    ours, true = np.log1p(np.array(variances, float)).T
    assert np.corrcoef(ours, true)[0, 1] > 0.7


def test_a_slope_is_per_minute_of_windows_of_three_seconds():
    assert slope_a_minute(np.array([1.0, 1.5, 2.0, 2.5])) == pytest.approx(0.5 / 3 * 60)


def test_every_metric_without_weights_measures_a_drawn_person_under_the_right_name():
    metrics = make_metrics((name for name in METRICS if name != "sync_d"), Extractors())
    shown = drawn_people(1, 64, 9.2, shots=("half body",))[0]
    names = {metric.name: metric.keep(shown) for metric in metrics}
    assert not [name for name, kept in names.items() if kept is None or not np.isfinite(kept).all()]
    stand_ins = {name.removesuffix("_stand_in") for name in names if name.endswith("_stand_in")}
    assert {"fid", "fvd", "kvd", "iqa", "ase", "sync_c", "hkc", "hkv", "akd", "identity"} <= stand_ins
    assert names["drift_colour"].shape == (3,) and names["fid_stand_in"].shape == (16, 80)
    for metric in metrics:
        assert metric.name.endswith("_stand_in") == ("uncalibrated" in metric.extractor.name)  # pyright: ignore
        assert not (metric.name.endswith("_stand_in") and metric.extractor.calibrated)  # pyright: ignore


def test_metrics_that_do_not_apply_keep_nothing():
    shown = replace(drawn_people(1, 64, 0.5)[0], sound=None, driving=None, reference=None, reference_points=None)
    shown = replace(shown, frames=np.full_like(shown.frames, 90))
    metrics = make_metrics((name for name in METRICS if name != "sync_d"), Extractors())
    nothing = {metric.name for metric in metrics if metric.keep(shown) is None}
    assert nothing == {
        "fvd_stand_in", "kvd_stand_in", "sync_c_stand_in", "mouth_and_loudness", "hkc_stand_in", "hkv_stand_in",
        "hkv_in_shoulders_stand_in", "akd_stand_in", "identity_stand_in", "drift_identity_stand_in", "drift_colour",
        "drift_sharpness", "drift_noise",
    }  # fmt: skip


def test_unknown_names_and_metrics_without_a_stand_in_say_what_to_do():
    with pytest.raises(UserError, match="no metric 'fidd': choose some of fid, "):
        make_metrics(["fidd"], Extractors())
    with pytest.raises(UserError, match="'fid' is named twice"):
        make_metrics(["fid", "fid"], Extractors())
    with pytest.raises(UserError, match=r"sync_d needs SyncNet: set evaluate\.extractors\.syncnet_weights"):
        make_metrics(["sync_d"], Extractors())
