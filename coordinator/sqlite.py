"""SQLite files, opened with care: what the embedded store and the embedded streams have in common.

Theory of operation. A file has one process (a lock on a side file), one writing thread and a few
reading threads, each with a connection of its own; the event loop hands them work and gets futures.
Every step of a statement gives the interpreter lock away and must win it back from a busy event loop,
so what runs often uses few, wide statements: many rows in one INSERT, many bodies in one answer.

An existing file is never replaced: a new one is built aside and renamed into place, so a file that is
empty, foreign or damaged is a fault for a person to look at, not a reason to start anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

BUSY_TIMEOUT_S = 5.0
WRITER_CACHE_KIB = 8192
READER_CACHE_KIB = 4096
CHECKPOINT_PAGES = 4096  # 16 MiB of log before it is folded into the file
WAL_LIMIT_BYTES = 64 << 20  # what is kept of the log file after a large transaction
CHECKED_BYTES = 256 << 20  # larger files are not read whole at start
STATEMENTS_KEPT = 256
ROWS_PER_STATEMENT = 64


class FileTrouble(Exception):
    """A file cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The statements that make a file: all at once, or one migration after the other."""

    current: str
    migrations: tuple[str, ...]
    application_id: int  # tells the files of this project apart, and from any other

    @classmethod
    def of(cls, folder: Path, application_id: int) -> Schema:
        """From `schema.sql` and `migrations/NNNN_….sql`."""
        current = (folder / "schema.sql").read_text(encoding="utf-8")
        files = sorted((folder / "migrations").glob("[0-9]*.sql"))
        migrations = tuple(file.read_text(encoding="utf-8") for file in files)
        return cls(current, migrations, application_id)


class FileLock:
    """Keeps a second process away from a file; the system frees it when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> None:
        """Raises FileTrouble when another one holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 256, 0).decode("utf-8", "replace") or "another process"
            os.close(descriptor)
            raise FileTrouble(
                f"{self._path.parent} is in use by a coordinator ({holder}); "
                "stop that one first, or use another data directory"
            ) from None
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # a name for the message above; a full disk is no matter
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """A connection of the calling thread; transactions are begun and ended by hand."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'rw' if writes else 'ro'}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        cached_statements=STATEMENTS_KEPT,
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    if writes:
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
    else:
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return connection


def prepare(path: Path, schema: Schema) -> None:
    """Makes the file ready: creates it where there is none, checks and migrates it where there is.

    Raises:
        FileTrouble: it cannot be used.
    """
    if not path.exists():
        log = _beside(path, "-wal")
        if log.exists() and log.stat().st_size > 0:
            raise FileTrouble(f"{path} is gone but its log {log.name} is there; restore the file")
        _create(path, schema)
    elif path.stat().st_size == 0:
        raise FileTrouble(f"{path} is empty; restore it, or move it away to start without state")
    with contextlib.closing(connect(path, writes=True)) as connection:
        _check(connection, path, schema)
        _use_log(connection, path)
        _migrate(connection, path, schema.migrations)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _create(path: Path, schema: Schema) -> None:
    draft = _beside(path, ".new")
    for leftover in (draft, _beside(draft, "-wal"), _beside(draft, "-shm")):
        leftover.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    with contextlib.closing(connect(draft, writes=True)) as connection:
        _use_log(connection, draft)
        connection.executescript(
            f"BEGIN; {schema.current}; PRAGMA application_id = {schema.application_id};"
            f"PRAGMA user_version = {len(schema.migrations)}; COMMIT;"
        )
    sync(draft)
    draft.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Brings a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pragma(connection: sqlite3.Connection, name: str) -> Any:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _use_log(connection: sqlite3.Connection, path: Path) -> None:
    """Write-ahead logging; the file remembers it."""
    if _pragma(connection, "journal_mode = WAL") != "wal":
        raise FileTrouble(
            f"{path}: this file system cannot keep a write-ahead log; use a local disk"
        )


