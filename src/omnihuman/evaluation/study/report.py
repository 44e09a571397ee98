"""A study's result for people (a table of text, a page) and for programs (JSON)."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import jinja2

from omnihuman.evaluation.study.intervals import Interval
from omnihuman.evaluation.study.score import QuestionResult, StudyResult, SystemResult
from omnihuman.evaluation.study.votes import Rater
from omnihuman.storage.files import publish

RESULT, PAGE = "result.json", "result.html"
TEMPLATE = Path(__file__).with_name("result.html.jinja")
_FEW_RATERS = 10


def write_result(result: StudyResult, folder: Path) -> None:
    """Writes result.json and result.html."""
    with publish(folder / RESULT) as temporary:
        told = json.dumps(result.told(), indent=1, ensure_ascii=False, allow_nan=False)
        temporary.write_text(told + "\n", encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(percent=percent, number=number, p=p_value, share=plain_share, counts=counts)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        result=result,
        questions=list(zip(result.kept, result.everybody, strict=True)),
        notes=list(notes(result)),
    )
    with publish(folder / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")


def table(result: StudyResult) -> list[str]:
    """Lines: raters, then each question with its systems and pairs."""
    lines = [f"{result.title} (study {result.study[:12]})", "", *_aligned(_rater_rows(result.raters)), ""]
    lines += [*notes(result), ""]
    for kept, everybody in zip(result.kept, result.everybody, strict=True):
        lines += [f"{kept.question}: {counts(kept)}"]
        lines += [f"  {line}" for line in _aligned(_system_rows(kept.systems, everybody.systems))]
        lines += [
            f"  {pair.first} over {pair.second}: log odds {number(pair.difference)}, p {p_value(pair.p_value)},"
            f" corrected {p_value(pair.p_holm)}"
            for pair in kept.pairs
        ]
        if kept.items:
            won, tied, lost = kept.items.won, kept.items.tied, kept.items.lost
            lines.append(f"  items on which {result.systems[0]} won, tied, lost: {won}, {tied}, {lost}")
        lines.append("")
    return lines[:-1]


def notes(result: StudyResult) -> Iterator[str]:
    """The rule, and what a reader must know before the figures."""
    left_out = [rater for rater in result.raters if rater.left_out]
    rule = f"picked the damaged video in more than {result.rules.most_anchors_failed:.0%} of the anchor answers"
    if result.rules.least_repeats_agreed:
        rule += f", or answered fewer than {result.rules.least_repeats_agreed:.0%} of the repeated questions alike"
    yield (
        f"Left out is who {rule}: {len(left_out)} of {len(result.raters)} raters; figures of everybody stand beside the"
        " others."
    )
    yield (
        "Shares are of votes; who could not say gave none. Anchors and second answers are no votes. Intervals are"
        f" two-way bootstraps over raters and items ({result.confidence:.0%}); p-values are corrected by Holm for all"
        " pairs of all questions."
    )
    if len(result.raters) - len(left_out) < _FEW_RATERS:
        yield f"With fewer than {_FEW_RATERS} raters the intervals say little about other people."
    unfinished = [rater.rater for rater in result.raters if rater.num_answered < rater.num_planned]
    if unfinished:
        yield f"Not finished, counted as far as they go: {', '.join(unfinished)}."


def counts(question: QuestionResult) -> str:
    """What the figures of one question rest on."""
    alpha = "none" if question.alpha is None else f"{question.alpha:.2f}"
    told = (
        f"{question.num_votes} votes of {question.num_raters} raters on {question.num_items} items,"
        f" {question.num_abstained} could not say, {question.num_missing} not answered; Krippendorff's alpha {alpha}"
    )
    if not question.num_votes:
        told += "; no figure"
    elif question.items_without_votes:
        told += f"; no vote on {', '.join(question.items_without_votes)}"
    if question.num_votes and min(question.num_raters, question.num_items) < 2:
        told += "; an interval needs two raters and two items"
    return told


def percent(interval: Interval) -> str:
    """Such as `53% [41, 65]`."""
    if interval.value is None:
        return "-"
    ends = "" if interval.low is None or interval.high is None else f" [{interval.low:.0%}, {interval.high:.0%}]"
    return f"{interval.value:.1%}{ends}"


def number(interval: Interval) -> str:
    """Such as `0.31 [0.02, 0.60]`."""
    if interval.value is None:
        return "-"
    ends = "" if interval.low is None or interval.high is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.value:.2f}{ends}"


def p_value(value: float | None) -> str:
    """Three digits behind the point, or that it is smaller."""
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def plain_share(value: float | None) -> str:
    """In percent."""
    return "-" if value is None else f"{value:.0%}"


def _rater_rows(raters: Sequence[Rater]) -> list[tuple[str, ...]]:
    title = ("rater", "trials", "could not say", "anchors failed", "repeats alike", "leftmost", "left out")
    return [
        title,
        *(
            (
                rater.rater, f"{rater.num_answered} of {rater.num_planned}", str(rater.num_abstained),
                plain_share(rater.anchors_failed), plain_share(rater.repeats_agreed), plain_share(rater.first_chosen),
                rater.left_out,
            )
            for rater in raters
        ),
    ]  # fmt: skip


def _system_rows(kept: Sequence[SystemResult], everybody: Sequence[SystemResult]) -> list[tuple[str, ...]]:
    title = ("system", "chosen", "share", "strength", "share, everybody")
    return [
        title,
        *(
            (
                system.system, f"{system.num_chosen} of {system.num_shown}", percent(system.share),
                number(system.strength), percent(whole.share),
            )
            for system, whole in zip(kept, everybody, strict=True)
        ),
    ]  # fmt: skip


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
