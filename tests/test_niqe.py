"""NIQE: its parts against closed forms, and that what is spoilt lies further from sharp pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from omnihuman.batch import Frames
from omnihuman.config.schema.score import Score
from omnihuman.data.scorers.content import ClipContent, Scorer
from omnihuman.data.scorers.niqe import NUM_STATISTICS, asymmetric_gaussian, distance, statistics
from omnihuman.data.scorers.registry import scorers_for
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256


def natural(seed: int, height: int = 200, width: int = 300) -> np.ndarray:
    """A picture whose spectrum falls as those of photographs do, with some edges, uint8 [H, W]."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height))) + 1e-3
    picture = np.fft.ifft2(np.fft.fft2(random.normal(size=(height, width))) / frequency).real
    picture = 128 + 40 * picture / picture.std()
    for _ in range(25):
        x, y, side = random.integers(0, width), random.integers(0, height), random.integers(8, 60)
        picture[y : y + side, x : x + side] += random.normal(0, 40)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Score:
    """A model of the published layout, made of sharp pictures."""
    path = tmp_path_factory.mktemp("niqe") / "modelparameters.mat"
    blocks = np.concatenate([statistics(natural(seed)) for seed in range(12)])
    savemat(path, {"mu_prisparam": blocks.mean(axis=0)[None], "cov_prisparam": np.cov(blocks, rowvar=False)})
    return Score(niqe_weights=str(path), niqe_sha256=file_sha256(path))


def scorer(config: Score) -> Scorer:
    return next(scorer for scorer in scorers_for(config) if scorer.names == ("niqe",))


def clip(picture: np.ndarray) -> ClipContent:
    pixels = np.repeat(picture[None, :, :, None], 2, axis=0).repeat(3, axis=3)
    return ClipContent(Frames(pixels, np.arange(2) / 25), None, None, 0.08, 25.0)


@pytest.mark.parametrize(("shape", "left", "right"), [(2.0, 1.0, 1.0), (1.0, 0.5, 0.5), (2.0, 0.4, 1.2)])
def test_parameters_of_known_distributions_are_found(shape: float, left: float, right: float) -> None:
    """Gaussian (2), Laplacian (1), and a Gaussian whose halves differ; each half holds its deviation's share."""
    random = np.random.default_rng(0)
    size = 200_000
    magnitude = np.abs(random.normal(size=size)) if shape == 2 else np.abs(random.laplace(size=size)) / np.sqrt(2)
    negative = random.random(size) < left / (left + right)
    found = asymmetric_gaussian(np.where(negative, -left * magnitude, right * magnitude))
    assert found == pytest.approx((shape, left, right), rel=0.03)


def test_the_distance_is_that_of_two_gaussians() -> None:
    found = np.random.default_rng(0).normal(size=(500, 3))
    model = found.mean(axis=0) + [3.0, 0.0, 4.0], 2 * np.eye(3) - np.cov(found, rowvar=False)
    assert distance(*model, found) == pytest.approx(5.0)


def test_blocks_and_statistics() -> None:
    found = statistics(natural(0))
    assert found.shape == (2 * 3, NUM_STATISTICS) and np.isfinite(found).all()
    assert np.isfinite(statistics(np.full((200, 200), 7, np.uint8))).all(), "a flat picture has statistics, too"


def test_what_is_spoilt_is_further_from_sharp_pictures(config: Score) -> None:
    measure, picture = scorer(config).measure, natural(100)
    (good,) = measure(clip(picture))
    blurred = [measure(clip(cv2.GaussianBlur(picture, (0, 0), sigma)))[0].value for sigma in (1.0, 2.5)]
    noise = np.random.default_rng(0).normal(0, 25, picture.shape)
    (noisy,) = measure(clip(np.clip(picture + noise, 0, 255).astype(np.uint8)))
    assert good.status == "ok" and good.num_samples == 2
    assert good.value < blurred[0] < blurred[1] and good.value < noisy.value
    (small,) = measure(clip(natural(0, 160, 190)))
    assert small.status == "na" and "score.short_side_pixels" in small.error


def test_models_that_are_missing_or_others_are_refused(config: Score, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"score\.niqe_sha256 says nothing"):
        scorer(Score(niqe_weights=config.niqe_weights)).check()
    other = tmp_path / "other.mat"
    savemat(other, {"mu_prisparam": np.zeros((1, 4)), "cov_prisparam": np.zeros((4, 4))})
    with pytest.raises(UserError, match="36 x 36"):
        scorer(Score(niqe_weights=str(other), niqe_sha256=file_sha256(other))).measure(clip(natural(0)))
