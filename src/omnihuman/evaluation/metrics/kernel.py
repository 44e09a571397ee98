"""Squared maximum mean discrepancy with a polynomial kernel, unbiased (Binkowski et al., 2018): KID of pictures, KVD of
videos. Independent sets of one distribution give zero on average however small they are, so it may be negative.
"""

from collections.abc import Callable

import numpy as np

DEGREE = 3


def polynomial_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """From features [n, d] and [m, d], with the kernel (x y / d + 1)^3.

    Raises:
        ValueError: a set has fewer than two rows.
    """
    return weighted_polynomial_mmd(a, b)(np.ones(len(a)), np.ones(len(b)))


def weighted_polynomial_mmd(a: np.ndarray, b: np.ndarray) -> Callable[[np.ndarray, np.ndarray], float]:
    """The same as a function of how often each row counts, [n] and [m]; no row is ever paired with itself."""
    if min(len(a), len(b)) < 2:
        raise ValueError("pairs within a set need two rows")
    a, b = a.astype(np.float64), b.astype(np.float64)
    within_a, within_b, across = _kernel(a, a), _kernel(b, b), _kernel(a, b)
    np.fill_diagonal(within_a, 0)
    np.fill_diagonal(within_b, 0)

    def discrepancy(weights_a: np.ndarray, weights_b: np.ndarray) -> float:
        crossing = weights_a @ across @ weights_b / (weights_a.sum() * weights_b.sum())
        return float(_mean_within(within_a, weights_a) + _mean_within(within_b, weights_b) - 2 * crossing)

    return discrepancy


def _mean_within(kernel: np.ndarray, weights: np.ndarray) -> float:
    return weights @ kernel @ weights / (weights.sum() ** 2 - (weights**2).sum())


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** DEGREE
