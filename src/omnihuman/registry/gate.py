"""May a model become the champion? A pure function of evaluation figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omnihuman.config.schema.registry import Gate


@dataclass(frozen=True)
class Measured:
    """The figures of one model, and what they were measured on."""

    figures: Mapping[str, Any]
    """reports/evaluation.json: estimates with `value`, `low` and `high` under nested names."""
    evaluation_set: str


@dataclass(frozen=True)
class Rule:
    """One rule and how it came out."""

    name: str
    value: float | str | None
    """None where the figure is missing or not a number."""
    threshold: float | str | None
    passed: bool

    def __str__(self) -> str:
        shown = " against ".join(_show(part) for part in (self.value, self.threshold))
        return f"{'pass' if self.passed else 'FAIL'}  {self.name}: {shown}"


@dataclass(frozen=True)
class GateReport:
    """All rules; a model passes when each does."""

    rules: tuple[Rule, ...]

    @property
    def passed(self) -> bool:
        """Whether no rule failed."""
        return all(rule.passed for rule in self.rules)

    def lines(self) -> list[str]:
        """One line a rule: pass or FAIL, the rule, the figure against its threshold."""
        return [str(rule) for rule in self.rules]


def check(candidate: Measured, champion: Measured | None, gate: Gate) -> GateReport:
    """Holds a candidate against absolute floors and, where there is one, against the champion.

    Non-inferiority: the lower end of the interval of the difference is above minus the margin. The interval comes from
    both intervals by the method of variance estimates recovery (Zou and Donner, 2008), which takes them as
    independent; on one evaluation set they are not quite, so that the rule is on the strict side. What the champion
    has measured the candidate must have measured too.
    """
    figures = candidate.figures
    low, chance = _number(figures, "opening.generated.low"), _number(figures, "opening.null.high")
    beats_chance = low is not None and chance is not None and low > chance
    rules = [
        Rule("mouth opening, lower end above shuffled sound", low, chance, beats_chance),
        _at_least("mouth opening follows the sound", _number(figures, "opening.generated.value"), gate.min_opening),
        _at_least("background, dB", _number(figures, "background_psnr_db.value"), gate.min_background_psnr_db),
    ]
    if champion:
        same = candidate.evaluation_set == champion.evaluation_set
        rules.append(Rule("measured on the champion's set", candidate.evaluation_set, champion.evaluation_set, same))
        rules += [
            _not_inferior(name, path, sign, margin, candidate.figures, champion.figures)
            for name, path, sign, margin in (
                ("mouth opening", "opening.generated", 1, gate.margin_opening),
                ("mouth width", "width.generated", 1, gate.margin_width),
                ("background, dB", "background_psnr_db", 1, gate.margin_background_psnr_db),
                ("distance to the driving pose", "pose_distance.to_driving", -1, gate.margin_pose_distance),
            )
            if _number(champion.figures, f"{path}.value") is not None
        ]
    return GateReport(tuple(rules))


def _at_least(name: str, value: float | None, threshold: float | None) -> Rule:
    return Rule(name, value, threshold, value is not None and threshold is not None and value >= threshold)


def _not_inferior(
    name: str, path: str, sign: int, margin: float, candidate: Mapping[str, Any], champion: Mapping[str, Any]
) -> Rule:
    """Rule on the lower end of the difference in the good direction; `sign` is -1 where less is better."""
    ends = ("low", "high") if sign > 0 else ("high", "low")
    new, new_worst = (_number(candidate, f"{path}.{key}") for key in ("value", ends[0]))
    old, old_best = (_number(champion, f"{path}.{key}") for key in ("value", ends[1]))
    title = f"{name}: not worse than the champion, lower end of the difference"
    if new is None or new_worst is None or old is None or old_best is None:
        return Rule(title, None, -margin, False)
    lower_end = sign * (new - old) - math.hypot(new - new_worst, old_best - old)
    return _at_least(title, lower_end, -margin)


def _number(figures: Mapping[str, Any], path: str) -> float | None:
    """The figure at a dotted name; None where it is missing, null, NaN or no number."""
    part: Any = figures
    for key in path.split("."):
        part = part.get(key) if isinstance(part, Mapping) else None
    if isinstance(part, bool) or not isinstance(part, (int, float)) or not math.isfinite(part):
        return None
    return float(part)


def _show(part: float | str | None) -> str:
    if part is None:
        return "not measured"
    return part[:12] if isinstance(part, str) else f"{part:.3f}"
