"""What the project holds of one person: which hashes and ids are theirs, and which files hold any of them."""

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from omnihuman.data.shard_reading import ShardReader
from omnihuman.data.takedowns import TakenDown, key_sha256
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256
from omnihuman.storage.ranges import files_at

_PARQUET = b"PAR1"
_ID_COLUMNS = ("clip_id", "source_id", "sha256")
_IDS = re.compile(rb"[0-9a-f]{16,}")
_KEPT = ("chunk-", "strips-")
"""How the names of unfinished work begin that is kept as tables."""
_MAX_HEADER_BYTES = 100_000_000
_CHUNK_BYTES = 1 << 24


@dataclass
class Material:
    """Grows with each table that is read."""

    ids: set[str] = field(default_factory=set)
    """Of videos and clips."""
    files: dict[str, int] = field(default_factory=dict)
    """Size in bytes by SHA-256 of the person's videos and declared poses; -1 where the size is not known."""
    paths: set[str] = field(default_factory=set)
    """As the tables of sources name the videos."""

    def as_json(self) -> dict[str, Any]:
        """For a call after a kill, when tables that told of it are gone."""
        return {"ids": sorted(self.ids), "files": self.files, "paths": sorted(self.paths)}

    def add_saved(self, content: dict[str, Any]) -> None:
        """Takes up what `as_json` gave."""
        self.ids |= set(content["ids"])
        self.files |= content["files"]
        self.paths |= set(content["paths"])


def find_material(material: Material, key: str, taken_down: TakenDown, places: Iterable[Path]) -> None:
    """Adds what Parquet tables below some folders say of a takedown key or identity, also tables of earlier runs.

    Args:
        taken_down: the files of an earlier takedown of this person count, too.
    """
    tables = [path for path in _files_below(places) if _is_parquet(path)]
    columns = {path: set(pq.read_schema(path).names) for path in tables}
    before = taken_down.entries.get(key_sha256(key))
    known = set(before.files_sha256) if before else set()
    for path in tables:
        if {"source_id", "sha256", "takedown_key"} <= columns[path]:
            for row in pq.read_table(path).to_pylist():
                if key in (row["identity"], row["takedown_key"]) or row["sha256"] in known:
                    material.ids.add(row["source_id"])
                    material.paths.add(row["path"])
                    material.files |= {row["sha256"]: row["bytes"]} if row["sha256"] else {}
                    material.files |= {row["keypoints_sha256"]: -1} if row["keypoints_sha256"] else {}
    clips: set[str] = set()
    for path in tables:
        if {"clip_id", "source_id"} <= columns[path]:
            clips |= _clips_where(path, "source_id", material.ids)
        if {"clip_id", "identity"} <= columns[path]:
            clips |= _clips_where(path, "identity", {key})
    material.ids |= clips


def holding(material: Material, places: Iterable[Path]) -> Iterator[Path]:
    """The files below some folders that hold the person's files or name their ids."""
    sizes = set(material.files.values())
    wanted = {name.encode() for name in {*material.ids, *material.files}}
    for path in _files_below(places):
        size = path.stat().st_size
        by_hash = size in sizes or (-1 in sizes and size < _CHUNK_BYTES)
        if (by_hash and file_sha256(path) in material.files) or _names(path, wanted):
            yield path


def shards_with(material: Material, places: Iterable[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Shards elsewhere that hold the person's clips, as place and name, and what could not be looked at, in words."""
    found, problems = [], []
    for place in sorted(places):
        if not place.startswith("s3://") and not Path(place).is_dir():
            problems.append(f"{place} holds shards, but cannot be looked at from here")
            continue
        try:
            names = [name for name in files_at(place).names() if name.endswith(".safetensors")]
        except UserError as error:
            problems.append(str(error))
            continue
        for name in names:
            try:
                if not material.ids.isdisjoint(ShardReader(place).lengths(name)):
                    found.append((place, name))
            except UserError as error:
                problems.append(str(error))
    return found, problems


def _clips_where(path: Path, column: str, values: Set[str]) -> set[str]:
    table = pq.read_table(path, columns=["clip_id", column])
    chosen = table.filter(pc.is_in(table[column], value_set=pa.array(sorted(values), pa.string())))
    return set(chosen["clip_id"].to_pylist())


def _names(path: Path, wanted: Set[bytes]) -> bool:
    """Whether ids stand in a table, in the header of a shard, or anywhere in another file."""
    with path.open("rb") as file:
        start = file.read(9)
        if start[:4] == _PARQUET:
            return _table_names(path, {name.decode() for name in wanted})
        header = int.from_bytes(start[:8], "little")
        file.seek(0)
        if start[8:] == b"{" and 0 < header < _MAX_HEADER_BYTES:  # safetensors: the tensors themselves name nothing
            return bool(wanted & set(_IDS.findall(file.read(8 + header))))
        rest = b""
        while chunk := file.read(_CHUNK_BYTES):
            if wanted & set(_IDS.findall(rest + chunk)):
                return True
            rest = chunk[-64:]
    return False


def _table_names(path: Path, wanted: Set[str]) -> bool:
    names = pq.read_schema(path).names
    if path.name.startswith(_KEPT) and "source_id" not in names:
        return True  # of an earlier version, which did not say of whom: it may be of anybody, and is made again
    columns = [name for name in names if name in _ID_COLUMNS]
    table = pq.read_table(path, columns=columns)
    return any(not wanted.isdisjoint(table[name].to_pylist()) for name in columns)


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _PARQUET


def _files_below(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        yield from (path for path in sorted(place.rglob("*")) if path.is_file() and not path.is_symlink())
