"""Who renders what: the states of a batch's items, for any number of processes, by a database on as many machines.

An item is pending, leased, done, failed (to be tried again at a known moment) or dead. A lease runs out when its worker
does not renew it; then another worker takes the item. Each lease has a token that is never given twice: what a worker
reports with an older token is refused, so that one that was only slow cannot overrule its successor.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Row, String, bindparam, cast, func, literal, select
from sqlalchemy.engine import Connection

from omnihuman.rendering.ledger_store import BATCH, ITEM, LedgerError, Store, open_store

FINAL = ("done", "dead")


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
    """The ledger of one output folder. Each call is a transaction of its own, safe from threads and processes.

    Moments are those of the database's clock, so that machines need not agree on the time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: Store = open_store(folder)
        self._mine = ITEM.c.batch == self._store.batch

    def plan(self, manifest: str, items: Iterable[str], finished: Iterable[str]) -> None:
        """Makes the ledger that of a manifest: new items are pending, those that lie there finished are done.

        An item that was done, and whose video is gone or changed, is pending again. Nothing else is forgotten.

        Raises:
            LedgerError: another batch is being rendered into this folder.
        """
        wanted, finished = {key: position for position, key in enumerate(items)}, set(finished)
        with self._store.transaction(create=True) as database:
            self._replace(database, manifest)
            rows = database.execute(select(ITEM.c.id, ITEM.c.position, ITEM.c.state).where(self._mine)).all()
            known = {row.id: row for row in rows}
            self._each(database, ITEM.delete(), [{"key": key} for key in known.keys() - wanted.keys()])
            if new := [key for key in wanted if key not in known]:
                states = {key: "done" if key in finished else "pending" for key in new}
                made = [
                    {"batch": self._store.batch, "id": key, "position": wanted[key], "state": states[key]}
                    for key in new
                ]
                database.execute(ITEM.insert(), made)
            kept = [row for row in rows if row.id in wanted]
            moved = [{"key": row.id, "to": wanted[row.id]} for row in kept if row.position != wanted[row.id]]
            self._each(database, ITEM.update().values(position=bindparam("to")), moved)
            ended = [{"key": row.id} for row in kept if row.id in finished and row.state != "done"]
            self._each(database, ITEM.update().values(state="done", error=""), ended)
            gone = [{"key": row.id} for row in kept if row.id not in finished and row.state == "done"]
            self._each(database, ITEM.update().values(state="pending", attempt=0), gone)

    def claim(self, manifest: str, owner: str, lease_seconds: float, max_attempts: int) -> Lease | None:
        """Takes the first item that can be rendered now; None when there is none.

        An item whose worker was lost `max_attempts` times is dead: it probably ends whoever renders it.
        """
        with self._store.transaction() as database:
            token = self._next_token(database, manifest)
            now = self._store.now(database)
            has_run_out = (ITEM.c.state == "leased") & (ITEM.c.lease_until <= now)
            told = literal("its worker ended without a word ") + cast(ITEM.c.attempt, String) + " times"
            lost = self._mine & has_run_out & (ITEM.c.attempt >= max_attempts)
            database.execute(ITEM.update().where(lost).values(state="dead", error=told))
            may_start = (ITEM.c.state == "failed") & (ITEM.c.not_before <= now)
            which = (ITEM.c.state == "pending", may_start, has_run_out)
            taken = {"state": "leased", "owner": owner, "token": token, "lease_until": now + lease_seconds}
            while True:
                # One query for each state: the index then gives the first of each without a look at the others.
                firsts = [self._first(database, one) for one in which]
                row = min(filter(None, firsts), key=lambda row: (row.attempt, row.position), default=None)
                if row is None:
                    return None
                # On a server its worker may have ended it, or prolonged its lease, since it was read.
                unchanged = [ITEM.c[name] == row._mapping[name] for name in ("id", "state", "token", "lease_until")]
                change = ITEM.update().where(self._mine, *unchanged).values(attempt=row.attempt + 1, **taken)
                if database.execute(change).rowcount:
                    return Lease(row.id, token, row.attempt + 1, row.memory_failures)

    def seconds_until_work(self, manifest: str) -> float | None:
        """0 when an item can be claimed, else the time until one may be; None when all are done or dead."""
        with self._store.transaction() as database:
            found = database.execute(select(BATCH.c.manifest).where(BATCH.c.batch == self._store.batch)).scalar()
            if found != manifest:
                raise self._of_another_batch()
            pending = select(ITEM.c.id).where(self._mine, ITEM.c.state == "pending").exists()
            retry, end = (
                select(func.min(moment)).where(self._mine, ITEM.c.state == state).scalar_subquery()
                for state, moment in (("failed", ITEM.c.not_before), ("leased", ITEM.c.lease_until))
            )
            # In one statement: between two of a server's an item may go from one state to another, and be seen in none.
            is_pending, *moments = database.execute(select(pending, retry, end)).one()
            first = min((moment for moment in moments if moment is not None), default=None)
            if is_pending:
                return 0.0
            return None if first is None else max(0.0, first - self._store.now(database))

    def renew(self, lease: Lease, lease_seconds: float) -> bool:
        """Prolongs a lease; False when it is no longer ours."""
        with self._store.transaction() as database:
            return self._change(database, lease, lease_until=self._store.now(database) + lease_seconds)

    def done(self, lease: Lease, seconds: float, num_frames: int) -> bool:
        """Records a published video; False when the lease is no longer ours."""
        with self._store.transaction() as database:
            return self._change(database, lease, state="done", error="", seconds=seconds, num_frames=num_frames)

    def fail(self, lease: Lease, error: str, retry_seconds: float | None, out_of_memory: bool = False) -> bool:
        """Records a failure: to be tried again after some seconds, or dead where that is None."""
        with self._store.transaction() as database:
            moment = 0.0 if retry_seconds is None else self._store.now(database) + retry_seconds
            state = "dead" if retry_seconds is None else "failed"
            failures = ITEM.c.memory_failures + int(out_of_memory)
            return self._change(database, lease, state=state, error=error, not_before=moment, memory_failures=failures)

    def release(self, lease: Lease) -> bool:
        """Gives an item back untried, as if it had not been claimed."""
        with self._store.transaction() as database:
            return self._change(database, lease, state="pending", attempt=ITEM.c.attempt - 1)

    def redrive(self) -> int:
        """Makes dead items pending with all their attempts, and returns how many."""
        with self._store.transaction() as database:
            fresh = {"state": "pending", "attempt": 0, "memory_failures": 0, "error": ""}
            return database.execute(ITEM.update().where(self._mine, ITEM.c.state == "dead").values(fresh)).rowcount

    def items(self) -> list[ItemState]:
        """All items in the order of the jobs."""
        columns = [ITEM.c[name] for name in ItemState.__dataclass_fields__]
        with self._store.transaction() as database:
            return [
                ItemState(*row)
                for row in database.execute(select(*columns).where(self._mine).order_by(ITEM.c.position))
            ]

    def tokens(self) -> set[int]:
        """Of the leases that are held, run out or not."""
        with self._store.transaction() as database:
            held = select(ITEM.c.token).where(self._mine, ITEM.c.state == "leased")
            return set(database.execute(held).scalars())

    def exists(self) -> bool:
        """Whether a batch was ever submitted into the folder."""
        return self._store.exists()

    def _replace(self, database: Connection, manifest: str) -> None:
        """Makes the manifest the batch's, and holds the batch's row until the end of the transaction."""
        mine = BATCH.c.batch == self._store.batch
        before = database.execute(select(BATCH.c.manifest).where(mine).with_for_update()).scalar()
        if before is None:
            made = {"batch": self._store.batch, "manifest": manifest, "last_token": 0}
            database.execute(BATCH.insert().values(made))
        elif before != manifest:
            held = self._mine & (ITEM.c.state == "leased") & (ITEM.c.lease_until > self._store.now(database))
            if holder := database.execute(select(ITEM.c.owner).where(held).limit(1)).scalar():
                raise LedgerError(
                    f"{self._folder}: {holder} is rendering another batch into this folder; wait for it"
                    " or give another --output"
                )
            database.execute(BATCH.update().where(mine).values(manifest=manifest))

    def _next_token(self, database: Connection, manifest: str) -> int:
        """Holds the batch's row, so that two claims of one batch never see the same item."""
        mine = (BATCH.c.batch == self._store.batch) & (BATCH.c.manifest == manifest)
        raised = BATCH.update().where(mine).values(last_token=BATCH.c.last_token + 1).returning(BATCH.c.last_token)
        token = database.execute(raised).scalar()
        if token is None:
            raise self._of_another_batch()
        return token

    def _of_another_batch(self) -> LedgerError:
        return LedgerError(f"{self._folder} holds another batch than its manifest says: submit the jobs again")

    def _first(self, database: Connection, which: ColumnElement[bool]) -> Row[Any] | None:
        """The item that was tried least, and of those the first."""
        query = select(ITEM).where(self._mine, which).order_by(ITEM.c.attempt, ITEM.c.position)
        return database.execute(query.limit(1)).first()

    def _change(self, database: Connection, lease: Lease, **values: Any) -> bool:
        held = self._mine & (ITEM.c.id == lease.item) & (ITEM.c.token == lease.token) & (ITEM.c.state == "leased")
        return database.execute(ITEM.update().where(held).values(values)).rowcount == 1

    def _each(self, database: Connection, change: Any, rows: list[dict[str, Any]]) -> None:
        """Carries out a change once for each row's `key`."""
        if rows:
            one: ColumnElement[bool] = self._mine & (ITEM.c.id == bindparam("key"))
            database.execute(change.where(one), rows)
