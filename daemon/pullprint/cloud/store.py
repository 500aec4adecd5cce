"""The database: one function is one business transaction, run in a worker thread.

SQLite has one writer at a time, so one thread does everything, and a transaction costs one hop between threads
instead of one for each statement. PostgreSQL gets a pool. Functions take a `Transaction` and what they need, are
synchronous, and either return (commit) or raise (roll back); nobody is woken before the commit.

Building a statement costs SQLAlchemy more than SQLite takes to run it. What an order or a poll waits for is built
once, at module level, with `bindparam`.
"""

import asyncio
import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, Row, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.schema import Table

from pullprint.base.checkpoint import checkpoint
from pullprint.base.clock import Clock
from pullprint.base.errors import ConfigError, PullprintError
from pullprint.base.files import private_directory
from pullprint.cloud.migrations import upgrade

POOL = 8
"""Connections (and threads) to PostgreSQL."""
WAL_TRIES, WAL_PAUSE = 100, 0.05
"""Tries, and seconds between them, to switch a new database over; only its first programs ever wait."""
LOCK_WAIT = 10
"""Seconds that a transaction waits for another process's."""

AnyRow: TypeAlias = Row[*tuple[Any, ...]]

P = ParamSpec("P")
T = TypeVar("T")


class StoreBusy(PullprintError):
    """The cloud's database did not answer in time. Nothing was changed; try again in a moment."""

    code = "store-busy"
    http_status = 503


class Transaction:
    """A connection inside a transaction, the time, and who is to be woken once it is committed."""

    def __init__(self, connection: Connection, now: float) -> None:
        self.connection = connection
        self.now = now
        """Seconds since the epoch."""
        self.topics: set[str] = set()

    def run(self, statement: Executable, values: Any = None) -> CursorResult[*tuple[Any, ...]]:
        """Execute *statement*."""
        return self.connection.execute(statement, values)

    def one(self, statement: Executable, values: Any = None) -> AnyRow | None:
        """The first row, or None."""
        return self.connection.execute(statement, values).first()

    def all(self, statement: Executable, values: Any = None) -> Sequence[AnyRow]:
        """Every row."""
        return self.connection.execute(statement, values).all()

    def add(self, table: Table, values: dict[str, Any]) -> bool:
        """Insert a row unless there is one with its key; whether it is new."""
        statement = _insert_once(self.connection.dialect.name, table)
        return self.connection.execute(statement, values).first() is not None

    def wake(self, *topics: str) -> None:
        """Whoever waits for one of *topics* looks again after the commit."""
        self.topics.update(topics)


class Store:
    """The database at *url*, its schema brought up to date by `migrations.upgrade`."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._clock = clock
        self.engine = _engine(url)
        self._modes = {mode: self.engine.execution_options(pullprint_mode=mode) for mode in ("full", "light", "read")}
        workers = 1 if self.engine.dialect.name == "sqlite" else POOL
        self._executor = ThreadPoolExecutor(workers, "pullprint-store")
        self.on_commit: Callable[[set[str]], None] | None = None
        """Called in the worker thread with the topics of a transaction that woke somebody."""

    def transact(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* here and now, durably: for commands, which have no event loop."""
        return self._transact("full", work, *args, **kwargs)

    async def run(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work* as a transaction that survives a power cut once this returns."""
        return await self._in_thread("full", work, *args, **kwargs)

    async def note(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `run` without waiting for the disk: a power cut, though no crash, may take back the last of these."""
        return await self._in_thread("light", work, *args, **kwargs)

    async def read(self, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *work*, which only reads, beside any writer."""
        return await self._in_thread("read", work, *args, **kwargs)

    def upgrade(self) -> None:
        """Bring the schema up to date; blocking. Raises ConfigError, WrittenByNewer, and StoreBusy when another process
        holds it for too long."""
        try:
            upgrade(self.engine)
        except OperationalError as error:
            raise StoreBusy from error
        except DBAPIError as error:
            raise ConfigError(path="database", reason="it cannot be opened or is damaged") from error

    async def close(self) -> None:
        """Finish what was begun, then let go of the database."""
        await asyncio.get_running_loop().run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        """`close`, for commands."""
        self._executor.shutdown(wait=True)
        self.engine.dispose()

    async def _in_thread(
        self, mode: str, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: self._transact(mode, work, *args, **kwargs))

    def _transact(
        self, mode: str, work: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            with self._modes[mode].connect() as connection, connection.begin():
                transaction = Transaction(connection, self._clock.now())
                result = work(transaction, *args, **kwargs)
                checkpoint(f"deciding:{work.__name__}")
            checkpoint(f"decided:{work.__name__}")
        except OperationalError as error:
            raise StoreBusy from error
        if transaction.topics and self.on_commit:
            self.on_commit(transaction.topics)
        return result


@functools.cache
def _insert_once(dialect: str, table: Table) -> ReturningInsert[*tuple[Any, ...]]:
    # Drivers do not agree on an INSERT's row count, so the key comes back instead.
    statement = sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
    return statement.on_conflict_do_nothing().returning(*table.primary_key.columns)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError(path="database", reason="it is not a database URL") from error
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ConfigError(path="database", reason="it is neither PostgreSQL nor SQLite")
    # Parameters are titles, hashes and keys: none of them may end up in an exception's text, and so in a log.
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            try:
                private_directory(Path(parsed.database).parent)
            except OSError as error:
                raise ConfigError(path=Path(parsed.database).parent, reason=error.strerror or "no access") from error
        engine = create_engine(parsed, hide_parameters=True, connect_args={"timeout": LOCK_WAIT}, pool_size=1)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        engine = create_engine(
            parsed,
            hide_parameters=True,
            pool_size=POOL,
            pool_pre_ping=True,
            connect_args={"connect_timeout": LOCK_WAIT},
        )
        event.listen(engine, "begin", _begin_postgresql)
    return engine


def _use_wal(cursor: Any) -> None:
    """Write-ahead logging; kept in the file. Raises sqlite3.OperationalError.

    Several programs that open a new database at the same moment want to switch it over, and to them SQLite says
    «locked» at once, without busy_timeout.
    """
    for _ in range(WAL_TRIES):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            time.sleep(WAL_PAUSE)
        else:
            return
    cursor.execute("PRAGMA journal_mode = WAL")


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Transactions are begun by _begin_sqlite, not by the driver, which begins them too late to be a snapshot.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {LOCK_WAIT * 1000}")
    _use_wal(cursor)
    cursor.execute("PRAGMA foreign_keys = ON")
    # Key parts of ended jobs and old day keys are overwritten, not just unlinked.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("pullprint_mode", "full")
    driver: Any = connection.connection.driver_connection
    if mode == "read":
        driver.execute("BEGIN")
        return
    driver.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'light' else 'FULL'}")
    # A transaction that begins as a reader cannot become a writer once another process has written.
    driver.execute("BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    mode = connection.get_execution_options().get("pullprint_mode", "full")
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_WAIT}s'")
    if mode == "light":
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


@contextlib.contextmanager
def opened(url: str, clock: Clock) -> Iterator[Store]:
    """The store at *url* with its schema up to date, for a command. Raises ConfigError, StoreBusy, WrittenByNewer."""
    store = Store(url, clock)
    try:
        store.upgrade()
        yield store
    except DBAPIError as error:
        raise ConfigError(path="database", reason="it cannot be opened or is damaged") from error
    finally:
        store.close_now()
