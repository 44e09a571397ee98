"""The step `decide`: eligibility of every clip, with the funnel as metrics and as a page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from omnihuman.config.schema.decide import Decide
from omnihuman.data.eligibility import MODALITIES, UNUSABLE, Verdicts, decide_all, judge
from omnihuman.data.manifest import DECISIONS, read_table, write_table
from omnihuman.data.report import render_page
from omnihuman.storage.files import publish

SCORE_COLUMNS = ("clip_id", "scorer", "implementation", "value", "status", "error")
"""What is asked of the score table, which may have tens of millions of rows."""


def decide(
    config: Decide, sources: Path, clips: Path, scores: Path, decisions: Path, page: Path, metrics: Path
) -> None:
    """Applies the policy to the scores; nothing is decoded.

    Args:
        sources: folder with sources.parquet.
        clips, scores: Parquet files of the steps before.
        decisions: output, Parquet: four rows per clip.
        page: output, one self-contained HTML file that says of every clip what it may train, or why not.
        metrics: output, JSON of flat numbers.

    Raises:
        UserError: a rule names a scorer that does not exist.
    """
    clip_table, score_table = read_table(clips), read_table(scores, SCORE_COLUMNS)
    source_table = read_table(sources / "sources.parquet")
    verdicts = judge(clip_table, score_table, config)
    table = decide_all(verdicts, config)
    funnel = count_funnel(source_table, clip_table, score_table, verdicts)
    with publish(page) as temporary:
        temporary.write_text(
            render_page(source_table, clip_table, score_table, table, verdicts, funnel), encoding="utf-8"
        )
    with publish(metrics) as temporary:
        temporary.write_text(json.dumps(funnel, indent=2) + "\n", encoding="utf-8")
    write_table(table, DECISIONS, decisions)


def count_funnel(
    sources: pd.DataFrame, clips: pd.DataFrame, scores: pd.DataFrame, verdicts: Verdicts
) -> dict[str, float | int]:
    """Flat numbers for `dvc metrics`, in the order of the chain."""
    hours = ((clips["end_seconds"] - clips["start_seconds"]) / 3600).to_numpy()
    funnel: dict[str, float | int] = {
        "sources": len(sources),
        "sources_usable": int((sources["status"] == "ok").sum()),
        "clips": len(clips),
        "clips_usable": int(verdicts.usable.sum()),
        "hours": round(float(hours[verdicts.usable].sum()), 6),
    }
    fails = {modality: verdicts.fails(modality) for modality in MODALITIES}
    for modality, failed in fails.items():
        eligible = ~failed.any(axis=1)
        funnel[f"clips_{modality}"] = int(eligible.sum())
        funnel[f"hours_{modality}"] = round(float(hours[eligible].sum()), 6)
    for modality in ("text", "audio", "pose"):
        binding = "base" if modality == "text" else modality
        first = np.bincount(
            fails[modality].argmax(axis=1)[fails[modality].any(axis=1)], minlength=1 + len(verdicts.rules)
        )
        counts = dict(zip([UNUSABLE, *verdicts.rules], first.tolist(), strict=True))
        names = [name for name, rule in verdicts.rules.items() if rule.modality == binding]
        for name in ([UNUSABLE] if modality == "text" else []) + names:
            funnel[f"first_fail_{binding}_{name}"] = counts[name]
    for status in ("error", "timeout"):
        funnel[f"clips_{status}"] = int((clips["status"] == status).sum())
        funnel[f"scores_{status}"] = int((scores["status"] == status).sum())
    return funnel
