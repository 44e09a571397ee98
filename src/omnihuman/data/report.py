"""One self-contained page that shows the funnel and says of every clip what it may train, or why not."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa

from omnihuman.config.schema.decide import Rule
from omnihuman.data.eligibility import MODALITIES, STATUSES, UNUSABLE, Verdicts
from omnihuman.data.rule_report import RuleReport
from omnihuman.data.slices import Slice
from omnihuman.data.strips import NUM_FRAMES

TEMPLATE = Path(__file__).with_name("report.html.jinja")
MAX_CLIP_ROWS = 2000
"""Clips listed on the page; the decision table has all."""
NUM_BINS = 24
PLOT_WIDTH, PLOT_HEIGHT = 300, 90


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram, in the units of its drawing."""

    x: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """Values of one scorer over all clips."""

    scorer: str
    implementation: str
    bars: list[Bar]
    low: str
    high: str
    thresholds: list[tuple[float, str]]  # x and label
    without_value: list[tuple[str, int]]  # status and count
    num_ok: int


@dataclass(frozen=True)
class Contents:
    """Everything that the page says."""

    names: dict[str, str]  # of videos, by source id
    clips: pd.DataFrame
    scores: pd.DataFrame
    decisions: pa.Table
    verdicts: Verdicts
    funnel: dict[str, float | int]
    rules: list[RuleReport]
    slices: list[Slice]


def render_page(contents: Contents) -> str:
    """HTML that depends on the contents only: no time stamps, no addresses of this machine."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["hours"] = describe_hours
    decisions = contents.decisions
    of_scorers = contents.scores.groupby("scorer", sort=False, observed=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        funnel=contents.funnel,
        modalities=MODALITIES,
        rules=contents.rules,
        slices=contents.slices,
        num_frames=NUM_FRAMES,
        histograms=[_histogram(name, part, contents.verdicts.rules) for name, part in of_scorers],
        clips=_clip_rows(contents),
        num_clips=min(len(contents.clips), MAX_CLIP_ROWS),
        policy_hash=decisions["policy_hash"][0].as_py() if len(decisions) else "",
        plot_width=PLOT_WIDTH,
        plot_height=PLOT_HEIGHT,
    )


def describe_hours(hours: float) -> str:
    """A length of time with a unit that suits it."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.0f} s"


def explain(rule: Rule, value: float, status: str, error: str) -> str:
    """Why a rule failed, in plain words."""
    if status == "na":
        return f"{rule.scorer} does not apply: {error}"
    if status != "ok":
        return f"{rule.scorer} has no value ({status}): {error}" if error else f"{rule.scorer} has no value ({status})"
    if rule.at_least is not None and value < rule.at_least:
        return f"{rule.scorer} {value:.3g} is below {rule.at_least:g}"
    return f"{rule.scorer} {value:.3g} is above {rule.at_most:g}"


def _histogram(scorer: Any, part: pd.DataFrame, rules: dict[str, Rule]) -> Histogram:
    values = part.loc[part["status"] == "ok", "value"].to_numpy(np.float64)
    bounds = [
        bound
        for rule in rules.values()
        if rule.scorer == scorer
        for bound in (rule.at_least, rule.at_most)
        if bound is not None
    ]
    low, high = _span(values, bounds)
    counts, edges = np.histogram(values, NUM_BINS, (low, high))
    step, tallest = PLOT_WIDTH / NUM_BINS, max(1, counts.max())
    return Histogram(
        scorer=str(scorer),
        implementation=", ".join(sorted(set(part["implementation"]))),
        bars=[
            Bar(i * step, step - 1, PLOT_HEIGHT * count / tallest, f"{edges[i]:.3g} to {edges[i + 1]:.3g}: {count}")
            for i, count in enumerate(counts)
        ],
        low=f"{low:.3g}",
        high=f"{high:.3g}",
        thresholds=[(PLOT_WIDTH * (bound - low) / (high - low), f"{bound:g}") for bound in bounds],
        without_value=[(status, int((part["status"] == status).sum())) for status in ("na", "error", "timeout")],
        num_ok=len(values),
    )


def _span(values: np.ndarray, bounds: list[float]) -> tuple[float, float]:
    """Range of the axis: all values and thresholds, never empty."""
    everything = [*values.tolist(), *bounds]
    if not everything:
        return 0.0, 1.0
    low, high = min(everything), max(everything)
    spare = 0.04 * (high - low) or 0.5
    return low - spare, high + spare


def _clip_rows(contents: Contents) -> list[dict[str, Any]]:
    """One row for each of the first clips."""
    clips, scores, verdicts = contents.clips.head(MAX_CLIP_ROWS), contents.scores, contents.verdicts
    errors = scores[scores["clip_id"].isin(clips["clip_id"])].set_index(["clip_id", "scorer"])["error"].to_dict()
    own_rows = contents.decisions.slice(0, len(MODALITIES) * len(clips)).to_pylist()
    rows = []
    for index, clip in enumerate(clips.to_dict("records")):
        own = own_rows[len(MODALITIES) * index : len(MODALITIES) * (index + 1)]
        rows.append(
            {
                "source": contents.names.get(clip["source_id"], clip["source_id"]),
                "span": f"{clip['start_seconds']:.2f} to {clip['end_seconds']:.2f} s",
                "verdicts": [
                    {
                        "modality": decision["modality"],
                        "eligible": decision["eligible"],
                        "provisional": decision["provisional"],
                        "reasons": [_reason(name, index, clip, verdicts, errors) for name in decision["all_fails"]],
                    }
                    for decision in own
                ],
            }
        )
    return rows


def _reason(name: str, index: int, clip: dict[str, Any], verdicts: Verdicts, errors: dict[Any, str]) -> str:
    if name == UNUSABLE:
        return f"the clip cannot be used ({clip['status']}): {clip['error']}"
    position = list(verdicts.rules).index(name)
    rule = verdicts.rules[name]
    return explain(
        rule,
        float(verdicts.values[index, position]),
        STATUSES[verdicts.statuses[index, position]],
        errors.get((clip["clip_id"], rule.scorer), ""),
    )
