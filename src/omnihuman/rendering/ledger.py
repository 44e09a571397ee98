"""Who renders what: the states of a batch's items in SQLite, for any number of processes on one machine.

An item is pending, leased, done, failed (to be tried again at a known moment) or dead. A lease runs out when its worker
does not renew it; then another worker takes the item. Each lease has a token that is never given twice: what a worker
reports with an older token is refused, so that one that was only slow cannot overrule its successor.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from omnihuman.errors import UserError

LEDGER = "ledger.sqlite"
STATES = ("pending", "leased", "done", "failed", "dead")
FINAL = ("done", "dead")
_BUSY_SECONDS = 60.0
_FINISHED = "finished videos are found by their sidecars"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS batch (manifest TEXT NOT NULL, last_token INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS item (
    id TEXT PRIMARY KEY,
    position INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'done', 'failed', 'dead')),
    owner TEXT NOT NULL DEFAULT '',
    token INTEGER NOT NULL DEFAULT 0,
    lease_until REAL NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    memory_failures INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0,
    num_frames INTEGER NOT NULL DEFAULT 0
) STRICT;
"""


class LedgerError(UserError):
    """The ledger itself cannot be used, whatever the item."""


@dataclass(frozen=True)
class Lease:
    """The right to render one item for a while."""

    item: str
    token: int
    attempt: int
    """From 1."""
    memory_failures: int
    """Earlier attempts that ran out of memory."""


@dataclass(frozen=True)
class ItemState:
    """One item as the ledger has it; seconds since the epoch where a moment is meant."""

    id: str
    state: str
    owner: str
    lease_until: float
    attempt: int
    not_before: float
    error: str
    seconds: float
    num_frames: int


