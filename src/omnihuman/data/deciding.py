"""The step `decide`: eligibility of every clip, with the funnel as metrics and as a page."""

import json
from pathlib import Path

import pandas as pd

from omnihuman.config.schema.decide import Decide
from omnihuman.data.eligibility import MODALITIES, UNUSABLE, decide_all, judge
from omnihuman.data.manifest import DECISIONS, read_table, write_table
from omnihuman.data.report import render_page
from omnihuman.storage.files import publish


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
    clip_table, score_table = read_table(clips), read_table(scores)
    source_table = read_table(sources / "sources.parquet")
    rows = decide_all(clip_table, score_table, config)
    funnel = count_funnel(source_table, clip_table, score_table, pd.DataFrame(rows, columns=DECISIONS.names), config)
    with publish(page) as temporary:
        temporary.write_text(
            render_page(source_table, clip_table, score_table, rows, judge(clip_table, score_table, config), funnel),
            encoding="utf-8",
        )
    with publish(metrics) as temporary:
        temporary.write_text(json.dumps(funnel, indent=2) + "\n", encoding="utf-8")
    write_table(rows, DECISIONS, decisions)


def count_funnel(
    sources: pd.DataFrame, clips: pd.DataFrame, scores: pd.DataFrame, decisions: pd.DataFrame, policy: Decide
) -> dict[str, float | int]:
    """Flat numbers for `dvc metrics`, in the order of the chain."""
    hours = (clips["end_seconds"] - clips["start_seconds"]) / 3600
    usable = clips["status"] == "ok"
    funnel: dict[str, float | int] = {
        "sources": len(sources),
        "sources_usable": int((sources["status"] == "ok").sum()),
        "clips": len(clips),
        "clips_usable": int(usable.sum()),
        "hours": round(float(hours[usable].sum()), 6),
    }
    hours_of = dict(zip(clips["clip_id"], hours, strict=True))
    for modality in MODALITIES:
        eligible = decisions[(decisions["modality"] == modality) & decisions["eligible"].astype(bool)]
        funnel[f"clips_{modality}"] = len(eligible)
        funnel[f"hours_{modality}"] = round(float(sum(hours_of[clip_id] for clip_id in eligible["clip_id"])), 6)
    for modality in ("text", "audio", "pose"):
        own = decisions[decisions["modality"] == modality]
        binding = "base" if modality == "text" else modality
        names = [name for name, rule in policy.rules.items() if rule.modality == binding]
        for name in ([UNUSABLE] if modality == "text" else []) + names:
            funnel[f"first_fail_{binding}_{name}"] = int((own["first_fail"] == name).sum())
    for status in ("error", "timeout"):
        funnel[f"clips_{status}"] = int((clips["status"] == status).sum())
        funnel[f"scores_{status}"] = int((scores["status"] == status).sum())
    return funnel
