"""How much each system is preferred: Bradley and Terry's model, as Luce's axiom extends it to choices among several."""

import numpy as np

HALF_VOTE = 0.5
"""Added to every system's votes, as Haldane and Anscombe do for log odds, so that strengths stay finite where one
system was never chosen."""
_MAX_STEPS, _CLOSE = 10000, 1e-10


def strengths(wins: np.ndarray, trials: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Log strengths of systems, of mean zero: the log odds of i against j are their difference.

    The probability that i is chosen from the set S is p_i / sum of p_j over S (Luce 1959; for two Bradley and Terry
    1952). The likelihood is climbed by minorisation and maximisation, p_i <- w_i / sum over sets of n_S / sum of p_j
    (Hunter, Annals of Statistics 2004, 32:384). `HALF_VOTE` a system is added, in one trial of all systems; where all
    always stand side by side the result is log(w_i + 1/2) without its mean.

    Args:
        wins: [..., k], how often each system was chosen; need not be whole.
        trials: [..., S], how often each set was judged.
        sets: bool [S, k], the systems of each set.

    Returns:
        [..., k].
    """
    num_systems = wins.shape[-1]
    wins = wins + HALF_VOTE
    trials = np.concatenate([trials, np.full((*trials.shape[:-1], 1), HALF_VOTE * num_systems)], axis=-1)
    sets = np.concatenate([sets, np.ones((1, num_systems), bool)]).astype(float)
    share = wins / wins.sum(axis=-1, keepdims=True)
    for _ in range(_MAX_STEPS):
        new = wins / ((trials / (share @ sets.T)) @ sets)
        new /= new.sum(axis=-1, keepdims=True)
        moved, share = np.abs(np.log(new / share)).max(), new
        if moved < _CLOSE:
            break
    logs = np.log(share)
    return logs - logs.mean(axis=-1, keepdims=True)