def _check(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    if _pragma(connection, "application_id") != schema.application_id:
        raise FileTrouble(f"{path} is a database of another program; use another data directory")
    known, found = len(schema.migrations), _pragma(connection, "user_version")
    if found > known:
        raise FileTrouble(
            f"{path} was written by a newer version (schema {found}, known here is {known}); "
            "upgrade this program, or restore a backup of before"
        )
    if path.stat().st_size <= CHECKED_BYTES:
        verdict = _pragma(connection, "quick_check(1)")
        if verdict != "ok":
            raise FileTrouble(f"{path} is damaged ({verdict}); restore a backup")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(f"PRAGMA user_version = {found}")  # refused when it can only be read
    connection.execute("ROLLBACK")


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    done = _pragma(connection, "user_version")
    for number, script in enumerate(migrations[done:], start=done + 1):
        try:
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error as error:
            raise FileTrouble(f"{path}: migration {number} failed ({error})") from error


class _Call:
    """One piece of work with the future that waits for it."""

    __slots__ = ("_future", "_loop", "work")

    def __init__(self, work: Work[Any]) -> None:
        self.work = work
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Any] = self._loop.create_future()

    async def outcome(self) -> Any:
        return await self._future

    def settle(self, result: object, error: BaseException | None) -> None:
        """Called by the thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever asked
            self._loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: object, error: BaseException | None) -> None:
        if self._future.done():
            return
        if error is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(error)


class _Lane:
    """Threads that do work on connections of their own, first come, first served."""

    def __init__(self, path: Path, *, writes: bool, threads: int) -> None:
        self._path = path
        self._writes = writes
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"{path.name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def do(self, work: Work[T]) -> T:
        call = _Call(work)
        self._calls.put(call)
        result: T = await call.outcome()
        return result

    def stop(self) -> None:
        """Ends the threads after the work that waits; blocks until then."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        connection: sqlite3.Connection | None = None
        while (call := self._calls.get()) is not None:
            try:
                if connection is None:
                    connection = connect(self._path, writes=self._writes)
                call.settle(call.work(connection), None)
            except sqlite3.Error as error:
                # what the connection holds after a fault is in doubt; the next work gets a new one
                _discard(connection)
                connection = None
                call.settle(None, FileTrouble(f"{self._path}: {error}"))
            except BaseException as error:
                call.settle(None, error)
        _discard(connection)


def _discard(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN") -> Iterator[None]:
    """All or nothing; readers see one state throughout."""
    connection.execute(begin)
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


class Database:
    """One file, open: transactions in its writing thread, questions in its reading threads.

    Whatever goes wrong with the file is raised as `trouble`; what the work itself raises comes
    through, and its transaction is rolled back.
    """

    def __init__(
        self, path: Path, schema: Schema, *, trouble: type[Exception], readers: int = 2
    ) -> None:
        self.path = path
        self._schema = schema
        self._trouble = trouble
        self._readers_count = readers
        self._lock = FileLock(_beside(path, ".lock"))
        self._writer: _Lane | None = None
        self._readers: _Lane | None = None

    async def open(self) -> None:
        """Locks, creates or checks, and migrates the file. Raises `trouble`, with what to do."""
        try:
            await asyncio.to_thread(self._prepare)
        except FileTrouble as error:
            raise self._trouble(str(error)) from error
        except (sqlite3.Error, OSError) as error:
            raise self._trouble(
                f"{self.path} cannot be used ({error}); it was left as it is: "
                "check the disk and the permissions, or restore a backup"
            ) from error
        self._writer = _Lane(self.path, writes=True, threads=1)
        self._readers = _Lane(self.path, writes=False, threads=self._readers_count)

    async def close(self) -> None:
        """Finishes what was begun; safe to call twice."""
        writer, readers = self._writer, self._readers
        self._writer = self._readers = None
        if writer is not None and readers is not None:
            await asyncio.to_thread(readers.stop)
            await asyncio.to_thread(writer.stop)
        self._lock.release()

    async def write(self, work: Work[T]) -> T:
        """Does work in a transaction of its own, durable on return."""

        def durable(connection: sqlite3.Connection) -> T:
            with transaction(connection, "BEGIN IMMEDIATE"):
                return work(connection)

        return await self._do(self._writer, durable)

    async def read(self, work: Work[T]) -> T:
        """Asks; sees everything that `write` has returned from."""
        return await self._do(self._readers, work)

    async def _do(self, lane: _Lane | None, work: Work[T]) -> T:
        if lane is None:
            raise self._trouble(f"{self.path} is not open")
        try:
            return await lane.do(work)
        except FileTrouble as error:
            raise self._trouble(str(error)) from error

    def _prepare(self) -> None:
        if not self.path.parent.is_dir():
            raise FileTrouble(
                f"the directory {self.path.parent} does not exist; "
                "create it, or mount what should be there"
            )
        self._lock.take()
        try:
            prepare(self.path, self._schema)
        except BaseException:
            self._lock.release()
            raise


def insert_rows(
    connection: sqlite3.Connection,
    head: str,
    rows: Sequence[tuple[Any, ...]],
    *,
    tail: str = "",
) -> None:
    """Inserts many rows by few statements, in order: `head` VALUES (…), (…) `tail`.

    The numbers of rows in a statement are powers of two, so that few statements are ever prepared.
    """
    done, size = 0, ROWS_PER_STATEMENT
    while done < len(rows):
        while size > len(rows) - done:
            size //= 2
        part = rows[done : done + size]
        row = f"({','.join('?' * len(part[0]))})"
        connection.execute(
            f"{head} VALUES {','.join([row] * size)} {tail}",
            [value for one in part for value in one],
        )
        done += size
