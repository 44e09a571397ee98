"""Quality of pictures without a reference: NIQE (Mittal, Soundararajan and Bovik, 2013), where its model is configured.

The model is the mean and covariance of 36 statistics of natural pictures, in the layout of the authors' release
(modelparameters.mat: mu_prisparam and cov_prisparam).
Constants are those of the release; halving a picture is Pillow's bicubic, so last digits may differ from MATLAB's.
"""

from functools import cache, partial
from itertools import product
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.io import loadmat
from scipy.special import gamma

from omnihuman.data.scorers.content import ClipContent, Measurement, Scorer, measured, not_applicable
from omnihuman.encoders.weights import check_file
from omnihuman.errors import UserError

NAMES = ("niqe",)
LICENCE = "free for any use with its copyright notice, as its authors state (LIVE, The University of Texas at Austin)"
OPTION = "score.niqe_weights"
BLOCK = 96
MIN_BLOCKS = 4
"""Of a picture; the covariance of fewer says nothing."""
NUM_STATISTICS = 36
SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))
_SHAPES = np.arange(0.2, 10.0005, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def niqe_scorer(weights: str, sha256: str) -> Scorer:
    """The scorer with the model of a file."""
    check = partial(check_file, OPTION, Path(weights), sha256)
    return Scorer(NAMES, partial(measure_niqe, weights, sha256), "1", LICENCE, "published", sha256, check)


def measure_niqe(weights: str, sha256: str, content: ClipContent) -> tuple[Measurement, ...]:
    """Mean distance of a few frames from natural pictures; lower is better, about 3 for good photographs.

    Raises:
        UserError: the model is missing or not the pinned one.
    """
    mean, covariance = _model(weights, sha256)
    pictures = content.grey[content.few]
    if (blocks := (pictures.shape[1] // BLOCK) * (pictures.shape[2] // BLOCK)) < MIN_BLOCKS:
        reason = f"it needs {MIN_BLOCKS} blocks of {BLOCK} pixels, these pictures have {blocks}"
        return not_applicable(NAMES, f"{reason}: raise score.short_side_pixels")
    values = [distance(mean, covariance, statistics(picture)) for picture in pictures]
    return (measured(NAMES[0], float(np.mean(values)), len(values)),)


def distance(mean: np.ndarray, covariance: np.ndarray, found: np.ndarray) -> float:
    """Of the blocks' statistics [N, 36] from the model's."""
    apart = mean - found.mean(axis=0)
    both = (covariance + np.cov(found, rowvar=False)) / 2
    return float(np.sqrt(max(0.0, apart @ np.linalg.pinv(both) @ apart)))


def statistics(picture: np.ndarray) -> np.ndarray:
    """Of each block of a grey picture at both scales, float64 [N, 36]."""
    rows, columns = (side // BLOCK for side in picture.shape)
    image = picture[: rows * BLOCK, : columns * BLOCK].astype(np.float64)
    scales = []
    for side in (BLOCK, BLOCK // 2):
        normalised = _normalise(image)
        corners = product(range(0, rows * side, side), range(0, columns * side, side))
        blocks = [(slice(top, top + side), slice(left, left + side)) for top, left in corners]
        scales.append(np.stack([_of_block(normalised[block]) for block in blocks]))
        if side == BLOCK:
            size = columns * side // 2, rows * side // 2
            half = Image.fromarray(image.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
            image = np.asarray(half, np.float64)
    return np.concatenate(scales, axis=1)


def _normalise(image: np.ndarray) -> np.ndarray:
    """Less the local mean, over the local deviation plus one."""
    line = cv2.getGaussianKernel(7, 7 / 6, cv2.CV_64F)
    blur = partial(cv2.sepFilter2D, ddepth=-1, kernelX=line, kernelY=line, borderType=cv2.BORDER_REPLICATE)
    mean = blur(image)
    deviation = np.sqrt(np.abs(blur(image * image) - mean * mean))
    return (image - mean) / (deviation + 1)


def _of_block(block: np.ndarray) -> list[float]:
    shape, left, right = asymmetric_gaussian(block)
    found = [shape, (left + right) / 2]
    for shift in SHIFTS:
        shape, left, right = asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
        found += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape) * scale, left**2, right**2]
    return found


def asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """Shape, and left and right deviation, of an asymmetric generalised Gaussian, by moments."""
    tiny = 1e-12
    left = np.sqrt((values[values < 0] ** 2).mean()) if (values < 0).any() else tiny
    right = np.sqrt((values[values > 0] ** 2).mean()) if (values > 0).any() else tiny
    skew = left / right
    ratio = np.abs(values).mean() ** 2 / max((values**2).mean(), tiny)
    wanted = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    return float(_SHAPES[np.argmin((_RATIOS - wanted) ** 2)]), float(left), float(right)


@cache
def _model(weights: str, sha256: str) -> tuple[np.ndarray, np.ndarray]:
    check_file(OPTION, Path(weights), sha256)
    try:
        found = loadmat(weights)
        mean, covariance = found["mu_prisparam"].ravel(), found["cov_prisparam"]
    except (ValueError, KeyError, NotImplementedError, TypeError) as error:
        raise UserError(f"{OPTION}={weights} is no NIQE model (mu_prisparam, cov_prisparam): {error}") from error
    if mean.shape != (NUM_STATISTICS,) or covariance.shape != (NUM_STATISTICS,) * 2:
        raise UserError(f"{OPTION}={weights} has {mean.shape} and {covariance.shape}, a NIQE model has 36 and 36 x 36")
    return mean, covariance
