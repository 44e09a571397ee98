"""Distances between sets of features: closed forms, parity with torchmetrics, small samples, intervals and floors."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import sqrtm

from omnihuman.errors import UserError
from omnihuman.evaluation.metrics.frechet import frechet_distance, frechet_of_features
from omnihuman.evaluation.metrics.kernel import polynomial_mmd, weighted_polynomial_mmd
from omnihuman.evaluation.metrics.measure import Extractor, Kept
from omnihuman.evaluation.metrics.sets import SetMetric, _resamples, weighted_frechet

ANY = Extractor("given features", "none")


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def covariance(d: int, seed: int) -> np.ndarray:
    root = random(seed).normal(size=(d, d))
    return root @ root.T / d


def by_definition(mean_a: np.ndarray, a: np.ndarray, mean_b: np.ndarray, b: np.ndarray) -> float:
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b))))


@pytest.mark.parametrize("d", [64, pytest.param(2048, marks=pytest.mark.slow)])
def test_means_0_and_1_with_identities_are_d_apart(d: int):
    assert frechet_distance(np.zeros(d), np.eye(d), np.ones(d), np.eye(d)) == d


def test_a_distribution_is_0_from_itself_and_order_does_not_matter():
    a, b, mean = covariance(40, 0), covariance(40, 1), random(2).normal(size=40)
    assert frechet_distance(mean, a, mean, a) == pytest.approx(0, abs=1e-9)
    there, back = frechet_distance(mean, a, 0 * mean, b), frechet_distance(0 * mean, b, mean, a)
    assert there == pytest.approx(back, rel=1e-12) and there > 1
    features = random(3).normal(size=(30, 40))
    assert frechet_of_features(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_of_features(features, random(4).permutation(features)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 3.0), (2.0, 0.25)])
def test_gaussians_that_are_shifted_and_scaled_have_a_closed_form(shift: float, scale: float):
    d = 24
    one = frechet_distance(np.zeros(d), np.eye(d), np.full(d, shift), scale * np.eye(d))
    assert one == pytest.approx(d * shift**2 + d * (1 - np.sqrt(scale)) ** 2, rel=1e-9)
    a, features = covariance(d, 1), random(5).normal(size=(60, d))
    assert frechet_of_features(features, features + shift) == pytest.approx(d * shift**2, abs=1e-9)
    assert frechet_distance(np.zeros(d), a, np.zeros(d), scale * a) == pytest.approx(
        np.trace(a) * (1 - np.sqrt(scale)) ** 2, rel=1e-9, abs=1e-9
    )


def test_it_equals_the_definition_with_scipys_root():
    a, b = covariance(30, 0), covariance(30, 1)
    mean_a, mean_b = random(2).normal(size=(2, 30))
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(by_definition(mean_a, a, mean_b, b), rel=1e-7)


def test_a_slightly_negative_eigenvalue_gives_no_nan():
    vectors = np.linalg.qr(random(0).normal(size=(12, 12)))[0]
    values = np.linspace(0, 1, 12)
    bent = vectors @ np.diag(values - 1e-9) @ vectors.T
    assert np.linalg.eigvalsh(bent).min() < 0
    found = frechet_distance(np.zeros(12), bent, np.zeros(12), vectors @ np.diag(4 * values) @ vectors.T)
    assert found == pytest.approx(values.sum(), rel=1e-6)


def test_features_of_fewer_rows_than_columns_agree_with_their_covariances():
    a, b = random(0).normal(size=(9, 20)), random(1).normal(0.3, 2, size=(50, 20))
    of_covariances = frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert frechet_of_features(a, b) == pytest.approx(of_covariances, rel=1e-6)


def test_a_weight_of_two_is_a_row_that_stands_there_twice():
    a, b = random(0).normal(size=(12, 5)), random(1).normal(size=(9, 5))
    counts = np.array([2, 0, 1, 3, 1, 0, 1, 1, 2, 1, 1, 1])
    repeated = np.repeat(a, counts, axis=0)
    assert frechet_of_features(a, b, counts) == pytest.approx(frechet_of_features(repeated, b), rel=1e-9)


@pytest.mark.slow
def test_frechet_equals_torchmetrics_on_a_seeded_linear_extractor():
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")
    torch.manual_seed(0)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 16)).double()

    class Extract(torch.nn.Module):
        num_features = 16

        def forward(self, pictures):
            return linear(pictures.double() / 255)

    pictures = torch.randint(0, 256, (2, 90, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pictures[1] = pictures[1] // 2
    theirs = fid.FrechetInceptionDistance(feature=Extract(), input_img_size=(3, 8, 8)).set_dtype(torch.float64)
    for real, part in ((True, pictures[0]), (False, pictures[1])):
        for batch in part.split(32):
            theirs.update(batch, real=real)
    with torch.no_grad():
        a, b = (Extract()(part).numpy() for part in pictures)
    assert frechet_of_features(a, b) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_mmd_equals_torchmetrics_on_whole_sets():
    torch = pytest.importorskip("torch")
    kid = pytest.importorskip("torchmetrics.image.kid")
    a, b = random(0).normal(size=(40, 16)), random(1).normal(0.2, 1.3, size=(40, 16))
    theirs = kid.poly_mmd(torch.from_numpy(a), torch.from_numpy(b), degree=3, gamma=None, coef=1.0)
    assert polynomial_mmd(a, b) == pytest.approx(float(theirs), rel=1e-9)


def test_mmd_of_one_distribution_is_zero_on_average_and_of_two_is_not():
    found = [
        polynomial_mmd(random(2 * i).normal(size=(12, 8)), random(2 * i + 1).normal(size=(9, 8))) for i in range(400)
    ]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found)) and min(found) < 0
    assert polynomial_mmd(random(0).normal(size=(50, 8)), random(1).normal(1, 1, size=(50, 8))) > 5 * np.std(found)


def test_a_person_who_is_drawn_twice_is_not_paired_with_itself():
    a, b = random(0).normal(size=(6, 4)), random(1).normal(size=(5, 4))
    twice = weighted_polynomial_mmd(a, b)(2 * np.ones(6), np.ones(5))
    assert twice == pytest.approx(polynomial_mmd(a, b), rel=1e-12)


@pytest.mark.parametrize(("count", "expected"), [(100, 479), (269, 291), (2048, 39)])
def test_small_sets_of_one_distribution_are_far_apart(count: int, expected: float):
    """Two sets of N(0, I) in 400 dimensions: why every figure carries n and a floor."""
    found = frechet_of_features(random(0).normal(size=(count, 400)), random(1).normal(size=(count, 400)))
    assert found == pytest.approx(expected, rel=0.03)


def kept(count: int, shift: float, seed: int, d: int = 6, each: int = 2) -> list[Kept]:
    """One video of each person, `each` rows of it that lie near each other."""
    people = random(seed).normal(shift, 1, size=(count, 1, d))
    rows = people + 0.3 * random(seed + 1).normal(size=(count, each, d))
    return [Kept(f"item-{i}", f"person-{i}", row) for i, row in enumerate(rows)]


def test_a_figure_carries_interval_floor_counts_and_says_what_few_rows_mean():
    metric = SetMetric("fid_stand_in", lambda shown: None, ANY, "frechet")
    figure = metric.figure(kept(30, 1.0, 0), kept(30, 0.0, 10), 0.95, seed=0)
    assert figure.estimate.low < figure.estimate.value < figure.estimate.high
    assert figure.floor is not None and 0 < figure.floor < figure.estimate.low
    assert (figure.estimate.num_clips, figure.estimate.num_people, figure.note) == (30, 30, "")
    assert metric.figure(kept(30, 1.0, 0), kept(30, 0.0, 10), 0.95, seed=0) == figure
    wide = metric.figure(kept(12, 1.0, 0, d=40), kept(12, 0.0, 10, d=40), 0.95, seed=0)
    assert "24 and 24 rows, 41 would give full rank" in wide.note


@pytest.mark.parametrize("distance", ["frechet", "polynomial_mmd"])
def test_the_interval_is_about_as_wide_as_new_people_would_move_the_figure(distance: str):
    metric = SetMetric("any", lambda shown: None, ANY, distance)
    figures = [metric.figure(kept(25, 0.7, 100 * i), kept(25, 0.0, 100 * i + 50), 0.95, seed=i) for i in range(30)]
    reach = np.mean([(figure.estimate.high - figure.estimate.low) / 2 for figure in figures])
    moved = 1.96 * np.std([figure.estimate.value for figure in figures], ddof=1)
    assert 0.6 < reach / moved < 1.6


def test_resampling_people_alone_would_lie_above_the_figure():
    """Which is why the interval takes the resamples' spread and not their place."""
    a, b = kept(25, 0.0, 0), kept(25, 0.0, 50)
    rows = [np.concatenate([each.values for each in part]) for part in (a, b)]
    people = np.repeat([each.person for each in a], 2)
    found = _resamples(weighted_frechet(*rows), people, people, 6, random())
    assert np.mean(found) > 1.2 * frechet_of_features(*rows)


