"""The Parquet tables that pass from step to step, and how they are read and written.

Scores and decisions are two tables because thresholds change while scores cost hours. A status is `ok`, `na` (the
measurement does not apply), `error` or `timeout`; the last two are tried again and never enable a modality.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from omnihuman.errors import UserError
from omnihuman.storage.files import publish

SOURCES_TABLE = "sources.parquet"
"""Name of the table inside the folder of sources."""

SOURCES = pa.schema(
    [
        ("source_id", pa.string()),  # first 16 hex digits of sha256
        ("sha256", pa.string()),
        ("path", pa.string()),  # relative to data/sources for drawn videos, else absolute
        ("status", pa.string()),  # ok | error | timeout
        ("error", pa.string()),  # empty, or one sentence for people
        ("bytes", pa.int64()),
        ("duration_seconds", pa.float64()),
        ("fps", pa.float64()),
        ("num_frames", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("video_codec", pa.string()),
        ("audio_codec", pa.string()),  # empty without sound
        ("audio_sample_rate", pa.int32()),
        ("identity", pa.string()),  # who is shown; the split is by identity
        ("split", pa.string()),  # train | test
        ("caption", pa.string()),
        ("language", pa.string()),
        ("keypoints_path", pa.string()),  # declared pose input, empty where there is none
        ("keypoints_sha256", pa.string()),
        ("licence", pa.string()),
        ("consent_basis", pa.string()),
        ("rights_holder", pa.string()),
        ("takedown_key", pa.string()),
    ]
)

CLIPS = pa.schema(
    [
        ("clip_id", pa.string()),  # hash of the source's sha256 and the time span
        ("source_id", pa.string()),
        ("index", pa.int32()),  # position in the source
        ("start_seconds", pa.float64()),
        ("end_seconds", pa.float64()),
        ("status", pa.string()),  # ok | error | timeout; a source that cannot be cut has one row
        ("error", pa.string()),
    ]
)

SCORES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("scorer", pa.string()),
        ("implementation", pa.string()),  # published | fallback | trained
        ("version", pa.string()),
        ("weights_sha256", pa.string()),  # empty for a scorer without
        ("params_hash", pa.string()),
        ("value", pa.float64()),  # NaN unless status is ok
        ("status", pa.string()),
        ("error", pa.string()),
        ("num_samples", pa.int32()),  # frames, windows or faces behind the value
    ]
)

STRIPS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("strip", pa.binary()),  # JPEG of some frames side by side
        ("fingerprint", pa.binary()),  # `data.fingerprints`, by which copies are found
    ]
)

CAPTIONS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("caption", pa.string()),  # empty where there is none
        ("origin", pa.string()),  # sidecar, or caption.method
        ("weights_sha256", pa.string()),  # empty for what no network said
        ("status", pa.string()),
        ("error", pa.string()),
    ]
)

DECISIONS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("modality", pa.string()),  # text | reference | audio | pose
        ("eligible", pa.bool_()),
        ("provisional", pa.bool_()),  # rests on a stand-in's score
        ("first_fail", pa.string()),  # name of the first rule that failed, empty when eligible
        ("all_fails", pa.list_(pa.string())),
        ("margin", pa.float64()),  # smallest relative distance to a threshold; negative when it failed
        ("policy_hash", pa.string()),
    ]
)

SAMPLES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("shard", pa.string()),
        ("identity", pa.string()),
        ("split", pa.string()),
        ("area_pixels", pa.int32()),  # of encode.resolutions; a clip has a row for each of its own, the largest first
        ("larger_area_pixels", pa.int32()),  # that of the clip's row before, 0 in its first
        ("width", pa.int32()),  # of the encoded video
        ("height", pa.int32()),
        ("num_windows", pa.int32()),
        ("num_frames", pa.int32()),  # of the whole clip at model time
        ("caption", pa.string()),
        ("audio_eligible", pa.bool_()),
        ("pose_eligible", pa.bool_()),
        ("status", pa.string()),
        ("error", pa.string()),
    ]
)


def write_table(rows: list[dict] | pa.Table, schema: pa.Schema, path: Path) -> None:
    """Publishes rows as one Parquet file, atomically and in a byte-for-byte reproducible form.

    Raises:
        pyarrow.ArrowInvalid: a row does not fit the schema.
    """
    table = pa.Table.from_pylist(rows, schema=schema) if isinstance(rows, list) else rows.cast(schema)
    with publish(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


@contextmanager
def table_writer(schema: pa.Schema, path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Publishes one Parquet file, as `write_table` does, of a table that is too long for memory.

    Yields:
        A function that appends rows; each call makes a row group.
    """
    with publish(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(rows.cast(schema))


def read_table(path: Path, columns: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Reads one of the tables above.

    Args:
        columns: the only ones wanted, of a table that is long; those of text then come as categories.

    Raises:
        UserError: it is missing.
    """
    check_there(path)
    if columns is None:
        return pq.read_table(path).to_pandas()
    texts = [field.name for field in pq.read_schema(path) if field.name in columns and field.type == pa.string()]
    return pq.read_table(path, columns=list(columns), read_dictionary=texts).to_pandas()


def one_row_a_clip(samples: pd.DataFrame) -> pd.DataFrame:
    """Of a table of samples, the rows of each clip's largest encoding."""
    return samples[samples["larger_area_pixels"] == 0]


def rows_within(samples: pd.DataFrame, area_pixels: int | None) -> np.ndarray:
    """int64 [clips]: of each clip, the row of its largest encoding up to so many pixels; none: of its largest.

    A clip whose smallest encoding is larger has none.
    """
    if area_pixels is None:
        return np.flatnonzero(samples["larger_area_pixels"] == 0)
    larger = samples["larger_area_pixels"].to_numpy()
    return np.flatnonzero((samples["area_pixels"].to_numpy() <= area_pixels) & ((larger == 0) | (larger > area_pixels)))


@dataclass(frozen=True)
class ClipFile:
    """Where a clip lies."""

    clip_id: str
    source_id: str
    path: Path
    keypoints_path: Path | None
    start_seconds: float
    end_seconds: float


def clip_file(row: dict, sources: Path) -> ClipFile:
    """Of a row of the clips with the columns path and keypoints_path of its source."""
    return ClipFile(
        clip_id=row["clip_id"],
        source_id=row["source_id"],
        path=source_path(sources, row["path"]),
        keypoints_path=source_path(sources, row["keypoints_path"]) if row["keypoints_path"] else None,
        start_seconds=row["start_seconds"],
        end_seconds=row["end_seconds"],
    )


def check_there(path: Path) -> None:
    """Raises `UserError` where a table of the steps before is missing."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run `dvc repro`, which runs the steps before this one")


def source_path(sources: Path, path: str) -> Path:
    """Where a row's `path` or `keypoints_path` lies: relative to data/sources for drawn videos, else absolute."""
    return sources / path
