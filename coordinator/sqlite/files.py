"""Opening a SQLite file with care.

An existing file is never replaced: a new one is built aside and renamed into place, so a file that is
empty, foreign or damaged is a fault for a person to look at, not a reason to start anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

SQLITE_LEAST = (3, 38, 0)  # JSON built in, RETURNING, upserts of many rows
BUSY_TIMEOUT_S = 5.0
SETTINGS = ("synchronous = FULL", "foreign_keys = ON", "temp_store = MEMORY")
WRITER_SETTINGS = (
    "wal_autocheckpoint = 4096",  # pages, 16 MiB, of log before it is folded into the file
    "journal_size_limit = 67108864",  # bytes of log that are kept after a large transaction
    "cache_size = -8192",  # KiB
)
READER_SETTINGS = ("query_only = ON", "cache_size = -4096")
CHECKED_BYTES = 256 << 20  # larger files are not read whole at start
STATEMENTS_KEPT = 256


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


def connect(path: Path, *, writes: bool, shared: bool = False) -> sqlite3.Connection:
    """A connection of the calling thread, or of any; transactions are begun and ended by hand."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'rw' if writes else 'ro'}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=not shared,
        cached_statements=STATEMENTS_KEPT,
    )
    try:
        for setting in (*SETTINGS, *(WRITER_SETTINGS if writes else READER_SETTINGS)):
            connection.execute(f"PRAGMA {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: Path, schema: Schema) -> None:
    """Makes the file ready: creates it where there is none, checks and migrates it where there is.

    Raises:
        FileTrouble: it cannot be used.
    """
    if sqlite3.sqlite_version_info < SQLITE_LEAST:
        raise FileTrouble(
            f"this Python comes with SQLite {sqlite3.sqlite_version}; at least "
            f"{'.'.join(map(str, SQLITE_LEAST))} is needed"
        )
    if not path.exists():
        log = beside(path, "-wal")
        if log.exists() and log.stat().st_size > 0:
            raise FileTrouble(f"{path} is gone but its log {log.name} is there; restore the file")
        _create(path, schema)
    elif path.stat().st_size == 0:
        raise FileTrouble(f"{path} is empty; restore it, or move it away to start without state")
    with contextlib.closing(connect(path, writes=True)) as connection:
        _check(connection, path, schema=schema)
        _use_log(connection, path)
        _migrate(connection, path, migrations=schema.migrations)


def beside(path: Path, suffix: str) -> Path:
    """The file next to this one that SQLite, or this module, names after it."""
    return path.with_name(path.name + suffix)


def _create(path: Path, schema: Schema) -> None:
    draft = beside(path, ".new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        beside(draft, suffix).unlink(missing_ok=True)
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


def _check(connection: sqlite3.Connection, path: Path, *, schema: Schema) -> None:
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


def _migrate(connection: sqlite3.Connection, path: Path, *, migrations: tuple[str, ...]) -> None:
    done = _pragma(connection, "user_version")
    for number, script in enumerate(migrations[done:], start=done + 1):
        try:
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error as error:
            raise FileTrouble(f"{path}: migration {number} failed ({error})") from error
