"""Step `split`: sources are cut into clips at shot boundaries."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from omnihuman.config.schema.split import Split
from omnihuman.data.manifest import CLIPS, SOURCES_TABLE, read_table, source_path, write_table
from omnihuman.data.spans import read_spans
from omnihuman.media.shots import Shot, cut_shot, find_shots
from omnihuman.media.worker import Limits, RunGuarded, run_guarded


def split(config: Split, sources: Path, clips: Path, run: RunGuarded = run_guarded) -> None:
    """Cuts all sources into clips and writes the table `CLIPS`.

    A source that cannot be cut, and a shot that is too short, become one row each that says why.
    """
    table = read_table(sources / SOURCES_TABLE)
    rows_of_source = {row["source_id"]: row for row in table.to_dict("records")}
    usable = [row for row in rows_of_source.values() if row["status"] == "ok"]
    limits = Limits(config.deadline_seconds, config.memory_megabytes)
    spans = read_spans(sources)
    paths = list(dict.fromkeys(source_path(sources, row["path"]) for row in usable))  # a file may be several sources
    outcomes = dict(zip(paths, run(partial(find_shots, config), paths, limits, "split"), strict=True))
    cut = {}
    for row in usable:
        outcome, span = outcomes[source_path(sources, row["path"])], spans.get(row["source_id"])
        if outcome.value is None:
            cut[row["source_id"]] = [_row(row, Shot(0.0, 0.0), outcome.status, outcome.error)]
            continue
        shots = outcome.value if span is None else _within(outcome.value, *span)
        parts = [clip for shot in shots for clip in cut_shot(config, shot)]
        cut[row["source_id"]] = [_clip_row(config, row, clip, spanned=span is not None) for clip in parts]
    rows = []
    for source_id, source in rows_of_source.items():
        own = cut.get(source_id) or [_row(source, Shot(0.0, 0.0), source["status"], source["error"])]
        rows += [{**row, "index": index} for index, row in enumerate(own)]
    write_table(rows, CLIPS, clips)


def _within(shots: list[Shot], start: float, end: float) -> list[Shot]:
    """The parts of shots in a span of the source, in seconds; nothing of them lies outside."""
    cut = [Shot(max(shot.start_seconds, start), min(shot.end_seconds, end)) for shot in shots]
    return [shot for shot in cut if shot.start_seconds < shot.end_seconds]


def _clip_row(config: Split, source: dict[str, Any], clip: Shot, *, spanned: bool) -> dict[str, Any]:
    length = clip.end_seconds - clip.start_seconds
    if length >= config.min_clip_seconds:
        return _row(source, clip, "ok", "", spanned=spanned)
    error = f"lasts {length:.2f} s, shorter than {config.min_clip_seconds:g} s"
    return _row(source, clip, "error", error, spanned=spanned)


def _row(source: dict[str, Any], clip: Shot, status: str, error: str, *, spanned: bool = False) -> dict[str, Any]:
    start, end = round(clip.start_seconds, 6), round(clip.end_seconds, 6)
    key = f"{source['sha256'] or source['source_id']} {start:.3f} {end:.3f}"
    if spanned:  # spans may overlap and be about different people
        key = f"{key} {source['source_id']}"
    return {
        "clip_id": hashlib.sha256(key.encode()).hexdigest()[:16],
        "source_id": source["source_id"],
        "start_seconds": start,
        "end_seconds": end,
        "status": status,
        "error": error,
    }
