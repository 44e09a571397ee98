"""Where ledgers lie: a SQLite file in each output folder, or one PostgreSQL database for those of many machines."""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from omnihuman.errors import UserError

LEDGER = "ledger.sqlite"
PLACE = "OMNIHUMAN_LEDGER"
"""Environment variable with the URL of a PostgreSQL database; without it each folder has a file of its own."""
STATES = ("pending", "leased", "done", "failed", "dead")
SCHEMA = 2
"""Of the tables below. Schema 1 had no batches, and no record of its own number."""
_BUSY_SECONDS = 60.0
_LOCK = 0x0A71  # any number, of this purpose alone
_FINISHED = "finished videos are found by their sidecars"

_TABLES = MetaData()
BATCH = Table(
    "batch",
    _TABLES,
    Column("batch", String, primary_key=True),
    Column("manifest", String, nullable=False),
    Column("last_token", BigInteger, nullable=False),
)
ITEM = Table(
    "item",
    _TABLES,
    Column("batch", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("state", String, CheckConstraint(f"state IN {STATES}"), nullable=False),
    Column("owner", String, nullable=False, default=""),
    Column("token", BigInteger, nullable=False, default=0),
    Column("lease_until", Double, nullable=False, default=0.0),
    Column("attempt", Integer, nullable=False, default=0),
    Column("memory_failures", Integer, nullable=False, default=0),
    Column("not_before", Double, nullable=False, default=0.0),
    Column("error", String, nullable=False, default=""),
    Column("seconds", Double, nullable=False, default=0.0),
    Column("num_frames", Integer, nullable=False, default=0),
    Index("item_by_state", "batch", "state", "attempt", "position"),
)
_SCHEMA = Table("ledger_schema", _TABLES, Column("version", Integer, primary_key=True))


class LedgerError(UserError):
    """The ledger itself cannot be used, whatever the item."""


class Store:
    """The tables of one output folder's batch."""

    def __init__(self, engine: Engine, batch: str, name: str) -> None:
        self.batch = batch
        self.name = name
        """For people, without a password."""
        self._engine = engine
        self._is_checked = False

    def exists(self) -> bool:
        """Whether the folder has a batch."""
        with self._begun() as database:
            if not inspect(database).has_table(BATCH.name):
                return False
            return database.execute(select(BATCH.c.batch).where(BATCH.c.batch == self.batch)).first() is not None

    def now(self, database: Connection) -> float:
        """Seconds since the epoch by the database's clock."""
        return float(database.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one())

    @contextmanager
    def transaction(self, *, create: bool = False) -> Iterator[Connection]:
        """All that the block does, or nothing.

        Raises:
            LedgerError: the database is away, damaged or of another schema.
        """
        with self._begun() as database:
            if create:
                self._hold(database)
            self._check(database, create)
            yield database

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as database:
                yield database
        except SQLAlchemyError as error:
            raise LedgerError(f"{self.name} cannot be used ({_said(error)}); {self._remedy()}") from error

    def _check(self, database: Connection, create: bool) -> None:
        if self._is_checked:
            return
        tables = inspect(database).get_table_names()
        if _SCHEMA.name not in tables and BATCH.name not in tables:
            if not create:
                raise self._missing()
            _TABLES.create_all(database)
            database.execute(_SCHEMA.insert().values(version=SCHEMA))
            return
        found = database.execute(select(_SCHEMA.c.version)).scalar() if _SCHEMA.name in tables else 1
        if found != SCHEMA:
            raise LedgerError(
                f"{self.name} has schema {found}, this version of omnihuman writes {SCHEMA}; {self._remedy()}"
            )
        self._is_checked = True

    def _hold(self, database: Connection) -> None:
        """Until the end of the transaction nobody else plans a batch, nor makes the tables."""
        database.execute(select(func.pg_advisory_xact_lock(_LOCK)))

    def _missing(self) -> LedgerError:
        return LedgerError(f"{self.name} is missing: submit the jobs again, {_FINISHED}")

    def _remedy(self) -> str:
        return f"see that the server of {PLACE} runs and lets this user in"


class _FileStore(Store):
    """A SQLite file, one writer at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        engine = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool)
        event.listen(engine, "begin", _begin_immediate)
        super().__init__(engine, "", str(path))

    def exists(self) -> bool:
        """An empty file is what a kill has left of the first submission."""
        return self._holds_anything() and super().exists()

    def now(self, database: Connection) -> float:
        """By this machine's clock."""
        return time.time()

    @contextmanager
    def transaction(self, *, create: bool = False) -> Iterator[Connection]:
        """As `Store.transaction`; only with `create` may the file be missing."""
        if not create and not self._holds_anything():
            raise self._missing()
        with super().transaction(create=create) as database:
            yield database

    def _hold(self, database: Connection) -> None:
        """The transaction holds the file already."""

    def _holds_anything(self) -> bool:
        return self._path.is_file() and self._path.stat().st_size > 0

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, _BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        # Waiting for the disk at each commit allows 27 claims a second. Without it a failure of power may lose the last
        # states, not the ledger; what was published is known by its sidecar.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _remedy(self) -> str:
        return f"delete it and submit the jobs again, {_FINISHED}"


def open_store(folder: Path) -> Store:
    """The store of an output folder; nothing is made before a batch is planned.

    Raises:
        UserError: the environment names another kind of database, or one whose driver is missing.
    """
    place = os.environ.get(PLACE, "")
    if not place:
        return _FileStore(folder / LEDGER)
    try:
        url = make_url(place)
        if url.get_backend_name() != "postgresql":
            raise UserError(f"{PLACE} names {url.get_backend_name()}: give postgresql+psycopg://USER@HOST/DATABASE")
        engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    except (ArgumentError, ValueError) as error:
        raise UserError(f"{PLACE} is no URL: give postgresql+psycopg://USER@HOST/DATABASE") from error
    except ImportError as error:
        raise UserError(f"{PLACE} needs the driver psycopg: pip install 'omnihuman[postgres]'") from error
    shown = url.set(query={}).render_as_string(hide_password=True)  # a password may stand behind the question mark, too
    return Store(engine, str(folder.resolve()), shown)


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # so that what is read in it is still true when it writes


def _said(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
