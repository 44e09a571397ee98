"""From raters' files to what was preferred: with and without the raters whom the rule leaves out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.errors import UserError
from omnihuman.evaluation.study.agreement import holm, krippendorff_alpha
from omnihuman.evaluation.study.answers import Answers, read_answers
from omnihuman.evaluation.study.description import Rules
from omnihuman.evaluation.study.intervals import Interval, preferred
from omnihuman.evaluation.study.key import Key
from omnihuman.evaluation.study.votes import ABSTAINED, Rater, Votes, judge, votes_on

CONFIDENCE, NUM_RESAMPLES, SEED = 0.95, 2000, 0


@dataclass(frozen=True)
class SystemResult:
    """One system on one question."""

    system: str
    num_chosen: int
    num_shown: int
    """Votes, abstentions not counted, in which it was one of the choices."""
    share: Interval
    strength: Interval


@dataclass(frozen=True)
class PairResult:
    """Two systems on one question: log odds of preferring the first."""

    first: str
    second: str
    difference: Interval
    p_value: float | None
    p_holm: float | None
    """Corrected for all pairs of all questions of the study."""


@dataclass(frozen=True)
class ItemTally:
    """Of two systems: items on which the first had more votes, as many, fewer."""

    won: int
    tied: int
    lost: int


@dataclass(frozen=True)
class QuestionResult:
    """One question. Without votes its figures are None."""

    question: str
    num_votes: int
    num_abstained: int
    num_missing: int
    """Plain trials that a rater was to judge and did not."""
    num_raters: int
    num_items: int
    items_without_votes: tuple[str, ...]
    alpha: float | None
    """Krippendorff's, nominal, over trials; None where no trial has two votes or all votes are the same."""
    systems: tuple[SystemResult, ...]
    pairs: tuple[PairResult, ...]
    items: ItemTally | None
    """Of studies of two systems."""


@dataclass(frozen=True)
class StudyResult:
    """All that was answered."""

    title: str
    study: str
    systems: tuple[str, ...]
    rules: Rules
    raters: tuple[Rater, ...]
    kept: tuple[QuestionResult, ...]
    """Without the raters who are left out."""
    everybody: tuple[QuestionResult, ...]
    confidence: float = CONFIDENCE
    num_resamples: int = NUM_RESAMPLES

    def told(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def score(paths: Sequence[Path], key: Key) -> StudyResult:
    """Reads, checks and scores files of answers.

    Raises:
        UserError: no files, or some that cannot be scored (`answers.read_answers`).
    """
    if not paths:
        raise UserError("no files of answers; give those that raters sent")
    files = read_answers(paths, key)
    raters = tuple(judge(answers, key) for answers in files)
    kept = [answers for answers, rater in zip(files, raters, strict=True) if not rater.left_out]
    return StudyResult(
        key.title, key.study, key.systems, key.rules, raters, _questions(kept, key), _questions(files, key)
    )


def _questions(files: Sequence[Answers], key: Key) -> tuple[QuestionResult, ...]:
    results = [_question(question, files, key) for question in key.questions]
    tests = [pair.p_value for result in results for pair in result.pairs if pair.p_value is not None]
    corrected = iter(holm(tests))
    return tuple(
        replace(
            result,
            pairs=tuple(
                pair if pair.p_value is None else replace(pair, p_holm=next(corrected)) for pair in result.pairs
            ),
        )
        for result in results
    )


def _question(question: str, files: Sequence[Answers], key: Key) -> QuestionResult:
    answered = votes_on(question, files, key)
    votes = answered.given()
    figures = preferred(votes, CONFIDENCE, NUM_RESAMPLES, SEED)
    chosen, shown = np.bincount(votes.chosen, minlength=len(key.systems)), votes.shown.sum(axis=0)
    return QuestionResult(
        question,
        num_votes=len(votes.chosen),
        num_abstained=int((answered.chosen == ABSTAINED).sum()),
        num_missing=len(files) * key.trials_per_rater - len(answered.chosen),
        num_raters=len(np.unique(votes.rater)),
        num_items=len(np.unique(votes.item)),
        items_without_votes=tuple(item for index, item in enumerate(votes.items) if index not in votes.item),
        alpha=krippendorff_alpha(_units(votes)),
        systems=tuple(
            SystemResult(name, int(chosen[i]), int(shown[i]), figures.shares[i], figures.strengths[i])
            for i, name in enumerate(key.systems)
        ),
        pairs=tuple(
            PairResult(pair.first, pair.second, pair.estimate, pair.p_value, None) for pair in figures.differences
        ),
        items=_tally(votes) if len(key.systems) == 2 else None,
    )


def _units(votes: Votes) -> list[list[int]]:
    """Values by trial: an item with the set of systems that were shown."""
    units: dict[tuple[int, bytes], list[int]] = {}
    for item, shown, chosen in zip(votes.item, votes.shown, votes.chosen, strict=True):
        units.setdefault((int(item), shown.tobytes()), []).append(int(chosen))
    return list(units.values())


def _tally(votes: Votes) -> ItemTally:
    ahead: Counter[int] = Counter()
    for item, chosen in zip(votes.item, votes.chosen, strict=True):
        ahead[int(item)] += 1 - 2 * int(chosen)
    signs = [np.sign(lead) for lead in ahead.values()]
    return ItemTally(signs.count(1), signs.count(0), signs.count(-1))
