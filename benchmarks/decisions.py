"""Decisions, funnel and report over ten million score rows, in a process of its own: time and peak memory."""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from omnihuman.config.compose import compose
from omnihuman.data.deciding import Tables, decide
from omnihuman.data.manifest import CLIPS, SCORES, SOURCES, SOURCES_TABLE, STRIPS
from omnihuman.data.scorers.registry import SCORERS

NUM_ROWS = 10_000_000
NAMES = [name for scorer in SCORERS for name in scorer.names]


def write(folder: Path, num_rows: int) -> int:
    """Tables of a corpus of drawn numbers; returns the number of clips."""
    num_clips = num_rows // len(NAMES)
    random = np.random.default_rng(7)
    ids = pa.array([f"{number:016x}" for number in range(num_clips)])
    source_ids = pa.array([f"{number // 50:016x}" for number in range(num_clips)])
    seconds = random.uniform(2, 10, num_clips)
    _write(folder / "clips.parquet", CLIPS, {
        "clip_id": ids, "source_id": source_ids, "start_seconds": np.zeros(num_clips), "end_seconds": seconds,
        "status": pa.repeat("ok", num_clips), "error": pa.repeat("", num_clips),
    })  # fmt: skip
    unique = source_ids.unique()
    _write(folder / SOURCES_TABLE, SOURCES, {
        "source_id": unique, "path": unique,
        "status": pa.repeat("ok", len(unique)), "language": pa.repeat("en", len(unique)),
    })  # fmt: skip
    statuses = pa.array(["ok", "na", "error", "timeout"]).take(
        pa.array(random.choice(4, len(NAMES) * num_clips, p=[0.95, 0.04, 0.008, 0.002]))
    )
    position = np.arange(len(NAMES) * num_clips)
    _write(folder / "scores.parquet", SCORES, {
        "clip_id": ids.take(pa.array(position // len(NAMES))),
        "scorer": pa.array(NAMES).take(pa.array(position % len(NAMES))),
        "implementation": pa.repeat("fallback", len(position)),
        "value": random.uniform(0, 1.5, len(position)), "status": statuses, "error": pa.repeat("", len(position)),
    })  # fmt: skip
    _write(folder / "duplicates.parquet", SCORES, {
        "clip_id": ids, "scorer": pa.repeat("held_out_copy", num_clips),
        "implementation": pa.repeat("fallback", num_clips), "value": (random.random(num_clips) < 0.01).astype(float),
        "status": pa.repeat("ok", num_clips), "error": pa.repeat("", num_clips),
    })  # fmt: skip
    _write(folder / "strips.parquet", STRIPS, {"clip_id": ids[:0]})
    return num_clips


def _write(path: Path, schema: pa.Schema, columns: dict) -> None:
    length = max(len(column) for column in columns.values())
    missing = {field.name: pa.nulls(length, field.type) for field in schema if field.name not in columns}
    pq.write_table(pa.table(columns | missing).select(schema.names).cast(schema), path, compression="zstd")


def measure(folder: Path) -> None:
    """Decides once and prints; the peak is that of this process, which has written nothing before."""
    start, worked = time.perf_counter(), time.process_time()
    tables = Tables(folder, *(folder / f"{name}.parquet" for name in ("clips", "scores", "strips", "duplicates")))
    outputs = [folder / name for name in ("decisions.parquet", "page.html", "metrics.json", "plots")]
    decide(compose("demo", []).decide, tables, *outputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    elapsed, worked = time.perf_counter() - start, time.process_time() - worked
    print(f"  {elapsed:.1f} s, {worked:.1f} s of a processor, at most {peak:.2f} GiB")


def main() -> None:
    """Writes the tables in one process and decides in another."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        num_clips = write(Path(folder), NUM_ROWS)
        print(f"decisions over {num_clips * len(NAMES):,} scores of {num_clips:,} clips")
        for _ in range(3):
            subprocess.run([sys.executable, __file__, folder], check=True)


if __name__ == "__main__":
    main()
