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

from omnihuman.config.schema.decide import Decide, Rule
from omnihuman.errors import UserError
from omnihuman.storage.work import content_key

MODALITIES = ("text", "reference", "audio", "pose")
BINDING = {"text": ("base",), "reference": ("base",), "audio": ("base", "audio"), "pose": ("base", "pose")}
"""Which rules' modalities bind a condition."""
UNUSABLE = "clip_status"
"""Stands as first failure where a clip itself has no status `ok`, whatever the rules."""
NO_VALUE_MARGIN = -1.0


@dataclass(frozen=True)
class Verdicts:
    """What every rule says of every clip; rows are clips, columns rules in the policy's order."""

    clip_ids: list[str]
    rules: dict[str, Rule]
    passes: np.ndarray  # bool [clips, rules]
    margins: np.ndarray  # float64 [clips, rules], NaN where a rule does not apply
    stand_in: np.ndarray  # bool [clips, rules], the score comes from a fallback
    values: np.ndarray  # float64 [clips, rules]
    statuses: np.ndarray  # text [clips, rules]
    usable: np.ndarray  # bool [clips]


def policy_hash(policy: Decide) -> str:
    """Hash of the rules and their order."""
    return content_key(rules=[[name, asdict(rule)] for name, rule in policy.rules.items()])


def judge(clips: pd.DataFrame, scores: pd.DataFrame, policy: Decide) -> Verdicts:
    """Applies every rule to every clip.

    Raises:
        UserError: a rule names a scorer that is not in the scores.
    """
    check_scorers(policy, sorted(set(scores["scorer"])))
    clip_ids = clips["clip_id"].tolist()
    columns = [rule.scorer for rule in policy.rules.values()]
    values, statuses, implementations = (
        _matrix(scores, column, clip_ids, columns) for column in ("value", "status", "implementation")
    )
    values = values.astype(np.float64)
    statuses = np.where(pd.isna(statuses), "error", statuses)  # a score that is missing was not measured
    low, high = (_bounds(policy, side) for side in ("at_least", "at_most"))
    is_base = np.array([rule.modality == "base" for rule in policy.rules.values()], bool)
    measured = statuses == "ok"
    harmless = (statuses == "na") & is_base
    inside = (np.isnan(low) | (values >= low)) & (np.isnan(high) | (values <= high))
    margins = np.fmin((values - low) / _scale(low), (high - values) / _scale(high))
    return Verdicts(
        clip_ids=clip_ids,
        rules=policy.rules,
        passes=(measured & inside) | harmless,
        margins=np.where(measured, margins, np.where(harmless, np.nan, NO_VALUE_MARGIN)),
        stand_in=implementations == "fallback",
        values=values,
        statuses=statuses,
        usable=(clips["status"] == "ok").to_numpy(),
    )


def decide_all(clips: pd.DataFrame, scores: pd.DataFrame, policy: Decide) -> list[dict]:
    """Four rows per clip of the table DECISIONS, in the order of the clips and of `MODALITIES`.

    Raises:
        UserError: a rule names a scorer that is not in the scores.
    """
    verdicts = judge(clips, scores, policy)
    common = {"policy_hash": policy_hash(policy)}
    per_modality = [_rows(verdicts, modality) for modality in MODALITIES]
    return [{**row, **common} for rows in zip(*per_modality, strict=True) for row in rows]


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


def _rows(verdicts: Verdicts, modality: str) -> list[dict]:
    bound = binding_rules(verdicts, modality)
    names = np.array(list(verdicts.rules), dtype=object)[bound]
    passes, margins = verdicts.passes[:, bound], verdicts.margins[:, bound]
    known = ~np.isnan(margins)
    smallest = np.where(known, margins, np.inf).min(axis=1, initial=np.inf)
    provisional = np.any(verdicts.stand_in[:, bound] & known, axis=1)
    rows = []
    for index, clip_id in enumerate(verdicts.clip_ids):
        usable = bool(verdicts.usable[index])
        fails = ([] if usable else [UNUSABLE]) + names[~passes[index]].tolist()
        rows.append(
            {
                "clip_id": clip_id,
                "modality": modality,
                "eligible": not fails,
                "provisional": bool(provisional[index]),
                "first_fail": fails[0] if fails else "",
                "all_fails": fails,
                "margin": float(smallest[index]) if usable and known[index].any() else float("nan"),
            }
        )
    return rows


def _matrix(scores: pd.DataFrame, column: str, clip_ids: list[str], scorers: list[str]) -> np.ndarray:
    """One column of the long table as [clips, rules]."""
    wide = scores.pivot(index="clip_id", columns="scorer", values=column)
    # Several rules may look at one scorer, hence the two steps.
    wide = wide.reindex(index=clip_ids).reindex(columns=sorted(set(scorers)))
    return wide[scorers].to_numpy(dtype=np.float64 if column == "value" else object)


def _bounds(policy: Decide, side: str) -> np.ndarray:
    """float64 [rules], NaN where a bound does not bind."""
    return np.array([getattr(rule, side) for rule in policy.rules.values()], dtype=np.float64)


def _scale(bound: np.ndarray) -> np.ndarray:
    """Margins are relative to the bound, and absolute where that is 0."""
    return np.where(bound == 0, 1.0, np.abs(bound))
