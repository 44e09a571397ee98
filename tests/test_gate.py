"""The gate, a pure function: what passes, and that each way to be worse or unmeasured fails by name."""

import copy
import math
from typing import Any

import pytest

from omnihuman.config.schema.registry import Gate
from omnihuman.registry.gate import GateReport, Measured, check


def estimate(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "num_clips": 48, "num_people": 23}


def figures(**changes: Any) -> dict[str, Any]:
    """The demo's figures in README.md; `opening__generated__low=0.1` changes one, `...=KeyError` removes it."""
    tree = {
        "opening": {"generated": estimate(0.70, 0.63, 0.77), "null": estimate(0.02, -0.07, 0.11)},
        "width": {"generated": estimate(0.04, -0.06, 0.13)},
        "background_psnr_db": estimate(25.2, 24.2, 26.1),
        "pose_distance": {"to_driving": estimate(0.075, 0.069, 0.081)},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        part: Any = tree
        for key in parents:
            part = part[key]
        if value is KeyError:
            del part[last]
        else:
            part[last] = value
    return tree


def gate(candidate: dict[str, Any], champion: dict[str, Any] | None = None, on: str = "a") -> GateReport:
    return check(Measured(candidate, "a"), Measured(champion, on) if champion else None, Gate())


def failed(report: GateReport) -> list[str]:
    return [rule.name for rule in report.rules if not rule.passed]


def test_good_figures_pass_alone_and_against_themselves() -> None:
    assert gate(figures()).passed and gate(figures(), figures()).passed
    assert len(gate(figures()).rules) == 3 and len(gate(figures(), figures()).rules) == 8


@pytest.mark.parametrize("value", [KeyError, None, math.nan, math.inf, "0.9", True])
@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("opening__generated__low", "mouth opening, lower end above shuffled sound"),
        ("opening__null__high", "mouth opening, lower end above shuffled sound"),
        ("opening__generated__value", "mouth opening follows the sound"),
        ("background_psnr_db__value", "background, dB"),
    ],
)
def test_a_figure_that_is_no_number_fails(path: str, rule: str, value: Any) -> None:
    assert failed(gate(figures(**{path: value}))) == [rule]


def test_no_figures_fail_every_rule() -> None:
    assert len(failed(gate({}))) == 3
    assert len(failed(gate({}, figures()))) == 7  # the eighth: both are of one evaluation set


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"opening__generated__low": 0.11}, "mouth opening, lower end above shuffled sound"),
        ({"opening__generated__value": 0.29}, "mouth opening follows the sound"),
        ({"background_psnr_db__value": 19.9}, "background, dB"),
    ],
)
def test_the_floors(changes: dict[str, float], rule: str) -> None:
    assert failed(gate(figures(**changes))) == [rule]


@pytest.mark.parametrize(
    ("path", "better", "worse", "rule"),
    [
        ("opening__generated", (0.9, 0.83, 0.97), (0.55, 0.48, 0.62), "mouth opening: not worse"),
        ("width__generated", (0.5, 0.4, 0.6), (-0.1, -0.2, 0.0), "mouth width: not worse"),
        ("background_psnr_db", (30.0, 29.0, 31.0), (23.0, 22.0, 24.0), "background, dB: not worse"),
        ("pose_distance__to_driving", (0.05, 0.04, 0.06), (0.1, 0.09, 0.11), "distance to the driving pose: not worse"),
    ],
)
def test_non_inferiority(path: str, better: tuple, worse: tuple, rule: str) -> None:
    assert gate(figures(**{path: estimate(*better)}), figures()).passed
    (name,) = failed(gate(figures(**{path: estimate(*worse)}), figures()))
    assert name.startswith(rule)
    unmeasured = {"value": None, "low": None, "high": None}
    assert rule in " ".join(failed(gate(figures(**{path: unmeasured}), figures())))


def test_what_the_champion_never_measured_is_not_asked_for() -> None:
    champion = figures(pose_distance__to_driving={"value": None, "low": None, "high": None})
    assert gate(copy.deepcopy(champion), champion).passed


def test_the_lower_end_of_the_difference_joins_both_intervals() -> None:
    candidate = figures(opening__generated=estimate(0.70, 0.66, 0.80))
    champion = figures(opening__generated=estimate(0.72, 0.60, 0.75))
    rule = next(rule for rule in gate(candidate, champion).rules if rule.name.startswith("mouth opening: not"))
    assert rule.value == pytest.approx(-0.02 - math.hypot(0.04, 0.03)) and rule.threshold == -0.15


def test_figures_of_another_evaluation_set_are_not_compared_silently() -> None:
    report = gate(figures(), figures(), on="b")
    assert failed(report) == ["measured on the champion's set"]
    assert "FAIL  measured on the champion's set: a against b" in report.lines()
