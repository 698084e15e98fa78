"""Copies of resources that were read through this gateway, in an SQLite file of its own.

A convenience, never a dependency: what is kept is kept later and in another thread, what cannot be
kept is dropped, and a file that is locked, full or broken is left alone for a while. Nothing here
raises, no reader waits for a writer, and nobody waits long for a disk that does not answer. Everything
is held under the tenant that read it.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

KEEP_AFTER_S = 0.2
AGAIN_AFTER_S = 10.0
BUSY_MS = 250
READ_WITHIN_S, CLOSE_WITHIN_S = 2.0, 5.0
MAX_WAITING, MAX_BYTES = 5_000, 262_144
PER_TENANT, IN_ALL = 2_000, 50_000
GOOD_FOR_S = 7 * 86_400

T = TypeVar("T")
Key = tuple[str, str, str]
"""Kind (`jobs`), tenant, identifier."""

log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Copy:
    """A resource as it was, serialized, and when that was (Unix time)."""

    body: bytes
    seen_at: float


class Copies:
    """The copies of one gateway. `keep` and `forget` return at once."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Takes the file, which is made where there is none. It can be deleted at any time that
        the gateway is not running."""
        self._path, self._clock = path, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="copies")
        self._waiting: dict[Key, tuple[Any, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._late: asyncio.Future[list[Copy]] | None = None
        self._file: sqlite3.Connection | None = None
        self._kinds: set[str] = set()
        self._not_before = 0.0

    def keep(self, kind: str, tenant_id: str, resources: Iterable[tuple[str, Any]]) -> None:
        """Keeps messages by their identifiers; None forgets one."""
        now = self._clock()
        for identifier, message in resources:
            key = (kind, tenant_id, identifier)
            if key in self._waiting or len(self._waiting) < MAX_WAITING:
                self._waiting[key] = (message, now)
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP_AFTER_S, self._begin)

    async def one(self, kind: str, tenant_id: str, identifier: str) -> Copy | None:
        """The copy of one resource, if there is one."""
        found = await self._read(kind, tenant_id, "AND id = ?", identifier)
        return found[0] if found else None

    async def all(self, kind: str, tenant_id: str) -> list[Copy]:
        """All copies of a kind, in no order."""
        return await self._read(kind, tenant_id, "")

    async def flush(self) -> None:
        """Waits until what is kept so far is written, or dropped."""
        self._begin()
        if self._writing is not None:
            await self._writing

    async def close(self) -> None:
        """Writes what waits, and closes the file; a disk that hangs is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self.flush()
                await self._do(self._close, None)
        self._thread.shutdown(wait=False)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None and not self._writing.done():
            # The thread is behind; what comes meanwhile takes the places of what is the same.
            self._timer = asyncio.get_running_loop().call_later(KEEP_AFTER_S, self._begin)
            return
        waiting, self._waiting = self._waiting, {}
        if waiting:
            self._writing = asyncio.ensure_future(self._do(lambda: self._write(waiting), None))

    async def _read(self, kind: str, tenant_id: str, where: str, *values: str) -> list[Copy]:
        query = (
            f"SELECT body, seen_at FROM {_table(kind)} WHERE tenant_id = ? AND seen_at > ? {where}"
        )
        oldest = self._clock() - GOOD_FOR_S

        def read() -> list[Copy]:
            rows = self._open(kind).execute(query, (tenant_id, oldest, *values))
            return [Copy(body, seen_at) for body, seen_at in rows]

        if self._late is not None and not self._late.done():
            return []
        nothing: list[Copy] = []
        reading = asyncio.ensure_future(self._do(read, nothing))
        await asyncio.wait({reading}, timeout=READ_WITHIN_S)
        if reading.done():
            return reading.result()
        self._late = reading
        log.warning("copies_not_read", seconds=READ_WITHIN_S)
        return []

    async def _do(self, act: Callable[[], T], otherwise: T) -> T:
        """What `act` gives, in the thread; `otherwise` where the file does not do its part."""

        def guarded() -> T:
            if time.monotonic() < self._not_before:
                return otherwise
            try:
                return act()
            except Exception as error:
                self._not_before = time.monotonic() + AGAIN_AFTER_S
                self._close()
                log.warning("copies_not_kept", error=type(error).__name__)
                return otherwise

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)
        except RuntimeError:  # it is closed
            return otherwise

    # What follows is called in the thread alone.

    def _open(self, kind: str) -> sqlite3.Connection:
        if self._file is None:
            self._file = connect(self._path)
        if kind not in self._kinds:
            self._file.execute(
                f"CREATE TABLE IF NOT EXISTS {_table(kind)} (tenant_id TEXT NOT NULL, "
                "id TEXT NOT NULL, seen_at REAL NOT NULL, body BLOB NOT NULL, "
                "PRIMARY KEY (tenant_id, id)) WITHOUT ROWID"
            )
            self._kinds.add(kind)
        return self._file

    def _write(self, waiting: dict[Key, tuple[Any, float]]) -> None:
        for kind in sorted({kind for kind, _, _ in waiting}):
            file = self._open(kind)
            mine = [(key[1:], *value) for key, value in waiting.items() if key[0] == kind]
            with file:
                file.execute("BEGIN IMMEDIATE")
                _store(file, _table(kind), mine)
                _trim(file, _table(kind), tenants={tenant for (tenant, _), _, _ in mine})

    def _close(self) -> None:
        file, self._file = self._file, None
        self._kinds.clear()
        if file is not None:
            file.close()


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file, which only its owner may read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        file.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        file.execute("PRAGMA journal_mode = WAL")
        # Copies may be lost with the machine's power; they are made again by reading.
        file.execute("PRAGMA synchronous = OFF")
    except sqlite3.Error:
        file.close()
        raise
    return file


def _store(file: sqlite3.Connection, table: str, rows: list[tuple[Any, Any, float]]) -> None:
    for (tenant_id, identifier), message, seen_at in rows:
        body = b"" if message is None else message.SerializeToString()
        if message is None or len(body) > MAX_BYTES:
            delete = f"DELETE FROM {table} WHERE tenant_id = ? AND id = ?"
            file.execute(delete, (tenant_id, identifier))
        else:
            insert = f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)"
            file.execute(insert, (tenant_id, identifier, seen_at, body))


def _trim(file: sqlite3.Connection, table: str, *, tenants: set[str]) -> None:
    """Deletes what was not seen for longest, where a tenant or all have too many."""
    for tenant in sorted(tenants):
        mine = ("WHERE tenant_id = ?", (tenant,))
        _delete_beyond(file, table, which=mine, most=PER_TENANT)
    _delete_beyond(file, table, which=("", ()), most=IN_ALL)


def _delete_beyond(
    file: sqlite3.Connection, table: str, *, which: tuple[str, tuple[str, ...]], most: int
) -> None:
    where, values = which
    (count,) = file.execute(f"SELECT count(*) FROM {table} {where}", values).fetchone()
    if count > most:
        file.execute(
            f"DELETE FROM {table} WHERE (tenant_id, id) IN (SELECT tenant_id, id FROM {table} "
            f"{where} ORDER BY seen_at LIMIT ?)",
            (*values, count - most),
        )


def _table(kind: str) -> str:
    """Kinds are names of messages, so that they can stand in SQL."""
    return f"mod_scaimind_{kind}"
