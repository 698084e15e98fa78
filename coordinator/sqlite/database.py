"""One open SQLite file: transactions in its writing thread, questions in its reading threads.

What faults come to. A write that fails (full disk, failed fsync, a disk that turned read-only) leaves the
file as it was or with the whole transaction; it is not known which. Trying again is safe: a transaction
writes each of its pages anew, so nothing relies on what an fsync that failed may have thrown away.
A file that was deleted or replaced under this process could be written for ever and all be lost at its
end; each transaction first looks whether it still has the file of that name.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from coordinator.sqlite.files import FileLock, FileTrouble, Schema, beside, connect, prepare

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

ROWS_PER_STATEMENT = 64
FOLD_CHANGES = 2_000  # of rows that the log may hold when nothing more comes
REST_S = 0.01
FOLD = "PRAGMA wal_checkpoint(PASSIVE)"


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
            threading.Thread(
                target=self._serve, args=[_opened(path, writes)], name=path.name, daemon=True
            )
            for _ in range(threads)
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

    def _serve(self, first: sqlite3.Connection) -> None:
        connection: sqlite3.Connection | None = first
        folded = 0  # changes of the connection as of which the log was folded
        while True:
            changes = connection.total_changes if connection is not None else 0
            is_long = changes - folded >= FOLD_CHANGES
            try:
                call = self._calls.get(timeout=REST_S if is_long else None)
            except queue.Empty:
                # else a commit that finds the log too long folds it first, and who waits for it waits
                folded = changes
                _fold(connection)
                continue
            if call is None:
                break
            try:
                if connection is None:
                    connection = _opened(self._path, self._writes)
                call.settle(call.work(connection), None)
            except sqlite3.Error as error:
                # what the connection holds after a fault is in doubt; the next work gets a new one
                _discard(connection)
                connection, folded = None, 0
                call.settle(None, FileTrouble(f"{self._path}: {error}"))
            except BaseException as error:
                call.settle(None, error)
        _discard(connection)


def _opened(path: Path, writes: bool) -> sqlite3.Connection:
    """A connection that has its files open, whatever becomes of their names."""
    connection = connect(path, writes=writes, shared=True)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return connection


def _fold(connection: sqlite3.Connection | None) -> None:
    """Brings what the log holds into the file; of a fault the next work will tell."""
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.execute(FOLD).fetchall()


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


class _Anchor:
    """A connection that only stays open, so that the log and its index stay the same files; knows
    whether they still have their names."""

    def __init__(self, path: Path) -> None:
        self._paths = [beside(path, suffix) for suffix in ("", "-wal", "-shm")]
        self._connection = _opened(path, True)
        self._files = [_identity(one) for one in self._paths]

    def check(self) -> None:
        """Raises FileTrouble when a file was deleted or replaced."""
        for path, known in zip(self._paths, self._files, strict=True):
            if _identity(path) != known:
                raise FileTrouble(
                    f"{path} was deleted or replaced while in use; nothing more is written: "
                    "stop this coordinator, and restore a backup"
                )

    def close(self) -> None:
        _discard(self._connection)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Database:
    """One file, open: transactions in its writing thread, questions in its reading threads.

    Whatever goes wrong with the file is raised as `trouble`; what the work itself raises comes
    through, and its transaction is rolled back.

    Attributes:
        in_doubt: whether the newest transaction met a fault of the file.
    """

    def __init__(
        self, path: Path, schema: Schema, *, trouble: type[Exception], readers: int = 2
    ) -> None:
        self.path = path
        self._schema = schema
        self._trouble = trouble
        self._readers_count = readers
        self._lock = FileLock(beside(path, ".lock"))
        self._writer: _Lane | None = None
        self._readers: _Lane | None = None
        self._anchor: _Anchor | None = None
        self.in_doubt = False

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

    async def close(self) -> None:
        """Finishes what was begun; safe to call twice."""
        writer, readers = self._writer, self._readers
        self._writer = self._readers = None
        if writer is not None and readers is not None:
            await asyncio.to_thread(readers.stop)
            await asyncio.to_thread(writer.stop)
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            await asyncio.to_thread(anchor.close)
        self._lock.release()

    async def write(self, work: Work[T]) -> T:
        """Does work in a transaction of its own, durable on return."""
        anchor = self._anchor

        def durable(connection: sqlite3.Connection) -> T:
            if anchor is not None:
                anchor.check()
            with transaction(connection, "BEGIN IMMEDIATE"):
                return work(connection)

        try:
            result = await self._do(self._writer, durable)
        except self._trouble:
            self.in_doubt = True
            raise
        self.in_doubt = False
        return result

    async def fold(self) -> None:
        """Brings what the log holds into the file itself, as far as nobody reads older states."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(FOLD).fetchall()

        await self._do(self._writer, work)

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
            self._anchor = _Anchor(self.path)
            self._writer = _Lane(self.path, writes=True, threads=1)
            self._readers = _Lane(self.path, writes=False, threads=self._readers_count)
        except BaseException:
            self._lock.release()
            raise


def insert_rows(
    connection: sqlite3.Connection,
    head: str,
    rows: Sequence[tuple[Any, ...]],
    *,
    row: str = "",
    tail: str = "",
) -> None:
    """Inserts many rows by few statements, in order: `head` VALUES (…), (…) `tail`.

    The numbers of rows in a statement are powers of two, so that few statements are ever prepared. Where
    a row is not its values one by one, `row` says what it is.
    """
    for part in _parts(rows):
        each = row or f"({','.join('?' * len(part[0]))})"
        connection.execute(
            f"{head} VALUES {','.join([each] * len(part))} {tail}",
            [value for one in part for value in one],
        )


def delete_rows(
    connection: sqlite3.Connection,
    head: str,
    one: str,
    *,
    rows: Sequence[tuple[Any, ...]],
) -> None:
    """Deletes many rows by few statements: `head` (the condition holds with one of these values)."""
    for part in _parts(rows):
        where, values = any_of(one, part)
        connection.execute(f"{head} ({where})", values)


def any_of(one: str, rows: Sequence[tuple[Any, ...]]) -> tuple[str, list[Any]]:
    """That a condition on columns holds with one of some rows of values; and its values.

    SQLite looks each of them up; with IN and several columns it would read them all.
    """
    return " OR ".join([f"({one})"] * len(rows)), [value for row in rows for value in row]


def _parts(rows: Sequence[tuple[Any, ...]]) -> Iterator[Sequence[tuple[Any, ...]]]:
    done, size = 0, ROWS_PER_STATEMENT
    while done < len(rows):
        while size > len(rows) - done:
            size //= 2
        yield rows[done : done + size]
        done += size
