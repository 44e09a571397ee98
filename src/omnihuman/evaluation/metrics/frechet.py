"""The Frechet distance between Gaussians fitted to two sets of features: FID (Heusel et al., 2017) and FVD (Unterthiner
et al., 2018).

|m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)). With roots R1' R1 = S1 and R2' R2 = S2, the trace of sqrt(S1 S2) is the sum
of the singular values of R1 R2': those are real and never negative, so that no root of a matrix that is not symmetric
has to be taken, which gives NaN where rounding makes an eigenvalue slightly negative.
"""

import numpy as np


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """From means [d] and covariances [d, d]; eigenvalues below zero, which only rounding makes, count as zero."""
    return _distance(mean_a, _root_of(covariance_a), mean_b, _root_of(covariance_b))


def frechet_of_features(
    a: np.ndarray, b: np.ndarray, weights_a: np.ndarray | None = None, weights_b: np.ndarray | None = None
) -> float:
    """From features [n, d] and [m, d]; covariances divide by n - 1.

    Args:
        weights_a, weights_b: how often each row counts, [n] and [m]; once where there are none.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    return _distance(*_fit(a, weights_a), *_fit(b, weights_b))


def _distance(mean_a: np.ndarray, root_a: np.ndarray, mean_b: np.ndarray, root_b: np.ndarray) -> float:
    common = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    squares = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum()
    return float(max(0.0, squares - 2 * common))


def _root_of(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


def _fit(features: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mean [d] and a root [min(n, d), d] of the covariance."""
    weights = np.ones(len(features)) if weights is None else weights
    if weights.sum() < 2:
        raise ValueError("a covariance needs two rows")
    rows, counts = features[weights > 0].astype(np.float64), weights[weights > 0]
    mean = counts @ rows / counts.sum()
    root = (rows - mean) * np.sqrt(counts / (counts.sum() - 1))[:, None]
    if len(root) > root.shape[1]:
        root = np.asarray(np.linalg.qr(root, mode="r"))
    return mean, root
