"""From scores to eligibility per modality: pure, so that a changed threshold never decodes a video.

Rules of modality `base` bind every modality; those of `audio` and `pose` bind theirs on top, so that what may train
sound or pose is always a part of what may train text and reference. A score with status `error` or `timeout` never
passes a rule. A score with status `na` (the measurement does not apply) fails a rule of `audio` or `pose`, because
there is nothing that could be trained, and passes a rule of `base`, because nothing speaks against the clip.
"""

from dataclasses import asdict, dataclass
from difflib import get_close_matches

import numpy as np
import pandas as pd
import pyarrow as pa

from omnihuman.config.schema.decide import Decide, Rule
from omnihuman.data.manifest import DECISIONS
from omnihuman.errors import UserError
from omnihuman.storage.work import content_key

MODALITIES = ("text", "reference", "audio", "pose")
BINDING = {"text": ("base",), "reference": ("base",), "audio": ("base", "audio"), "pose": ("base", "pose")}
"""Which rules' modalities bind a condition."""
UNUSABLE = "clip_status"
"""Stands as first failure where a clip itself has no status `ok`, whatever the rules."""
NO_VALUE_MARGIN = -1.0
STATUSES = ("ok", "na", "error", "timeout")
_OK, _NA, _ERROR, _ = range(len(STATUSES))


@dataclass(frozen=True)
class Verdicts:
    """What every rule says of every clip; rows are clips, columns rules in the policy's order."""

    clip_ids: np.ndarray  # text [clips]
    rules: dict[str, Rule]
    passes: np.ndarray  # bool [clips, rules]
    margins: np.ndarray  # float64 [clips, rules], NaN where a rule does not apply
    stand_in: np.ndarray  # bool [clips, rules], the score comes from a fallback
    values: np.ndarray  # float64 [clips, rules]
    statuses: np.ndarray  # int8 [clips, rules], positions in `STATUSES`
    usable: np.ndarray  # bool [clips]

    def fails(self, modality: str) -> np.ndarray:
        """Bool [clips, 1 + rules]: the clip cannot be used, and which rules that bind the condition it fails."""
        bound = np.isin(np.arange(len(self.rules)), binding_rules(self, modality))
        return np.column_stack([~self.usable, ~self.passes & bound])


def policy_hash(policy: Decide) -> str:
    """Hash of the rules and their order."""
    return content_key(rules=[[name, asdict(rule)] for name, rule in policy.rules.items()])


def judge(clips: pd.DataFrame, scores: pd.DataFrame, policy: Decide) -> Verdicts:
    """Applies every rule to every clip.

    Args:
        scores: long table; columns of text may be categorical, which saves most of the time and memory.

    Raises:
        UserError: a rule names a scorer that is not in the scores.
    """
    scorers = scores["scorer"].astype("category").cat
    check_scorers(policy, sorted(scores["scorer"].unique()))
    rules = list(policy.rules.values())
    cells = _Cells(
        (len(clips), len(scorers.categories)),
        _positions(scores["clip_id"], clips["clip_id"].tolist()),
        scorers.codes.to_numpy(),
        [scorers.categories.get_loc(rule.scorer) for rule in rules] if len(scores) else [],
    )
    values = cells.fill(scores["value"].to_numpy(np.float64), np.nan, len(rules))
    # A score that is missing was not measured.
    statuses = cells.fill(_positions(scores["status"], STATUSES).astype(np.int8), _ERROR, len(rules))
    stand_in = cells.fill(_positions(scores["implementation"], ["fallback"]) == 0, False, len(rules))
    low, high = _bounds(rules)
    margins = np.fmin((values - low) / _scale(low), (high - values) / _scale(high))
    return Verdicts(
        clip_ids=clips["clip_id"].to_numpy(object),
        rules=policy.rules,
        passes=passing(values, statuses, rules),
        margins=np.where(statuses == _OK, margins, np.where(_harmless(statuses, rules), np.nan, NO_VALUE_MARGIN)),
        stand_in=stand_in,
        values=values,
        statuses=statuses,
        usable=(clips["status"] == "ok").to_numpy(bool),
    )


def passing(values: np.ndarray, statuses: np.ndarray, rules: list[Rule]) -> np.ndarray:
    """Bool [clips, rules]: what each rule says of its column of values and statuses."""
    low, high = _bounds(rules)
    inside = (np.isnan(low) | (values >= low)) & (np.isnan(high) | (values <= high))
    return ((statuses == _OK) & inside) | _harmless(statuses, rules)


