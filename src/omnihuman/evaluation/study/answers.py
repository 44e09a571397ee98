"""The files that raters sent, read and checked; nothing in them is believed before."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.evaluation.study.key import Key


@dataclass(frozen=True)
class Answered:
    """One trial, as far as it was answered."""

    trial: str
    is_repeat: bool
    shown: tuple[str, ...]
    """Hidden names of videos, from left to right."""
    choices: Mapping[str, str | None]
    """By question: a hidden name, or None where the rater could not say. What is not answered is absent."""


@dataclass(frozen=True)
class Answers:
    """One rater's file."""

    rater: str
    answers: tuple[Answered, ...]
    num_planned: int
    """Trials that the rater was to see, with anchors and repeats."""


def read_answers(paths: Sequence[Path], key: Key) -> list[Answers]:
    """Reads files of answers, in the order of the raters' names whatever that of the files.

    Raises:
        UserError: files that are none, of another study, of a rater who is not in it, of one rater twice, or that
            hold an answer twice or one that the study does not have. All are named.
    """
    files, problems = [], []
    for path in paths:
        try:
            files.append((path, _read(path, key)))
        except UserError as error:
            problems.append(str(error))
    problems += _twice(files)
    if problems:
        raise UserError("\n  ".join(["answers that cannot be scored, nothing was", *problems]))
    return sorted((answers for _, answers in files), key=lambda answers: answers.rater)


def _twice(files: Iterable[tuple[Path, Answers]]) -> Iterator[str]:
    by_rater: dict[str, list[str]] = {}
    for path, answers in files:
        by_rater.setdefault(answers.rater, []).append(str(path))
    for rater, paths in by_rater.items():
        if len(paths) > 1:
            yield f"rater {rater!r} answered in {' and in '.join(paths)}; keep the one that is right"


def _read(path: Path, key: Key) -> Answers:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        study, rater = told["study"], str(told["rater"])
        answers = tuple(_answered(entry) for entry in told["answers"])
        num_planned = int(told["planned"])
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is no file of answers ({error!r}); send what the page's button downloads") from error
    if study != key.study:
        raise UserError(f"{path} is of another study ({str(study)[:12]}, not {key.study[:12]}); give its own key")
    if key.raters and rater not in key.raters:
        raise UserError(f"{path}: rater {rater!r} is not in the study; known are {', '.join(key.raters)}")
    for problem in _problems(answers, key):
        raise UserError(f"{path}: {problem}")
    return Answers(rater, answers, num_planned)


def _answered(entry: Mapping[str, Any]) -> Answered:
    choices = {question: None if choice is None else str(choice) for question, choice in entry["choices"].items()}
    return Answered(str(entry["trial"]), bool(entry["repeat"]), tuple(map(str, entry["shown"])), choices)


def _problems(answers: Iterable[Answered], key: Key) -> Iterator[str]:
    seen = set()
    for answer in answers:
        name = f"trial {answer.trial}{', repeated' if answer.is_repeat else ''}"
        if (answer.trial, answer.is_repeat) in seen:
            yield f"{name} is answered twice; ask the rater which holds and remove the other"
        seen.add((answer.trial, answer.is_repeat))
        trial = key.trials.get(answer.trial)
        if trial is None or sorted(answer.shown) != sorted(trial.videos):
            yield f"{name} does not show what the study shows; the file was changed"
        if unknown := sorted(set(answer.choices) - set(key.questions)):
            yield f"{name}: the study does not ask {', '.join(unknown)}; the file was changed"
        if not set(answer.choices.values()) <= {None, *answer.shown}:
            yield f"{name}: a choice is none of the videos shown; the file was changed"
