"""Blind studies: videos of systems that differ visibly, keys, and files of answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from omnihuman.batch import Sound
from omnihuman.evaluation.study.description import Description
from omnihuman.evaluation.study.key import Key, Trial
from omnihuman.evaluation.study.plan import plan
from omnihuman.media.write import write_video

FPS = 25.0
Choose = Callable[[Trial, str], str | None]
"""(trial, question) to the name of a system, or None for an abstention."""


def write_clip(
    path: Path, colour: int, num_frames: int = 15, size: tuple[int, int] = (96, 64), sound: bool = True
) -> None:
    """A grid that moves over a colour, with a tone; `size` is height and width."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frames = (
        np.stack([np.full(size, colour), ((rows // 4 + (columns + index) // 4) % 2) * 200, columns % 256], axis=-1)
        for index in range(num_frames)
    )
    tone = (0.1 * np.sin(np.arange(round(num_frames / FPS * 16000)) / 9)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (frame.astype(np.uint8) for frame in frames), FPS, Sound(tone, 16000) if sound else None)


def write_systems(folder: Path, systems: tuple[str, ...], items: tuple[str, ...]) -> dict[str, str]:
    """A folder of videos a system."""
    for number, system in enumerate(systems):
        for item in items:
            write_clip(folder / system / f"{item}.mp4", 40 + 200 * number // len(systems))
    return {system: str(folder / system) for system in systems}


def make_key(systems: tuple[str, ...], num_items: int, **settings: Any) -> Key:
    """The key of a study whose videos were never written."""
    description = Description(systems=dict.fromkeys(systems, ""), **{"repeats": 1, "anchors": 2, **settings})
    videos, trials = plan(description, [f"item {index}" for index in range(num_items)], "secret")
    plain = sum(not trial.is_anchor for trial in trials.values())
    return Key(
        "5" * 64, "secret", "Title", systems, description.questions, description.raters,
        description.trials_per_rater or plain, description.rules, videos, trials,
    )  # fmt: skip


def answers(key: Key, rater: str, choose: Choose, **changes: Any) -> dict[str, Any]:
    """What the page would download for a rater who answers everything as `choose` says."""

    def entry(name: str, trial: Trial, repeat: bool) -> dict[str, Any]:
        by_system = {key.videos[video].system: video for video in trial.videos}
        chosen = {question: choose(trial, question) for question in key.questions}
        choices = {question: system and by_system[system] for question, system in chosen.items()}
        return {"trial": name, "repeat": repeat, "shown": list(trial.videos), "choices": choices}

    entries = [entry(name, trial, False) for name, trial in key.trials.items()]
    first = next(name for name, trial in key.trials.items() if not trial.is_anchor)
    entries.append(entry(first, key.trials[first], True))
    return {"study": key.study, "rater": rater, "planned": len(entries), "answers": entries, **changes}


def write_answers(folder: Path, key: Key, rater: str, choose: Choose, **changes: Any) -> Path:
    """The file of it."""
    path = folder / f"answers-{rater}.json"
    path.write_text(json.dumps(answers(key, rater, choose, **changes)), encoding="utf-8")
    return path


def careful(key: Key, choose: Choose) -> Choose:
    """As `choose`, but for anchors a system whose video is not damaged."""

    def chosen(trial: Trial, question: str) -> str | None:
        if not trial.is_anchor:
            return choose(trial, question)
        return next(key.videos[name].system for name in trial.videos if not key.videos[name].is_damaged)

    return chosen


def random_choice(seed: int, weights: dict[str, float]) -> Choose:
    """Luce's axiom: chosen by weight among those shown in the trial's item."""
    random = np.random.default_rng(seed)
    names, shares = list(weights), np.array(list(weights.values()))
    return lambda trial, question: str(random.choice(names, p=shares / shares.sum()))
