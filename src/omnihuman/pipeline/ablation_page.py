"""One self-contained page of an ablation: verdicts with their intervals, values, curves and pictures of all arms."""

from dataclasses import dataclass
from pathlib import Path

import jinja2

from omnihuman.pipeline.ablation_pictures import loss_curves, picture_grids
from omnihuman.pipeline.claims import Verdict
from omnihuman.pipeline.comparison import CONFIDENCE, Comparison

TEMPLATE = Path(__file__).with_name("ablation_page.html.jinja")
WIDTH, HEIGHT = 280, 46
"""Of the drawing of an interval."""


@dataclass(frozen=True)
class Drawing:
    """An interval on a line, in the drawing's own units."""

    low: float
    value: float
    high: float
    zero: float
    margin: float
    """Where the margin lies on the claim's own side."""


@dataclass(frozen=True)
class Judged:
    """A verdict as the page shows it."""

    verdict: Verdict
    said: str
    drawing: Drawing | None


def render_page(comparison: Comparison, place: Path) -> str:
    """HTML that depends on the comparison and the runs' files below `place` only, with no address outside."""
    ablation = comparison.ablation
    folders = {arm.name: [place / arm.name / f"seed-{seed}" for seed in ablation.seeds] for arm in ablation.arms}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        comparison=comparison,
        ablation=ablation,
        claims_said=describe_claims(comparison),
        judged=[
            Judged(verdict, describe_difference(verdict, ablation.reference), _drawing(verdict))
            for verdict in comparison.verdicts
        ],
        curves=loss_curves(folders),
        grids=picture_grids({arm: runs[0] for arm, runs in folders.items()}),
        width=WIDTH,
        height=HEIGHT,
    )


def describe_claims(comparison: Comparison) -> str:
    """Whether the claims stand as they were written before the runs."""
    count = f"{len(comparison.verdicts)} claim(s), {CONFIDENCE:.0%} intervals of each alone"
    if comparison.claims_changed:
        return f"{count}; THE CLAIMS WERE CHANGED AFTER RUNS HAD BEGUN: a verdict tells nothing new"
    return f"{count}; written before the runs, unchanged since"


def describe_difference(verdict: Verdict, reference: str) -> str:
    """The figures behind a verdict, or why there are none."""
    claim, found = verdict.claim, verdict.difference
    if found is None:
        return verdict.note
    behind = f"{found.num_seeds} seeds, {found.num_people} people, {found.num_items} items"
    if found.num_left_out:
        behind += f" ({found.num_left_out} left out, because some run has no value for them)"
    return (
        f"{verdict.measured}: {claim.arm} minus {claim.against or reference} is {found.value:+.3f}"
        f" [{found.low:+.3f}, {found.high:+.3f}]; claimed {claim.change.replace('_', ' ')}, margin {claim.margin:g};"
        f" {behind}"
    )


def _drawing(verdict: Verdict) -> Drawing | None:
    found = verdict.difference
    if found is None:
        return None
    margin = verdict.claim.margin if verdict.claim.change in ("higher", "not_higher") else -verdict.claim.margin
    reach = 1.15 * max(abs(found.low), abs(found.high), abs(margin), 1e-12)

    def place(value: float) -> float:
        return round(WIDTH * (0.5 + 0.5 * value / reach), 1)

    return Drawing(*(place(value) for value in (found.low, found.value, found.high, 0.0, margin)))
