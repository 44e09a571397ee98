"""Claims that are written down before the runs of an ablation, and what the runs say of them."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from omnihuman.errors import UserError
from omnihuman.pipeline.paired import Difference, paired_difference

STAND_IN = "_stand_in"
"""How the names of metrics end that something uncalibrated stands in for."""
CHANGES = ("lower", "higher", "not_lower", "not_higher")
Outcome = Literal["reproduced", "contradicted", "undecided", "not measured"]


@dataclass(frozen=True)
class Claim:
    """What one arm is expected to do to one metric, against another arm."""

    says: str
    """The claim in words, for people."""
    arm: str
    metric: str
    """As the items table names it; where only its stand-in was measured, that one is judged, and named."""
    change: str
    """`lower` or `higher`, by more than the margin; `not_lower` or `not_higher`: worse by less than the margin."""
    margin: float
    """In the metric's own unit: the smallest difference that counts."""
    driven_by: str = "sound"
    """What drives the videos that are measured, as the items table names it: `sound`, `pose`, or `long` speech."""
    against: str = ""
    """Another arm; empty: the ablation's reference."""


@dataclass(frozen=True)
class Verdict:
    """What the runs say of a claim."""

    name: str
    claim: Claim
    outcome: Outcome
    measured: str
    """Set of videos and metric, as the items table names them."""
    difference: Difference | None  # arm minus the other; None where it was not measured
    note: str = ""


def judge(name: str, claim: Claim, against: str, table: pd.DataFrame, confidence: float) -> Verdict:
    """Holds a claim against a table with `paired.COLUMNS`.

    `lower` and `higher` are reproduced where the whole interval lies beyond the margin on the claimed side, and
    contradicted where it lies beyond zero on the other. `not_lower` and `not_higher` are reproduced where the whole
    interval lies on the good side of the margin, and contradicted where it lies beyond it. All else is undecided.
    Intervals are of each claim alone, without a correction for their number.
    """
    measured = f"{claim.driven_by}/{claim.metric}"
    if measured + STAND_IN in table["metric"].values and measured not in table["metric"].values:
        measured += STAND_IN
    try:
        difference = paired_difference(table, measured, claim.arm, claim.against or against, confidence)
    except UserError as error:
        return Verdict(name, claim, "not measured", measured, None, str(error))
    return Verdict(name, claim, _outcome(claim, difference), measured, difference)


def _outcome(claim: Claim, difference: Difference) -> Outcome:
    rising = claim.change in ("higher", "not_lower")
    low, high = (difference.low, difference.high) if rising else (-difference.high, -difference.low)
    claimed, refuted = (claim.margin, 0.0) if not claim.change.startswith("not_") else (-claim.margin, -claim.margin)
    if low > claimed:
        return "reproduced"
    return "contradicted" if high < refuted else "undecided"
