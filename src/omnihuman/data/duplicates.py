"""Step `duplicates`: copies of one take are found among all clips, and counted as scores on which rules may rest."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from omnihuman.data.copies import groups
from omnihuman.data.fingerprints import Fingerprint
from omnihuman.data.manifest import SCORES, SOURCES_TABLE, read_table, write_table
from omnihuman.storage.files import publish
from omnihuman.storage.work import code_key

NAMES = ("copy_number", "held_out_copy")
"""0 for the clip of a take that comes first, 1, 2 ... for its copies; and 1 for a training clip of a held-out take."""
REPORTED = ("group", "copy_number", "split", "identity", "path", "start_seconds", "end_seconds", "clip_id")

log = logging.getLogger(__name__)


def duplicates(sources: Path, clips: Path, strips: Path, scores: Path, report: Path) -> None:
    """Groups the clips by take, and names takes that stand under several identities.

    Args:
        sources: folder with sources.parquet.
        strips: of the step `score`, with fingerprints.
        scores: output, Parquet: rows as of the table of scores.
        report: output, CSV: the clips of all takes that several clips show.
    """
    columns = ["source_id", "path", "identity", "split", "width", "height"]
    table = read_table(clips).merge(read_table(sources / SOURCES_TABLE)[columns], on="source_id", how="left")
    table = table.merge(read_table(strips, ("clip_id", "fingerprint")), on="clip_id", how="left")
    known = numbered(table[table["fingerprint"].notna()])
    takes = known[known.groupby("group")["group"].transform("size") > 1].sort_values(["group", "copy_number"])
    with publish(report) as temporary:
        takes[list(REPORTED)].to_csv(temporary, index=False)
    _warn(takes)
    write_table(_rows(table, known), SCORES, scores)


def numbered(table: pd.DataFrame) -> pd.DataFrame:
    """Clips with fingerprints, with the columns group, copy_number and held_out_copy.

    Of a take the held-out clips come first, because what is trained gives way; then the largest picture.
    """
    prints = [Fingerprint.from_bytes(content) for content in table["fingerprint"]]
    table = table.drop(columns="fingerprint").assign(group=groups(prints, table["source_id"].tolist()))
    order = table.assign(trained=table["split"] != "test", pixels=-table["width"] * table["height"])
    order = order.sort_values(["group", "trained", "pixels"], kind="stable")
    held_out = (table["split"] == "test").groupby(table["group"]).transform("any") & (table["split"] != "test")
    return table.assign(copy_number=order.groupby("group").cumcount(), held_out_copy=held_out.astype(int))


def _warn(takes: pd.DataFrame) -> None:
    names = takes.groupby("group")["identity"].unique().map(lambda some: " and ".join(sorted(some)))
    for who, number in names[names.str.contains(" and ")].value_counts().items():
        log.warning("%d takes stand under the identities %s: the same person, or a mistake?", number, who)


def _rows(table: pd.DataFrame, known: pd.DataFrame) -> list[dict[str, Any]]:
    found = known.set_index("clip_id")[list(NAMES)].to_dict("index")
    common = {"implementation": "fallback", "version": "1", "params_hash": code_key("data/copies.py")[:32]}
    rows = []
    for clip_id in table["clip_id"]:
        for name in NAMES:
            own = {"value": float("nan"), "status": "error", "error": "the clip has no fingerprint", "num_samples": 0}
            if clip_id in found:
                own = {"value": float(found[clip_id][name]), "status": "ok", "error": "", "num_samples": 1}
            rows.append({"clip_id": clip_id, "scorer": name, **common, **own})
    return rows
