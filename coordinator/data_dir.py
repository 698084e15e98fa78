"""What lies in a data directory of the embedded store, and whether all of it is there.

A store that is missing beside its logs or its secrets was lost: a disk that is not mounted, a file that
was deleted, half of a backup. Making a new one in its place would forget every job without a word, so
that is left to a person.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from coordinator.sqlite.files import FileTrouble, Schema, beside, connect
from coordinator.store.sqlite import SCHEMA as STORE_SCHEMA
from coordinator.streams.sqlite import SCHEMA as STREAMS_SCHEMA

STORE = "coordinator.db"
STREAMS = "streams.db"
STORE_ID = "store.id"  # which shared store the coordinator has met
ADMIN_KEY, API_SECRET, JOIN_TOKEN = "admin.key", "gateway.secret", "join.token"

SCHEMAS: dict[str, Schema] = {STORE: STORE_SCHEMA, STREAMS: STREAMS_SCHEMA}
SECRETS = (ADMIN_KEY, API_SECRET, JOIN_TOKEN)
SIDE_FILES = ("", "-wal", "-journal")


def check_whole(directory: Path) -> None:
    """Whether a coordinator may be started on what is there.

    Raises:
        FileTrouble: a part is missing; the text says what to do.
    """
    has_store, has_streams = (present(directory / name) for name in (STORE, STREAMS))
    if not has_store and (has_streams or (directory / ADMIN_KEY).exists()):
        raise FileTrouble(
            f"{directory / STORE} is missing, and without it every job is: mount its disk or "
            f"restore a backup; to start without state, move {STREAMS} and {ADMIN_KEY} away"
        )
    if has_store and not has_streams and not _is_new(directory / STORE):
        raise FileTrouble(
            f"{directory / STREAMS} is missing: restore it; to go on without the old logs, run "
            f"`python -m coordinator.backup empty-logs --data-dir {directory}`"
        )


def present(path: Path) -> bool:
    """Whether a database, or the log of one, is there."""
    return any(beside(path, suffix).exists() for suffix in SIDE_FILES)


def _is_new(store: Path) -> bool:
    """Whether nothing was ever committed: a first start was cut off before its logs were made."""
    try:
        with contextlib.closing(connect(store, writes=True)) as connection:
            return not connection.execute("SELECT version FROM leadership").fetchone()[0]
    except sqlite3.Error:
        return True  # opening it will say what is wrong
