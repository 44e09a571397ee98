"""Scores of finished clips, in files: they outlive a killed step, and need not fit into memory together."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnihuman.data.manifest import SCORES, STRIPS, write_table
from omnihuman.storage.work import content_key

CLIPS_PER_CHUNK = 16
"""Finished clips are kept in files of so many; a killed run loses less than one."""
_SOURCE = pa.field("source_id", pa.string())
"""The column that kept files have on top of the tables' own."""


@dataclass(frozen=True)
class Scored:
    """What came of one clip."""

    source_id: str
    """Of the clip's video, by which a takedown finds what is kept."""
    rows: list[dict]
    """Of the score table."""
    strip: bytes = b""
    """JPEG; empty where the clip could not be decoded, as is the fingerprint."""
    fingerprint: bytes = b""


class KeptScores:
    """Clips by the key of their content, which stands in for the clip's id in the files.

    In memory lies only which file holds a clip.
    """

    def __init__(self, folder: Path, keys: Collection[str] = ()) -> None:
        """Finds again what earlier calls kept in `folder` of the clips with these keys."""
        self._folder = folder
        self._chunk: dict[str, Scored] = {}
        self._files: list[Path] = []
        self._file_of_key: dict[str, int] = {}
        wanted = set(keys)
        for path in sorted(folder.glob("chunk-*.parquet")):
            found = pc.unique(pq.read_table(path, columns=["clip_id"])["clip_id"]).to_pylist()
            self._remember(path, [key for key in found if key in wanted])

    def __contains__(self, key: str) -> bool:
        return key in self._file_of_key

    def add(self, key: str, scored: Scored) -> None:
        """Keeps a clip, though not before `flush` or some more clips."""
        self._chunk[key] = scored
        if len(self._chunk) == CLIPS_PER_CHUNK:
            self.flush()

    def flush(self) -> None:
        """Writes what was added."""
        if not self._chunk:
            return
        path = self._folder / f"chunk-{content_key(clips=sorted(self._chunk))}.parquet"
        # Strips come first: what is found again has its scores, and then its strip too.
        write_table(_strip_rows(self._chunk), STRIPS.append(_SOURCE), _strips_beside(path))
        rows = [
            {**row, "clip_id": key, "source_id": scored.source_id}
            for key, scored in self._chunk.items()
            for row in scored.rows
        ]
        write_table(rows, SCORES.append(_SOURCE), path)
        self._remember(path, self._chunk)
        self._chunk = {}

    def read(self, keys: Sequence[str]) -> tuple[pa.Table, pa.Table]:
        """Score rows and strips of those of the clips that are kept, in the order of the files."""
        by_file: dict[int, list[str]] = {}
        for key in keys:
            if key in self._file_of_key:
                by_file.setdefault(self._file_of_key[key], []).append(key)
        scores, strips = [SCORES.empty_table()], [STRIPS.empty_table()]
        for number, own in by_file.items():
            path, values = self._files[number], pa.array(own, pa.string())
            for parts, file in ((scores, path), (strips, _strips_beside(path))):
                table = pq.read_table(file).drop_columns(_SOURCE.name)
                parts.append(table.filter(pc.is_in(table["clip_id"], value_set=values)))
        return pa.concat_tables(scores), pa.concat_tables(strips)

    def _remember(self, path: Path, keys: Iterable[str]) -> None:
        self._files.append(path)
        self._file_of_key |= dict.fromkeys(keys, len(self._files) - 1)


def in_order(table: pa.Table, keys: Sequence[str], clip_ids: Sequence[str]) -> pa.Table:
    """Rows sorted by the position of their key in `keys`, and named by the clip's id at that position.

    Rows of one clip stay in the order in which they are.
    """
    position = pc.index_in(table["clip_id"], value_set=pa.array(keys, pa.string())).to_numpy()
    order = np.argsort(position, kind="stable")
    names = pa.array(clip_ids, pa.string()).take(pa.array(position[order]))
    return table.take(order).set_column(0, table.schema.field("clip_id"), names)


def _strip_rows(scored: dict[str, Scored]) -> list[dict]:
    return [
        {"clip_id": name, "source_id": one.source_id, "strip": one.strip, "fingerprint": one.fingerprint}
        for name, one in scored.items()
        if one.strip
    ]


def _strips_beside(chunk: Path) -> Path:
    return chunk.with_name(chunk.name.replace("chunk-", "strips-"))
