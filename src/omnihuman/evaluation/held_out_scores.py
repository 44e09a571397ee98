"""The metrics of the step `evaluate`, on held-out clips driven by sound, by pose, and by long speech."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from omnihuman.evaluation.drift import WINDOW_SECONDS
from omnihuman.evaluation.held_out import GeneratedClip
from omnihuman.evaluation.metrics.measure import Figure, Shown
from omnihuman.evaluation.results import write_items
from omnihuman.evaluation.scoring import Pair, Scores

METRICS, ITEMS, OVER_TIME = "metrics.json", "items.csv", "over_time.csv"
ITEM_COLUMNS = ("item", "person", "metric", "value")
"""Metrics are named by what drives: `sound/flicker`, `pose/akd`, `long/drift_colour`."""


def pairs_of(clips: Iterable[GeneratedClip], fps: float) -> Iterator[Pair]:
    """Generated clips as metrics see videos."""
    for clip in clips:
        posed = clip.item.pose_start is not None
        points = clip.reference_keypoints
        generated = Shown(
            item=clip.item.clip_id,
            person=clip.item.identity,
            fps=fps,
            frames=_pixels(clip.video),
            sound=clip.sound(fps).astype(np.float32) if len(clip.item.clip.sound) else None,
            reference=_pixels(clip.reference),
            driving=clip.keypoints if posed else None,
            reference_points=points if points[:, 2].any() else None,
        )
        yield Pair(generated, replace(generated, frames=_pixels(clip.real)))


def write_scores(sets: dict[str, Scores], folder: Path) -> None:
    """Writes metrics.json, nested numbers for `dvc metrics`, items.csv and over_time.csv.

    Args:
        sets: by what drives; a figure that applies to no video of its set is left out.
    """
    told = {name: figures for name, scores in sets.items() if (figures := _figures(scores))}
    (folder / METRICS).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    write_items(folder / ITEMS, _rows(sets), ITEM_COLUMNS)
    curves = {
        f"{name}/{metric}": curve for name, scores in sets.items() for metric, curve in scores.curves.items() if curve
    }
    pd.DataFrame(_windows(curves), columns=["metric", "seconds", "value"]).to_csv(folder / OVER_TIME, index=False)


def values(metrics: Path) -> dict[str, Any]:
    """The figures of metrics.json without their intervals, for MLflow: `metric/sound/flicker`."""
    told = json.loads(metrics.read_text(encoding="utf-8"))
    return {"metric": {name: {m: figure["value"] for m, figure in of.items()} for name, of in told.items()}}


def _figures(scores: Scores) -> dict[str, Any]:
    """Of metrics that apply to some video."""
    return {figure.metric: _told(figure) for figure in scores.figures if figure.estimate.num_clips}


def _told(figure: Figure) -> dict[str, Any]:
    estimate = figure.estimate
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "floor": figure.floor}
    known = {name: None if value is None or math.isnan(value) else value for name, value in numbers.items()}
    return {**known, "num_videos": estimate.num_clips}


def _rows(sets: dict[str, Scores]) -> Iterator[dict[str, Any]]:
    for name, scores in sets.items():
        for figure in scores.figures:
            for item, value in (figure.items or {}).items():
                person = scores.people[item]
                yield {"item": item, "person": person, "metric": f"{name}/{figure.metric}", "value": value}


def _windows(curves: dict[str, dict[str, list[float]]]) -> Iterator[tuple[str, float, float]]:
    """The mean over videos, as far as the shortest reaches, at the middle of each window."""
    for metric, by_item in curves.items():
        length = min(map(len, by_item.values()))
        for index, value in enumerate(np.mean([curve[:length] for curve in by_item.values()], axis=0)):
            yield metric, (index + 0.5) * WINDOW_SECONDS, float(value)


def _pixels(video: np.ndarray) -> np.ndarray:
    """Of floats in 0..1, uint8."""
    return (video * 255).round().clip(0, 255).astype(np.uint8)
