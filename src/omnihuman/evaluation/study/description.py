"""What a study asks, of which videos, and by which rule raters are left out: the YAML file that a person writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omnihuman.config.load import read_yaml
from omnihuman.config.strict import instantiate, unknown_key, validate
from omnihuman.errors import UserError
from omnihuman.evaluation.study.texts import QUESTIONS, TEXTS

MOST_SIDE_BY_SIDE = 9
"""Digits of the keyboard."""


@dataclass(frozen=True)
class Rules:
    """When a rater's answers are left out; figures are given with and without."""

    most_anchors_failed: float = 0.1
    """Share of answers in anchor trials that picked the damaged video; who has a larger one is left out."""
    least_repeats_agreed: float = 0.0
    """Share of repeated questions answered alike; who has a smaller one is left out. 0 leaves nobody out: where systems
    hardly differ a careful rater, too, repeats an answer by chance only."""


@dataclass(frozen=True)
class Description:
    """A blind study. Paths are relative to its file."""

    systems: dict[str, str]
    """Folders of videos by the name of the system; files of one stem are one item."""
    title: str = "Which video is better?"
    language: str = "en"
    """Of the page, by its tag (BCP 47)."""
    texts: dict[str, str] = field(default_factory=dict)
    """What the page says otherwise than `texts.TEXTS`; all of them, where it has no such language."""
    questions: tuple[str, ...] = QUESTIONS
    items: tuple[str, ...] = ()
    """Stems of files; by default all that there are."""
    references: str = ""
    """Folder of the people's pictures, one an item; the question about identity then compares with it."""
    raters: tuple[str, ...] = ()
    """Codes of the raters, if only these may answer; they stand in the page."""
    side_by_side: int = 0
    """Videos in a trial; 0: one of every system. With fewer, every set of that many systems is a trial of each item."""
    trials_per_rater: int = 0
    """Drawn for each rater from all trials, beside anchors and repeats; 0: all."""
    repeats: int = 3
    """Trials that a rater sees a second time, for consistency; the second answers are no votes."""
    anchors: int = 3
    """Trials in which one video was damaged on purpose; they give no votes."""
    fps: float = 25.0
    """To which all videos are brought."""
    crf: int = 18
    """Of H.264, for all videos."""
    letterbox: bool = False
    """Put videos of another shape between bars, instead of refusing them; the bars may tell the system."""
    most_seconds_apart: float = 0.1
    """By which the videos of an item may differ in length; they are cut to the shortest."""
    rules: Rules = Rules()

    @property
    def num_shown(self) -> int:
        """Videos in a trial."""
        return self.side_by_side or len(self.systems)

    def page_texts(self) -> dict[str, str]:
        """All texts of the page, in its language."""
        return {**TEXTS.get(self.language, {}), **self.texts}


def read_description(path: Path) -> Description:
    """Reads and checks a study's file; its paths become absolute.

    Raises:
        UserError: it cannot be read, a key is unknown, or a value cannot be.
    """
    tree = read_yaml(path)
    description = _instantiate(tree, str(path))
    check(description, str(path))
    folder = path.absolute().parent
    return replace(
        description,
        systems={str(name): str(folder / place) for name, place in description.systems.items()},
        references=str(folder / description.references) if description.references else "",
    )


def _instantiate(tree: Mapping[str, Any], where: str) -> Description:
    known = [key.name for key in fields(Description)]
    for key in tree.keys() - set(known):
        raise unknown_key(key, where, known)
    rules = tree.get("rules", {})
    for key in rules.keys() - {key.name for key in fields(Rules)} if isinstance(rules, dict) else ():
        raise unknown_key(key, f"{where}: rules", [key.name for key in fields(Rules)])
    validate(tree, where, Description)
    return instantiate(Description, tree, where)


def check(description: Description, where: str) -> None:
    """Rules across values.

    Raises:
        UserError: a value cannot be; names it and the remedy.
    """
    texts = description.page_texts()
    unknown = sorted(description.texts.keys() - TEXTS["en"].keys())
    missing = sorted(TEXTS["en"].keys() - texts.keys())
    listed = {"questions": description.questions, "items": description.items, "raters": description.raters}
    twice = [name for name, values in listed.items() if len(set(values)) < len(values)]
    counts = {name: getattr(description, name) for name in ("trials_per_rater", "repeats", "anchors")}
    problems = {
        f"systems are {len(description.systems)}; a comparison needs at least two": len(description.systems) < 2,
        f"side_by_side is {description.side_by_side}; give 0, or from 2 to the number of systems, and at most"
        f" {MOST_SIDE_BY_SIDE}, as the keyboard has no more digits": not (
            2 <= description.num_shown <= min(len(description.systems), MOST_SIDE_BY_SIDE)
        ),
        f"questions are {', '.join(description.questions) or 'none'}; known: {', '.join(QUESTIONS)}": not (
            description.questions and set(description.questions) <= set(QUESTIONS)
        ),
        f"{', '.join(twice)}: a value stands there twice": bool(twice),
        f"texts has {', '.join(unknown)}, which no page shows; known: {', '.join(TEXTS['en'])}": bool(unknown),
        f"the language {description.language} is not translated; give texts for {', '.join(missing)}": bool(missing),
        f"{counts}: each must be 0 or more": min(counts.values()) < 0,
        f"fps is {description.fps:g}; give one above 0": description.fps <= 0,
        f"crf is {description.crf}; give one from 0 to 51": not 0 <= description.crf <= 51,
        "rules are shares, from 0 to 1": not (
            0 <= description.rules.most_anchors_failed <= 1 and 0 <= description.rules.least_repeats_agreed <= 1
        ),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise UserError(f"{where}: {problem}")
