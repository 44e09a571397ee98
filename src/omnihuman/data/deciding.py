"""The step `decide`: eligibility of every clip, with the funnel as metrics and as a page."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from omnihuman.config.schema.decide import Decide
from omnihuman.data.eligibility import MODALITIES, UNUSABLE, Verdicts, decide_all, judge
from omnihuman.data.manifest import DECISIONS, SOURCES_TABLE, read_table, write_table
from omnihuman.data.report import Contents, render_page
from omnihuman.data.rule_report import RuleReport, report_rules
from omnihuman.data.slices import Slice, slices
from omnihuman.storage.files import publish, publish_folder

SCORE_COLUMNS = ("clip_id", "scorer", "implementation", "value", "status", "error")
"""What is asked of the score table, which may have tens of millions of rows."""


@dataclass(frozen=True)
class Tables:
    """What the steps before have written."""

    sources: Path  # folder
    clips: Path
    scores: Path
    strips: Path
    duplicates: Path | None = None
    """Scores that come of all clips together."""


def decide(config: Decide, tables: Tables, decisions: Path, page: Path, metrics: Path, plots: Path) -> None:
    """Applies the policy to the scores; nothing is decoded.

    Args:
        decisions: output, Parquet: four rows per clip.
        page: output, one self-contained HTML file that says of every clip what it may train, or why not.
        metrics: output, JSON of flat numbers.
        plots: output, folder of CSV tables with the same figures.

    Raises:
        UserError: a rule names a scorer that does not exist.
    """
    contents = contents_of(config, tables)
    write_page(contents, page)
    with publish(metrics) as temporary:
        temporary.write_text(json.dumps(contents.funnel, indent=2) + "\n", encoding="utf-8")
    with publish_folder(plots) as folder:
        _write_plots(folder, contents.funnel, contents.rules, contents.slices)
    write_table(contents.decisions, DECISIONS, decisions)


def contents_of(config: Decide, tables: Tables) -> Contents:
    """What a policy decides and why; arguments and errors as for `decide`."""
    clips, scores = read_table(tables.clips), _scores(tables)
    sources = read_table(tables.sources / SOURCES_TABLE)
    verdicts = judge(clips, scores, config)
    funnel = count_funnel(sources, clips, scores, verdicts)
    names = {source: PurePath(path).name for source, path in zip(sources["source_id"], sources["path"], strict=True)}
    rules = report_rules(verdicts, funnel, clips, names, tables.strips)
    parts = slices(sources, clips, scores, verdicts)
    return Contents(names, clips, scores, decide_all(verdicts, config), verdicts, funnel, rules, parts)


def write_page(contents: Contents, page: Path) -> None:
    """Publishes the report as one self-contained HTML file."""
    with publish(page) as temporary:
        temporary.write_text(render_page(contents), encoding="utf-8")


def _scores(tables: Tables) -> pd.DataFrame:
    """All scores; texts stay categories, which is most of what makes this quick."""
    measured = read_table(tables.scores, SCORE_COLUMNS)
    if tables.duplicates is None:
        return measured
    parts = (measured, read_table(tables.duplicates, SCORE_COLUMNS))
    texts = [name for name in SCORE_COLUMNS if name != "value"]
    joined = {name: union_categoricals([part[name] for part in parts]) for name in texts}
    return pd.DataFrame({**joined, "value": np.concatenate([part["value"] for part in parts])})[list(SCORE_COLUMNS)]


def _write_plots(folder: Path, funnel: dict[str, float | int], rules: list[RuleReport], parts: list[Slice]) -> None:
    """Tables for `dvc plots`."""
    stages = [("can be used", funnel["clips_usable"], funnel["hours"])]
    stages += [(modality, funnel[f"clips_{modality}"], funnel[f"hours_{modality}"]) for modality in MODALITIES]
    pd.DataFrame(stages, columns=["fit for", "clips", "hours"]).to_csv(folder / "funnel.csv", index=False)
    counts = ["name", "modality", "first", "all", "alone", "stricter", "looser"]
    pd.DataFrame([asdict(rule) for rule in rules], columns=counts).to_csv(folder / "rules.csv", index=False)
    rows = [{"kind": part.kind, "name": part.name, "clips": part.clips, **part.eligible} for part in parts]
    pd.DataFrame(rows, columns=["kind", "name", "clips", *MODALITIES]).to_csv(folder / "slices.csv", index=False)


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
