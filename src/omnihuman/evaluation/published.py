"""Results that others have published, as data: published.yaml."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

TABLES = Path(__file__).with_name("published.yaml")
_NEVER_SHOWN, _DOUBTFUL = "L", "M"


@dataclass(frozen=True)
class PublishedValue:
    """One cell; None was not reported, or is too uncertain to be shown."""

    value: float | None
    doubtful: bool = False
    """Whether it was seen in one copy only."""


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper."""

    name: str
    title: str
    note: str
    protocol: str
    """The file of conf/protocol that asks the same."""
    protocol_hash: str
    """Of what was measured; empty: not known, so nothing stands beside it."""
    columns: tuple[str, ...]
    rows: dict[str, dict[str, PublishedValue]]
    """By system, then by column."""


@cache
def published_tables(path: Path = TABLES) -> tuple[str, tuple[PublishedTable, ...]]:
    """Where the figures are from, and all tables."""
    told = yaml.safe_load(path.read_text(encoding="utf-8"))
    source = told.pop("source")
    return source, tuple(_table(name, table) for name, table in told.items())


def _table(name: str, told: dict) -> PublishedTable:
    columns, marks = tuple(told["columns"]), told.get("doubtful", {})
    return PublishedTable(
        name,
        told["title"],
        told["note"],
        told["protocol"],
        told["protocol_hash"],
        columns,
        {
            system: {
                column: _value(value, {marks.get(system), marks.get(column)})
                for column, value in zip(columns, values, strict=True)
            }
            for system, values in told["rows"].items()
        },
    )


def _value(value: float | None, marks: set[str | None]) -> PublishedValue:
    if value is None or _NEVER_SHOWN in marks:
        return PublishedValue(None)
    return PublishedValue(float(value), _DOUBTFUL in marks)
