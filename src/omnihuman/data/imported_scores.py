"""Scores that were measured elsewhere, in long form (columns scorer and value) or wide form (a column per scorer)."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from omnihuman.config.schema.score import Score
from omnihuman.errors import UserError
from omnihuman.storage.files import file_sha256

KEYS = ("clip_id", "sha256", "path")
"""What a row may go by: one clip, or all clips of a file, by its content or its path."""
_LONG = ("scorer", "value")


@dataclass(frozen=True)
class Imported:
    """Values by clip id and scorer."""

    names: tuple[str, ...] = ()
    """Scorers that are not measured here; a clip without a value of theirs has none."""
    values: dict[str, dict[str, float]] | None = None
    version: str = ""

    def rows(self, clip_id: str, params_hash: str) -> list[dict[str, Any]]:
        """Of the score table."""
        own = (self.values or {}).get(clip_id, {})
        return [self._row(clip_id, name, own.get(name, math.nan), params_hash) for name in self.names]

    def _row(self, clip_id: str, name: str, value: float, params_hash: str) -> dict[str, Any]:
        there = math.isfinite(value)
        return {
            "clip_id": clip_id,
            "scorer": name,
            "implementation": "imported",
            "version": self.version,
            "weights_sha256": "",
            "params_hash": params_hash,
            "value": value if there else math.nan,
            "status": "ok" if there else "na",
            "error": "" if there else f"{self.version} has no value of this clip",
            "num_samples": 0,
        }


def read_imported(config: Score, clips: pd.DataFrame) -> Imported:
    """The scores of `score.imported` for clips; none where it is empty.

    Args:
        clips: columns clip_id, and sha256 and path of the source.

    Raises:
        UserError: the table is missing, changed, malformed, or has a value for none of the clips.
    """
    if not config.imported:
        return Imported()
    path = Path(config.imported)
    table = _read(path)
    if file_sha256(path) != config.imported_sha256:
        raise UserError(f"{path} changed since params.yaml was composed: run `omnihuman config compose` again")
    key = next((name for name in KEYS if name in table), None)
    if key is None:
        raise UserError(f"{path}: has none of the columns {', '.join(KEYS)}; add one that says which clip a row is of")
    if key == "path":
        table = table.assign(path=[str(path.parent / text) for text in table["path"]])
    long = _long(path, table, key)
    found = clips[["clip_id"] if key == "clip_id" else ["clip_id", key]].merge(long, on=key)
    if found.empty:
        raise UserError(f"{path}: no {key} in it is that of a clip here; compare it with data/sources/sources.parquet")
    values: dict[str, dict[str, float]] = {}
    for clip_id, scorer, value in found[["clip_id", *_LONG]].itertuples(index=False):
        values.setdefault(clip_id, {})[scorer] = value
    version = f"{config.imported_source} {config.imported_version}"
    return Imported(tuple(sorted(set(long["scorer"]))), values, version)


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix.lower() == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"score.imported is {path}: cannot be read ({reason}); name a .parquet or .csv") from error


def _long(path: Path, table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Columns `key`, scorer, value; each pair of key and scorer once."""
    if set(_LONG) <= set(table):
        long = table[[key, *_LONG]].copy()
    else:
        scorers = [name for name in table if name not in KEYS]
        if not scorers:
            raise UserError(f"{path}: has no scores; add columns scorer and value, or a column for each scorer")
        long = table.melt(id_vars=[key], value_vars=scorers, var_name="scorer", value_name="value")
    numbers = pd.to_numeric(long["value"], errors="coerce")
    if (wrong := long[numbers.isna() & long["value"].notna()]).size:
        row = wrong.iloc[0]
        raise UserError(f"{path}: {row['scorer']} of {row[key]} is {row['value']!r}; write a number or leave it empty")
    if (twice := long[long.duplicated([key, "scorer"])]).size:
        row = twice.iloc[0]
        raise UserError(f"{path}: {row['scorer']} of {row[key]} is there twice; remove one of the rows")
    return long.assign(value=numbers)
