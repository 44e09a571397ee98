"""What a source of raw videos lists, before any file is read: paths, spans, and what is said about each."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from omnihuman.data.sidecar import Sidecar
from omnihuman.errors import UserError
from omnihuman.storage.s3_cache import S3Cache

NOTHING_STATED = Sidecar()
STATED = tuple(field.name for field in fields(Sidecar))
SPAN = ("start_seconds", "end_seconds")
TABLE_SUFFIXES = (".parquet", ".csv")
LIST_SUFFIXES = (".txt", *TABLE_SUFFIXES)


@dataclass(frozen=True)
class Entry:
    """One video, or a span of one."""

    path: Path
    root: Path | None = None  # links must not leave it; None where the user named the file itself
    where: str = ""  # for messages, e.g. `clips.csv, row 3`; empty for a file of a folder
    stated: Sidecar = NOTHING_STATED  # comes before the sidecar beside the video
    span: tuple[float, float] | None = None  # seconds


def columns_of(table: Path) -> list[str]:
    """Names of the columns of a table of videos.

    Raises:
        UserError: the file is no such table, or a column is unknown: a mistyped licence must not pass for none.
    """
    names = _read(table).column_names
    known = ("path", *STATED, *SPAN)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{table}: unknown column {unknown[0]!r}; rename or remove it, known are {', '.join(known)}")
    if "path" not in names:
        raise UserError(f"{table}: has no column path; add it, with the path or s3:// address of a video in each row")
    return names


def listed(source: Path, cache: S3Cache) -> list[Entry]:
    """The videos that a list (.txt, one a line) or a table names; what lies on S3 is fetched with its sidecars.

    Relative paths count from the folder of the list.

    Raises:
        UserError: the list cannot be read or names nothing, a cell is wrong, or S3 does not answer.
    """
    rows = _rows_of_list(source) if source.suffix.lower() == ".txt" else _rows_of_table(source)
    entries = [_entry(source, where, row, cache) for where, row in rows]
    kept = [entry for entry in entries if entry is not None]
    if not kept:
        raise UserError(f"{source}: names no video; write a path or an s3:// address in each row")
    return kept


def _rows_of_list(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: cannot be read as text in UTF-8; write one path or s3:// address a line") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{source.name}, row {number}", {"path": line.strip()}


def _rows_of_table(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    columns_of(source)
    for number, row in enumerate(_read(source).to_pylist(), 1):
        yield f"{source.name}, row {number}", row


def _read(source: Path) -> pa.Table:
    try:
        if source.suffix.lower() == ".parquet":
            return pq.read_table(source)
        # All as text: a key such as 007 must stay what it is.
        header = csv.read_csv(source).column_names
        options = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
        return csv.read_csv(source, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source}: cannot be read as {source.suffix[1:]} ({reason}); write it again") from error


def _entry(source: Path, where: str, row: Mapping[str, Any], cache: S3Cache) -> Entry | None:
    stated = Sidecar(**{name: _text(source, where, name, row[name]) for name in STATED if name in row})
    text = _text(source, where, "path", row["path"])
    if not text:
        raise UserError(f"{source.parent / where}: path is empty; name a video, or remove the row")
    span = _span(source, where, row)
    if not text.startswith("s3://"):
        return Entry(source.parent / text, where=where, stated=stated, span=span)
    path = cache.fetch_video(text)
    return None if path is None else Entry(path, where=where, stated=stated, span=span)


def _text(source: Path, where: str, name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    if not isinstance(value, str):
        raise UserError(f"{source.parent / where}: {name} is {value!r}, which is no text; write the column as text")
    return value.strip()


def _span(source: Path, where: str, row: Mapping[str, Any]) -> tuple[float, float] | None:
    start, end = (_seconds(source, where, name, row.get(name)) for name in SPAN)
    if start is None and end is None:
        return None
    begin, stop = start or 0.0, float("inf") if end is None else end
    if not 0 <= begin < stop:
        raise UserError(
            f"{source.parent / where}: start_seconds is {begin:g} and end_seconds {stop:g}; set 0 <= start < end"
        )
    return begin, stop


def _seconds(source: Path, where: str, name: str, value: Any) -> float | None:
    if value is None or value == "" or (isinstance(value, float) and pd.isna(value)):
        return None
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not abs(seconds) < float("inf"):
        raise UserError(f"{source.parent / where}: {name} is {value!r}; write seconds as a number, or leave it empty")
    return seconds
