"""The ledger in SQLite: one row for each lease and day, summed by the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from coordinator.core.records import Entry
from coordinator.core.times import Spent, times_milli
from coordinator.store.protocol import UsageBy, UsageFilter, UsageGroup
from coordinator.store.usage import OWN_TENANT

PUT_ENTRIES = """INSERT INTO entries (version, day, tenant_id, user_id, queue_name, node_id, job_id,
    cause, cause_id, is_foreign, starting, productive, checkpointing, redone, idle, paused)"""
# Numbers have no holes, so what goes is a range at the beginning.
TRIM_ENTRIES = """DELETE FROM entries WHERE number <= (SELECT max(number) FROM entries) - ?1
    AND number < (SELECT min(number) FROM entries) + ?2"""
SUMS = ", ".join(f"sum({use})" for use in Spent._fields)
CAUSE = """cause || CASE WHEN cause_id = '' OR (is_foreign AND ?1 <> '') THEN ''
    ELSE '/' || cause_id END"""
FILTERS = {
    "tenant_id": "?1",
    "user_id": "?2",
    "queue_name": "?3",
    "node_id": "?4",
    "job_id": "?5",
}


def entry_rows(entries: Iterable[Entry]) -> list[tuple[Any, ...]]:
    """The rows of some entries, without the version."""
    return [
        (
            day.day,
            entry.tenant_id,
            entry.user_id,
            entry.queue_name,
            entry.node_id,
            entry.job_id,
            entry.cause,
            entry.cause_id,
            int(entry.is_foreign),
            *times_milli(day.spent, entry.milli),
        )
        for entry in entries
        for day in entry.days
    ]


def usage(
    connection: sqlite3.Connection, where: UsageFilter, *, limit: int
) -> tuple[UsageGroup, ...]:
    """Sums of the ledger by group."""
    key = CAUSE if where.by is UsageBy.CAUSE else where.by.value
    tenant = "tenant_id" if where.by in OWN_TENANT else "''"
    asked = [f"{name} = {at}" for name, at in FILTERS.items() if getattr(where, name)]
    narrow = "".join(f" AND {one}" for one in asked)
    rows = connection.execute(
        f"SELECT {key}, {tenant}, {SUMS} FROM entries"
        f" WHERE day >= ?6 AND day < ?7 AND version <= ?8{narrow} GROUP BY 1, 2 LIMIT ?9",
        (
            *(getattr(where, name) for name in FILTERS),
            where.from_day,
            where.until_day,
            where.until_version,
            limit,
        ),
    )
    return tuple(UsageGroup(key, tenant, Spent(*sums)) for key, tenant, *sums in rows)
