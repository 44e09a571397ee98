"""Verdicts on claims: intervals over seeds and people that cover the truth, pairs that are pairs, and the words."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from omnihuman.errors import UserError
from omnihuman.pipeline.claims import Claim, judge
from omnihuman.pipeline.paired import COLUMNS, crossed_interval, paired_difference

SIMULATIONS = 1000


def table(one: np.ndarray, other: np.ndarray, items_per_person: int = 1) -> pd.DataFrame:
    """Of values [seeds, items] of the arms `one` and `other`."""
    rows = [
        (arm, seed, f"item {item}", f"person {item // items_per_person}", "sound/sync", value)
        for arm, values in (("one", one), ("other", other))
        for seed, row in enumerate(values)
        for item, value in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def values(seed: int, shape: tuple[int, int], difference: float, spread: float = 1.0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    other = random.normal(size=shape)
    return table(other + difference + spread * random.normal(size=shape), other)


def claim(change: str, margin: float, **also: str) -> Claim:
    return Claim("so", **{"arm": "one", "metric": "sync", **also}, change=change, margin=margin)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(
    ("of_seed", "of_person", "of_both"),
    [(0.3, 0.5, 1.0), (1.0, 0.1, 0.3), (0.1, 1.0, 0.3), (0.5, 0.5, 0.5)],
    ids=["mostly noise", "seeds differ", "people differ", "all alike"],
)
def test_the_interval_covers_a_known_difference(seeds: int, of_seed: float, of_person: float, of_both: float) -> None:
    random, truth, people, covered = np.random.default_rng(8), 0.4, 12, 0
    for _ in range(SIMULATIONS):
        effects = of_seed * random.normal(size=(seeds, 1)) + of_person * random.normal(size=(1, people))
        _, low, high = crossed_interval(truth + effects + of_both * random.normal(size=(seeds, people)), 0.95)
        covered += low <= truth <= high
    assert 0.90 <= covered / SIMULATIONS <= 0.98


def test_one_seed_effect_alone_is_a_t_interval_of_the_seeds() -> None:
    means = np.array([1.0, 2.0, 4.0])
    value, low, high = crossed_interval(np.repeat(means[:, None], 6, axis=1), 0.95)
    expected = stats.t.interval(0.95, 2, means.mean(), stats.sem(means))
    assert value == pytest.approx(means.mean()) and (low, high) == pytest.approx(expected)


@given(st.floats(-10, 10), st.floats(0.1, 10), st.integers(0, 50))
def test_the_interval_moves_and_stretches_with_its_values(shift: float, scale: float, seed: int) -> None:
    drawn = np.random.default_rng(seed).normal(size=(4, 7))
    before = np.array(crossed_interval(drawn, 0.95))
    assert np.allclose(crossed_interval(scale * drawn + shift, 0.95), scale * before + shift)
    assert np.allclose(crossed_interval(drawn[::-1, ::-1], 0.95), before)
    assert before[1] <= before[0] <= before[2]


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert crossed_interval(np.full((3, 4), 2.0), 0.95) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("change", "margin", "difference", "outcome"),
    [
        ("lower", 0.1, -1.0, "reproduced"),
        ("lower", 0.1, 1.0, "contradicted"),
        ("lower", 0.1, 0.0, "undecided"),
        ("lower", 2.0, -1.0, "undecided"),  # below zero, but not by the margin
        ("higher", 0.1, 1.0, "reproduced"),
        ("higher", 0.1, -1.0, "contradicted"),
        ("not_lower", 0.5, 0.0, "reproduced"),
        ("not_lower", 0.5, 1.0, "reproduced"),
        ("not_lower", 0.5, -2.0, "contradicted"),
        ("not_lower", 0.02, 0.0, "undecided"),
        ("not_higher", 0.5, 0.0, "reproduced"),
        ("not_higher", 0.5, 2.0, "contradicted"),
    ],
)
def test_an_outcome_follows_from_interval_and_margin(
    change: str, margin: float, difference: float, outcome: str
) -> None:
    verdict = judge("it", claim(change, margin), "other", values(1, (5, 40), difference, 0.3), 0.95)
    assert verdict.outcome == outcome, verdict
    assert verdict.difference is not None and verdict.difference.value == pytest.approx(difference, abs=0.1)


def test_the_same_items_are_held_against_each_other() -> None:
    """Items differ far more than arms do: only pairs show a difference."""
    random = np.random.default_rng(2)
    other = np.repeat(100 * random.normal(size=(1, 20)), 4, axis=0)
    found = paired_difference(table(other + 0.5, other), "sound/sync", "one", "other")
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
    assert (found.num_seeds, found.num_people, found.num_items) == (4, 20, 20)


def test_items_without_a_value_somewhere_are_left_out_everywhere_and_counted() -> None:
    whole = values(3, (3, 20), 1.0)
    gone = (whole["arm"] == "one") & (whole["seed"] == 1) & (whole["item"] == "item 4")
    for part in (whole[~gone], whole.assign(value=whole["value"].mask(gone))):
        found = paired_difference(part, "sound/sync", "one", "other")
        without = paired_difference(whole[whole["item"] != "item 4"], "sound/sync", "one", "other")
        assert found.num_left_out == 1 and (found.value, found.low) == (without.value, without.low)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[(rows["arm"] != "one") | (rows["seed"] < 2)], "one has seeds 0, 1 and other has 0, 1, 2"),
        (
            lambda rows: rows[(rows["arm"] != "one") | (rows["item"] < "item 15")],
            "7 of 20 items have a value in all runs",
        ),
        (lambda rows: pd.concat([rows, rows[:1]]), "seed 0: item item 0 is there twice"),
        (lambda rows: rows[rows["arm"] != "one"], "no run of one has a value of sound/sync; measured: sound/sync"),
        (lambda rows: rows[rows["seed"] == 0], "1 seed(s) and 20 people; an interval needs at least 2 and 3"),
        (lambda rows: rows[rows["item"] < "item 11"], "3 seed(s) and 2 people"),
    ],
)
def test_what_is_no_pair_or_too_little_is_said_and_not_averaged(spoil, said: str) -> None:
    rows = spoil(values(4, (3, 20), 1.0))
    if "2 people" in said:
        rows = rows[rows["item"].isin(["item 0", "item 1"])]
    with pytest.raises(UserError) as error:
        paired_difference(rows, "sound/sync", "one", "other")
    assert said in str(error.value)
    verdict = judge("it", claim("lower", 0.1), "other", rows, 0.95)
    assert verdict.outcome == "not measured" and verdict.difference is None and said in verdict.note


def test_a_stand_in_is_judged_where_nothing_else_was_measured_and_named() -> None:
    rows = values(5, (3, 20), 1.0).assign(metric="sound/sync_stand_in")
    verdict = judge("it", claim("higher", 0.0), "other", rows, 0.95)
    assert (verdict.outcome, verdict.measured) == ("reproduced", "sound/sync_stand_in")
    both = pd.concat([rows, values(6, (3, 20), -1.0)])
    assert judge("it", claim("higher", 0.0), "other", both, 0.95).measured == "sound/sync"


def test_another_arm_and_another_set_can_be_named() -> None:
    rows = values(5, (3, 20), 1.0).assign(metric="long/noise")
    named = claim("lower", 0.0, arm="other", against="one", driven_by="long", metric="noise")
    assert judge("it", named, "someone", rows, 0.95).outcome == "reproduced"