class Ledger:
    """The ledger of one output folder. Each call is a transaction of its own, safe from threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER

    def plan(self, manifest: str, items: Iterable[str], finished: Iterable[str]) -> None:
        """Makes the ledger that of a manifest: new items are pending, those that lie there finished are done.

        An item that was done, and whose video is gone or changed, is pending again. Nothing else is forgotten.

        Raises:
            LedgerError: another batch is being rendered into this folder.
        """
        finished = set(finished)
        with self._transaction(create=True) as database:
            for statement in _SCHEMA.split(";\n"):
                database.execute(statement)
            self._replace(database, manifest)
            wanted = {key: position for position, key in enumerate(items)}
            known = {row["id"] for row in database.execute("SELECT id FROM item")}
            database.executemany("DELETE FROM item WHERE id = ?", [(key,) for key in known - wanted.keys()])
            for key, position in wanted.items():
                database.execute("INSERT OR IGNORE INTO item (id, position, state) VALUES (?, ?, 'pending')", (key, 0))
                database.execute("UPDATE item SET position = ? WHERE id = ?", (position, key))
                if key in finished:
                    database.execute("UPDATE item SET state = 'done', error = '' WHERE id = ?", (key,))
                else:
                    database.execute(
                        "UPDATE item SET state = 'pending', attempt = 0 WHERE id = ? AND state = 'done'", (key,)
                    )

    def claim(self, manifest: str, owner: str, lease_seconds: float, max_attempts: int) -> Lease | None:
        """Takes the first item that can be rendered now; None when there is none.

        An item whose worker was lost `max_attempts` times is dead: it probably ends whoever renders it.
        """
        now = time.time()
        with self._transaction() as database:
            self._check(database, manifest)
            database.execute(
                "UPDATE item SET state = 'dead', error = 'its worker ended without a word ' || attempt || ' times'"
                " WHERE state = 'leased' AND lease_until <= ? AND attempt >= ?",
                (now, max_attempts),
            )
            row = database.execute(
                "SELECT * FROM item WHERE state = 'pending' OR (state = 'failed' AND not_before <= :now)"
                " OR (state = 'leased' AND lease_until <= :now) ORDER BY attempt, position LIMIT 1",
                {"now": now},
            ).fetchone()
            if row is None:
                return None
            (token,) = database.execute("UPDATE batch SET last_token = last_token + 1 RETURNING last_token").fetchone()
            database.execute(
                "UPDATE item SET state = 'leased', owner = ?, token = ?, lease_until = ?, attempt = attempt + 1"
                " WHERE id = ?",
                (owner, token, now + lease_seconds, row["id"]),
            )
        return Lease(row["id"], token, row["attempt"] + 1, row["memory_failures"])

    def seconds_until_work(self, manifest: str) -> float | None:
        """0 when an item can be claimed, else the time until one may be; None when all are done or dead."""
        now = time.time()
        with self._transaction() as database:
            self._check(database, manifest)
            (moment,) = database.execute(
                "SELECT min(CASE state WHEN 'pending' THEN 0 WHEN 'failed' THEN not_before ELSE lease_until END)"
                " FROM item WHERE state IN ('pending', 'failed', 'leased')"
            ).fetchone()
        return None if moment is None else max(0.0, moment - now)

    def renew(self, lease: Lease, lease_seconds: float) -> bool:
        """Prolongs a lease; False when it is no longer ours."""
        return self._commit(lease, "lease_until = ?", time.time() + lease_seconds)

    def done(self, lease: Lease, seconds: float, num_frames: int) -> bool:
        """Records a published video; False when the lease is no longer ours."""
        return self._commit(lease, "state = 'done', error = '', seconds = ?, num_frames = ?", seconds, num_frames)

    def fail(self, lease: Lease, error: str, retry_seconds: float | None, out_of_memory: bool = False) -> bool:
        """Records a failure: to be tried again after some seconds, or dead where that is None."""
        state, moment = ("dead", 0.0) if retry_seconds is None else ("failed", time.time() + retry_seconds)
        changes = "state = ?, error = ?, not_before = ?, memory_failures = memory_failures + ?"
        return self._commit(lease, changes, state, error, moment, int(out_of_memory))

    def release(self, lease: Lease) -> bool:
        """Gives an item back untried, as if it had not been claimed."""
        return self._commit(lease, "state = 'pending', attempt = attempt - 1")

    def redrive(self) -> int:
        """Makes dead items pending with all their attempts, and returns how many."""
        with self._transaction() as database:
            changes = "state = 'pending', attempt = 0, memory_failures = 0, error = ''"
            return database.execute(f"UPDATE item SET {changes} WHERE state = 'dead'").rowcount

    def items(self) -> list[ItemState]:
        """All items in the order of the jobs."""
        columns = ", ".join(ItemState.__dataclass_fields__)
        with self._transaction() as database:
            return [ItemState(*row) for row in database.execute(f"SELECT {columns} FROM item ORDER BY position")]

    def tokens(self) -> set[int]:
        """Of the leases that are held, run out or not."""
        with self._transaction() as database:
            return {row["token"] for row in database.execute("SELECT token FROM item WHERE state = 'leased'")}

    def exists(self) -> bool:
        """Whether a batch was ever submitted into the folder; an empty file is what a kill has left of that."""
        return self._path.is_file() and self._path.stat().st_size > 0

    def _replace(self, database: sqlite3.Connection, manifest: str) -> None:
        row = database.execute("SELECT manifest FROM batch").fetchone()
        if row is None:
            database.execute("INSERT INTO batch VALUES (?, 0)", (manifest,))
        elif row["manifest"] != manifest:
            held = "SELECT owner FROM item WHERE state = 'leased' AND lease_until > ? LIMIT 1"
            if holder := database.execute(held, (time.time(),)).fetchone():
                raise LedgerError(
                    f"{self._path.parent}: {holder['owner']} is rendering another batch into this folder; wait for it"
                    " or give another --output"
                )
            database.execute("UPDATE batch SET manifest = ?", (manifest,))

    def _check(self, database: sqlite3.Connection, manifest: str) -> None:
        row = database.execute("SELECT manifest FROM batch").fetchone()
        if row is None or row["manifest"] != manifest:
            raise LedgerError(f"{self._path.parent} holds another batch than its manifest says: submit the jobs again")

    def _commit(self, lease: Lease, changes: str, *values: str | float) -> bool:
        with self._transaction() as database:
            where = "WHERE id = ? AND token = ? AND state = 'leased'"
            return (
                database.execute(f"UPDATE item SET {changes} {where}", (*values, lease.item, lease.token)).rowcount == 1
            )

    @contextmanager
    def _transaction(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        if not create and not self.exists():
            raise LedgerError(f"{self._path} is missing: submit the jobs again, {_FINISHED}")
        place = f"{self._path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
        try:
            with closing(sqlite3.connect(place, _BUSY_SECONDS, isolation_level=None, uri=True)) as database:
                database.row_factory = sqlite3.Row
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            remedy = f"delete it and submit the jobs again, {_FINISHED}"
            raise LedgerError(f"{self._path} cannot be used ({error}); {remedy}") from error
