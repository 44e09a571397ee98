"""Which part of a file a source is, where it is not the whole: beside the table of sources, and only where needed."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from omnihuman.data.manifest import read_table, write_table

SPANS_TABLE = "spans.parquet"
SPANS = pa.schema([("source_id", pa.string()), ("start_seconds", pa.float64()), ("end_seconds", pa.float64())])


def write_spans(spans: dict[str, tuple[float, float]], sources: Path) -> None:
    """Spans in seconds by source id; writes nothing where there are none."""
    rows: list[dict[str, Any]] = [
        {"source_id": source_id, "start_seconds": start, "end_seconds": end}
        for source_id, (start, end) in spans.items()
    ]
    if rows:
        write_table(rows, SPANS, sources / SPANS_TABLE)


def read_spans(sources: Path) -> dict[str, tuple[float, float]]:
    """What `write_spans` wrote."""
    if not (sources / SPANS_TABLE).is_file():
        return {}
    rows = read_table(sources / SPANS_TABLE).to_dict("records")
    return {row["source_id"]: (row["start_seconds"], row["end_seconds"]) for row in rows}
