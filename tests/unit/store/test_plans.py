"""No statement of the embedded store reads a whole table: its cost would grow with the history."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.core.decision import Retired
from coordinator.core.records import JobStatus, Record
from coordinator.sqlite import database, files
from coordinator.store import listing
from coordinator.store.protocol import JobFilter
from coordinator.store.sqlite import SqliteStore
from tests.contract.stores.samples import DOCUMENT, batch, job, lease, node, request, retired
from tests.contract.stores.test_reads import FILTERS, ORDERS

TABLES = "jobs|job_labels|job_counts|records|documents|events|batches"
SCANS = re.compile(rf"SCAN ({TABLES})\b")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement, with its values in it."""
    found: list[str] = []
    connect = files.connect

    def traced(path: Path, *, writes: bool, shared: bool = False) -> sqlite3.Connection:
        connection = connect(path, writes=writes, shared=shared)
        connection.set_trace_callback(found.append)
        return connection

    monkeypatch.setattr(database, "connect", traced)
    return found


def scanning(path: Path, statements: list[str]) -> list[str]:
    """Those that read a whole table, with the line of their plan."""
    found = []
    with closing(sqlite3.connect(path)) as connection:
        for statement in dict.fromkeys(statements):
            if statement.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
                plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
                found += [f"{row[3]}: {statement[:300]}" for row in plan if SCANS.search(row[3])]
    return found


async def test_neither_commits_nor_lists_read_a_whole_table(
    tmp_path: Path, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED_MAX", 1)
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("me")
    jobs = [job(number, labels=(("team", "nlp"),), name="name-1") for number in range(5)]
    statements.clear()
    live: tuple[Record, ...] = (*jobs, node(), lease(), request(), DOCUMENT)
    moved = [job(number, status=JobStatus.CANCELLED) for number in range(5)]
    gone = [retired(one) for one in (*live, *jobs)]
    batches: tuple[tuple[Record | Retired, ...], ...] = (live, tuple(jobs), (*moved, *gone))
    for number, records in enumerate(batches):
        version = await store.commit(
            batch(str(number), *records), epoch=epoch, expected_version=number
        )
    await store.commit(batch("d", *jobs), epoch=epoch, expected_version=version)
    for asked in FILTERS:
        for order in ORDERS:
            for descending in (True, False):
                where = JobFilter(tenant_id="acme", order_by=order, descending=descending, **asked)
                page = await store.list_jobs(where, limit=2)
                await store.list_jobs(where, limit=2, after=page.next_key)
    await store.count_jobs("acme")
    await store.job("job_0001")
    await store.documents(["job_0001"])
    await store.events(id="job_0001", after=3)
    await store.close()
    assert len(statements) > 100
    assert scanning(path, statements) == []
