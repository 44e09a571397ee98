"""Whether raters agree beyond chance, and tests corrected for their number."""

from collections.abc import Sequence

import numpy as np


def krippendorff_alpha(units: Sequence[Sequence[int]]) -> float | None:
    """Krippendorff's alpha of nominal values: 1 - observed disagreement / that of chance.

    With c the coincidences of values within units, each unit's pairs weighted by 1 / (m - 1), and n their sums:
    1 - (n - 1) sum of c off the diagonal / (n^2 - sum of n_c^2) (Krippendorff, Content Analysis, ch. 11).

    Args:
        units: the values that raters gave to each unit; missing ones left out. Units of one value pair with nothing.

    Returns:
        None where no unit has two values, or all values are the same.
    """
    paired = [np.asarray(unit) for unit in units if len(unit) > 1]
    if not paired:
        return None
    values, codes = np.unique(np.concatenate(paired), return_inverse=True)
    counts = np.zeros((len(paired), len(values)))
    np.add.at(counts, (np.repeat(np.arange(len(paired)), [len(unit) for unit in paired]), codes), 1)
    sizes = counts.sum(axis=1)
    totals = counts.sum(axis=0)
    number = totals.sum()
    by_chance = number**2 - (totals**2).sum()
    if not by_chance:
        return None
    observed = ((sizes**2 - (counts**2).sum(axis=1)) / (sizes - 1)).sum()
    return float(1 - (number - 1) * observed / by_chance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: adjusted values, in the given order (Scandinavian Journal of Statistics 1979)."""
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted.tolist()
