"""Who chose what: raters held against the rule, and the answers to one question as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from omnihuman.evaluation.study.answers import Answered, Answers
from omnihuman.evaluation.study.key import Key

ABSTAINED = -1


@dataclass(frozen=True)
class Rater:
    """How carefully one rater answered."""

    rater: str
    num_answered: int
    """Trials, with anchors and repeats, of which at least one question is answered."""
    num_planned: int
    num_abstained: int
    anchors_failed: float | None
    """Share of anchor answers that picked the damaged video; None without any."""
    repeats_agreed: float | None
    """Share of questions answered alike both times, of those answered twice; None without any."""
    first_chosen: float | None
    """Share of choices that fell on the leftmost video."""
    left_out: str
    """Why; empty where the answers count."""


@dataclass(frozen=True)
class Votes:
    """The answers to one question in plain trials: neither anchors nor second times."""

    systems: tuple[str, ...]
    raters: tuple[str, ...]
    items: tuple[str, ...]
    rater: np.ndarray  # int [V], index into raters
    item: np.ndarray  # int [V]
    shown: np.ndarray  # bool [V, k], which systems stood side by side
    chosen: np.ndarray  # int [V], index into systems, or ABSTAINED

    def given(self) -> "Votes":
        """Without abstentions."""
        kept = self.chosen != ABSTAINED
        arrays = {name: getattr(self, name)[kept] for name in ("rater", "item", "shown", "chosen")}
        return replace(self, **arrays)


def judge(answers: Answers, key: Key) -> Rater:
    """Holds one rater's answers against the study's rule."""
    anchors = [
        key.videos[choice].is_damaged
        for answer in answers.answers
        if key.trials[answer.trial].is_anchor
        for choice in answer.choices.values()
        if choice is not None
    ]
    choices = [(answer, choice) for answer in answers.answers for choice in answer.choices.values()]
    first = [answer.shown[0] == choice for answer, choice in choices if choice is not None]
    failed, agreed = _share(anchors), _share(_agreements(answers.answers))
    reasons = []
    if failed is not None and failed > key.rules.most_anchors_failed:
        reasons.append(f"picked the damaged video in {failed:.0%} of {len(anchors)} anchor answers")
    if agreed is not None and agreed < key.rules.least_repeats_agreed:
        reasons.append(f"answered {agreed:.0%} of the repeated questions alike")
    return Rater(
        answers.rater,
        num_answered=len(answers.answers),
        num_planned=answers.num_planned,
        num_abstained=sum(choice is None for _, choice in choices),
        anchors_failed=failed,
        repeats_agreed=agreed,
        first_chosen=_share(first),
        left_out="; ".join(reasons),
    )


def _agreements(answers: Sequence[Answered]) -> list[bool]:
    first = {answer.trial: answer.choices for answer in answers if not answer.is_repeat}
    pairs = [
        (first.get(answer.trial, {}).get(question), choice)
        for answer in answers
        if answer.is_repeat
        for question, choice in answer.choices.items()
    ]
    return [before == after for before, after in pairs if before is not None and after is not None]


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def votes_on(question: str, files: Sequence[Answers], key: Key) -> Votes:
    """The answers to one question of the given raters."""
    items = tuple(sorted({trial.item for trial in key.trials.values()}))
    rows = [
        (number, items.index(key.trials[answer.trial].item), answer, answer.choices[question])
        for number, answers in enumerate(files)
        for answer in answers.answers
        if not answer.is_repeat and not key.trials[answer.trial].is_anchor and question in answer.choices
    ]
    place = {name: key.systems.index(video.system) for name, video in key.videos.items()}
    shown = np.zeros((len(rows), len(key.systems)), bool)
    for number, (*_, answer, _) in enumerate(rows):
        shown[number, [place[name] for name in answer.shown]] = True
    return Votes(
        key.systems,
        tuple(answers.rater for answers in files),
        items,
        np.array([row[0] for row in rows], int),
        np.array([row[1] for row in rows], int),
        shown,
        np.array([ABSTAINED if row[3] is None else place[row[3]] for row in rows], int),
    )
