"""One open SQLite file: transactions in its writing thread, questions in its reading threads."""

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
        self._lock = FileLock(beside(path, ".lock"))
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