def test_too_few_videos_give_no_number_and_say_how_many_are_needed():
    metric = SetMetric("fvd", lambda shown: None, ANY, "frechet", min_videos=10)
    few = metric.figure(kept(9, 1.0, 0), kept(30, 0.0, 10), 0.95, seed=0)
    assert (
        np.isnan(few.estimate.value) and few.note.startswith("needs 10 generated videos") and "there are 9" in few.note
    )
    none = metric.figure(kept(30, 1.0, 0), [], 0.95, seed=0)
    assert np.isnan(none.estimate.value) and "needs 10 real videos" in none.note and none.floor is None


def test_an_item_twice_and_features_of_two_extractors_are_refused():
    metric = SetMetric("fid", lambda shown: None, ANY, "frechet")
    with pytest.raises(UserError, match="item-3 stands in one set twice"):
        metric.figure([*kept(12, 1.0, 0), kept(12, 1.0, 0)[3]], kept(12, 0.0, 10), 0.95, seed=0)
    with pytest.raises(UserError, match="different extractors"):
        metric.figure(kept(12, 1.0, 0), kept(12, 0.0, 10, d=7), 0.95, seed=0)


def test_zeros_against_ones_give_the_published_fvd():
    given = os.environ.get("OMNIHUMAN_I3D")
    if not given:
        pytest.skip("no I3D weights: name i3d_torchscript.pt by OMNIHUMAN_I3D")
    from omnihuman.evaluation.extractors.i3d import embed_clips, load_i3d
    from omnihuman.storage.files import file_sha256

    network = load_i3d(Path(given), file_sha256(Path(given)))
    black = [np.zeros((30, 64, 64, 3), np.uint8)] * 8
    white = [np.full((30, 64, 64, 3), 255, np.uint8)] * 8
    a, b = embed_clips(network, black, "crop"), embed_clips(network, white, "crop")
    assert frechet_of_features(a, b) == pytest.approx(151.26, rel=0.01)