def decide_all(verdicts: Verdicts, policy: Decide) -> pa.Table:
    """The table DECISIONS: four rows per clip, in the order of the clips and of `MODALITIES`."""
    parts = [_modality(verdicts, modality) for modality in MODALITIES]
    num_clips, num_modalities = len(verdicts.clip_ids), len(MODALITIES)
    fails = np.stack([part.fails for part in parts], axis=1).reshape(
        num_clips * num_modalities, 1 + len(verdicts.rules)
    )
    names = pa.array([UNUSABLE, *verdicts.rules], pa.string())
    rows, columns = np.nonzero(fails)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(fails)))])
    all_fails = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), names.take(pa.array(columns)))
    failed = fails.any(axis=1)
    first = pa.array(fails.argmax(axis=1), mask=~failed)
    columns_of = {
        "clip_id": pa.array(verdicts.clip_ids, pa.string()).take(pa.array(np.arange(len(fails)) // num_modalities)),
        "modality": pa.array(MODALITIES).take(pa.array(np.arange(len(fails)) % num_modalities)),
        "eligible": pa.array(~failed),
        "provisional": pa.array(np.stack([part.provisional for part in parts], axis=1).ravel()),
        "first_fail": names.take(first).fill_null(""),
        "all_fails": all_fails,
        "margin": pa.array(np.stack([part.margin for part in parts], axis=1).ravel()),
        "policy_hash": pa.repeat(policy_hash(policy), len(fails)),
    }
    return pa.table(columns_of, schema=DECISIONS)


def check_scorers(policy: Decide, known: list[str]) -> None:
    """Refuses rules on scorers that do not exist; an empty score table is nobody's mistake."""
    for name, rule in policy.rules.items():
        if known and rule.scorer not in known:
            nearest = get_close_matches(rule.scorer, known, 1, 0.0)[0]
            raise UserError(
                f"decide.rules.{name}.scorer is {rule.scorer!r}: no such scorer, did you mean {nearest}?"
                f" There are {', '.join(known)}"
            )


def binding_rules(verdicts: Verdicts, modality: str) -> list[int]:
    """Positions of the rules that bind a condition, in the policy's order."""
    return [i for i, rule in enumerate(verdicts.rules.values()) if rule.modality in BINDING[modality]]


@dataclass(frozen=True)
class _Part:
    """What the rules that bind one condition say of each clip."""

    fails: np.ndarray  # bool [clips, 1 + rules]
    provisional: np.ndarray  # bool [clips]
    margin: np.ndarray  # float64 [clips], the smallest


def _modality(verdicts: Verdicts, modality: str) -> _Part:
    bound = binding_rules(verdicts, modality)
    margins = verdicts.margins[:, bound]
    known = ~np.isnan(margins)
    smallest = np.where(known, margins, np.inf).min(axis=1, initial=np.inf)
    return _Part(
        verdicts.fails(modality),
        np.any(verdicts.stand_in[:, bound] & known, axis=1),
        np.where(verdicts.usable & known.any(axis=1), smallest, np.nan),
    )


@dataclass(frozen=True)
class _Cells:
    """Where each row of a long table lies in a matrix of clips and scorers, and which scorer each rule looks at."""

    shape: tuple[int, int]
    rows: np.ndarray  # int [scores], negative where the clip is not known
    columns: np.ndarray  # int [scores]
    rule_columns: list[int]

    def fill(self, column: np.ndarray, missing: float, num_rules: int) -> np.ndarray:
        """One column of the long table as [clips, rules]."""
        wide = np.full(self.shape, missing, column.dtype)
        known = self.rows >= 0
        wide[self.rows[known], self.columns[known]] = column[known]
        return wide[:, self.rule_columns] if self.rule_columns else np.full((self.shape[0], num_rules), missing)


def _positions(column: pd.Series, names: list[str] | tuple[str, ...]) -> np.ndarray:
    """Position of each text among the names, -1 for none of them."""
    texts = column.astype("category").cat
    of_category = pd.Index(names).get_indexer(texts.categories)
    return of_category[texts.codes.to_numpy()] if len(of_category) else np.full(len(column), -1)


def _harmless(statuses: np.ndarray, rules: list[Rule]) -> np.ndarray:
    """Bool [clips, rules]: the measurement does not apply, and a rule of the base does not mind."""
    return (statuses == _NA) & np.array([rule.modality == "base" for rule in rules], bool)


def _bounds(rules: list[Rule]) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest values, float64 [rules], NaN where a bound does not bind."""
    low = np.array([rule.at_least for rule in rules], dtype=np.float64)
    return low, np.array([rule.at_most for rule in rules], dtype=np.float64)


def _scale(bound: np.ndarray) -> np.ndarray:
    """Margins are relative to the bound, and absolute where that is 0."""
    return np.where(bound == 0, 1.0, np.abs(bound))
