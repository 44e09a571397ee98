"""What each rule of a policy does: whom it refuses, what another threshold would do, clips on both sides of it."""

import base64
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnihuman.config.schema.decide import Rule
from omnihuman.data.eligibility import STATUSES, Verdicts, passing
from omnihuman.data.manifest import check_there
from omnihuman.data.strips import NUM_FRAMES

NUM_EXAMPLES = 4
"""Clips shown on each side of a threshold."""
SENSITIVITY = 0.1
"""Share by which thresholds are moved."""


@dataclass(frozen=True)
class Example:
    """A clip near a threshold."""

    value: str
    name: str  # of its video
    data: str  # JPEG in base64
    aspect: float  # width over height of one frame


@dataclass(frozen=True)
class RuleReport:
    """One rule, counted in clips."""

    name: str
    modality: str
    scorer: str
    bounds: str
    first: int  # refused by this rule before any other
    all: int  # that fail it
    alone: int  # that would be gained without it
    stricter: int  # lost where its thresholds are a tenth stricter
    looser: int  # gained where they are a tenth looser
    refused: list[Example]
    passed: list[Example]


def report_rules(
    verdicts: Verdicts, funnel: dict[str, float | int], clips: pd.DataFrame, names: dict[str, str], strips: Path
) -> list[RuleReport]:
    """One report per rule, in the policy's order.

    Args:
        funnel: with the first failures.
        names: of videos, by source id.
        strips: table of frames of each clip.
    """
    nearest = {name: _nearest(verdicts, index) for index, name in enumerate(verdicts.rules)}
    shown = sorted({row for sides in nearest.values() for side in sides for row in side})
    pictures = _read_strips(strips, [verdicts.clip_ids[row] for row in shown])
    sources: list[str] = clips["source_id"].tolist()

    def examples(rows: list[int], index: int) -> list[Example]:
        found = [(row, pictures[verdicts.clip_ids[row]]) for row in rows if verdicts.clip_ids[row] in pictures]
        return [
            _example(f"{verdicts.values[row, index]:.3g}", names.get(sources[row], sources[row]), picture)
            for row, picture in found
        ]

    reports = []
    for index, (name, rule) in enumerate(verdicts.rules.items()):
        modality = "text" if rule.modality == "base" else rule.modality
        fails = verdicts.fails(modality)
        others = fails.sum(axis=1) - fails[:, 1 + index] == 0
        now, stricter, looser = (
            int((others & _passes(verdicts, index, moved)).sum())
            for moved in (rule, _moved(rule, SENSITIVITY), _moved(rule, -SENSITIVITY))
        )
        reports.append(
            RuleReport(
                name=name,
                modality=rule.modality,
                scorer=rule.scorer,
                bounds=_bounds(rule),
                first=int(funnel[f"first_fail_{rule.modality}_{name}"]),
                all=int((~verdicts.passes[:, index]).sum()),
                alone=int((others & ~verdicts.passes[:, index]).sum()),
                stricter=now - stricter,
                looser=looser - now,
                refused=examples(nearest[name][0], index),
                passed=examples(nearest[name][1], index),
            )
        )
    return reports


def _moved(rule: Rule, share: float) -> Rule:
    """The rule with thresholds that are stricter by a share of their size (of 1 where that is 0), or looser."""
    low, high = rule.at_least, rule.at_most
    return replace(
        rule,
        at_least=None if low is None else low + share * (abs(low) or 1.0),
        at_most=None if high is None else high - share * (abs(high) or 1.0),
    )


def _passes(verdicts: Verdicts, index: int, rule: Rule) -> np.ndarray:
    return passing(verdicts.values[:, [index]], verdicts.statuses[:, [index]], [rule])[:, 0]


def _nearest(verdicts: Verdicts, index: int) -> tuple[list[int], list[int]]:
    """Rows of the clips that the rule just refuses and just lets through, nearest first."""
    margins, passes = verdicts.margins[:, index], verdicts.passes[:, index]
    known = (verdicts.statuses[:, index] == STATUSES.index("ok")) & verdicts.usable
    sides = (np.flatnonzero(known & ~passes), np.flatnonzero(known & passes))
    order = [np.argsort(np.abs(margins[side]), kind="stable")[:NUM_EXAMPLES] for side in sides]
    return sides[0][order[0]].tolist(), sides[1][order[1]].tolist()


def _read_strips(path: Path, clip_ids: list[str]) -> dict[str, bytes]:
    check_there(path)
    table = pq.read_table(path, filters=pc.field("clip_id").isin(pa.array(clip_ids, pa.string())))
    return dict(zip(table["clip_id"].to_pylist(), table["strip"].to_pylist(), strict=True))


def _example(value: str, name: str, strip: bytes) -> Example:
    picture = cv2.imdecode(np.frombuffer(strip, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None, "the step before has written it"
    height, width = picture.shape
    return Example(value, name, base64.b64encode(strip).decode(), width / NUM_FRAMES / height)


def _bounds(rule: Rule) -> str:
    low = [f"at least {rule.at_least:g}"] if rule.at_least is not None else []
    return ", ".join(low + ([f"at most {rule.at_most:g}"] if rule.at_most is not None else []))
