"""The record of people who were taken down. It names nobody: it holds hashes, and `collect` compares them.

A tracked file of the project, so that cleaning a checkout leaves it, and every clone honours it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnihuman.errors import UserError
from omnihuman.storage.files import publish

RECORD = Path("takedowns.jsonl")
"""From the root of a checkout."""
_HEADER = "# Hashes of people who were taken down, by `omnihuman data takedown`; every line keeps one of them out.\n"


@dataclass(frozen=True)
class Takedown:
    """One person who was taken down; a second takedown of the same person adds to the first."""

    key_sha256: str
    """Of the takedown key or identity."""
    files_sha256: tuple[str, ...] = ()
    """Of the person's videos, which stay out also under another name and without a sidecar."""
    models: tuple[str, ...] = ()
    """Registered versions that were trained on them, e.g. `omnihuman 3`, and files of other networks."""
    first: str = ""
    """UTC, ISO 8601, of the first call."""
    finished: str = ""
    """Of the last call that removed all that it found; empty while one is under way or was killed."""


class TakenDown:
    """All takedowns of a checkout.

    Raises:
        UserError: a line of the record is not one of ours. A person must not come back because of a damaged line.
    """

    def __init__(self, record: Path) -> None:
        self.entries = _read(record)
        self.files = {sha256 for entry in self.entries.values() for sha256 in entry.files_sha256}

    def __contains__(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of the table of sources shows somebody who was taken down."""
        keys = {key_sha256(row[name]) for name in ("identity", "takedown_key") if row[name]}
        return bool(keys & self.entries.keys()) or row["sha256"] in self.files


def key_sha256(key: str) -> str:
    """What stands for a takedown key or an identity in the record."""
    return hashlib.sha256(f"omnihuman takedown {key}".encode()).hexdigest()


def write_takedown(record: Path, entry: Takedown) -> None:
    """Adds an entry, or adds to that of the same key, atomically.

    Raises:
        UserError: the record is damaged.
    """
    entries = _read(record)
    entries[entry.key_sha256] = _joined(entries.get(entry.key_sha256), entry)
    with publish(record) as temporary:
        lines = [json.dumps(asdict(one)) + "\n" for one in entries.values()]
        temporary.write_text("".join([_HEADER, *lines]), encoding="utf-8")


def _read(record: Path) -> dict[str, Takedown]:
    """By hash of the key; a line of the same key adds to the one before, as where git merged two branches."""
    found: dict[str, Takedown] = {}
    lines = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        try:
            values = json.loads(line)
            lists = {name: tuple(values[name]) for name in ("files_sha256", "models")}
            entry = Takedown(**{**values, **lists})
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"{record}, line {number}: is no record of a takedown; restore the file from git, because every line"
                " keeps a person out"
            ) from error
        found[entry.key_sha256] = _joined(found.get(entry.key_sha256), entry)
    return found


def _joined(before: Takedown | None, entry: Takedown) -> Takedown:
    if before is None:
        return entry
    return Takedown(
        entry.key_sha256,
        tuple(sorted({*before.files_sha256, *entry.files_sha256})),
        tuple(sorted({*before.models, *entry.models})),
        before.first or entry.first,
        entry.finished,
    )
