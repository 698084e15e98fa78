"""Where jobs stand in the indexes of the embedded store: kept with each commit, read by pages.

The five orders are SQLite's own indexes of the jobs' table. Labels and counts are tables of their own,
which a commit brings up to date for all its jobs at once: jobs of one batch mostly share what they are
filed under, so that their counts are few. Each answer is one row of JSON: a statement may have to win the
interpreter lock back from a busy event loop with every row that it gives.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from coordinator.sqlite.database import (
    ROWS_PER_STATEMENT,
    insert_rows,
    transaction,
    values_of,
)
from coordinator.store.codec import decode_jobs
from coordinator.store.listing import Entry, Place, Span, read_page
from coordinator.store.protocol import JobFilter, JobPage
from coordinator.store.rows import ALL, ORDERS, Label

T = TypeVar("T")
Filed = tuple[str, str, int, str]
"""Tenant, status, created_at, and labels as JSON: all that says where a job stands."""

LABELS = "tenant_id, key, value, status, created_at, job_id"
COUNTS = "tenant_id, key, value, status"

_filed = msgspec.json.Decoder(list[tuple[str, str, str, int, str]])
_labels = msgspec.json.Decoder(dict[str, str])
_counts = msgspec.json.Decoder(list[tuple[str, str, str, int]])


def read(
    connection: sqlite3.Connection, where: JobFilter, *, limit: int, after: Place | None
) -> JobPage:
    """A page of jobs. Raises ValueError when the order is not known."""
    with transaction(connection):
        return _at_once(read_page(SqliteIndex(connection), where, limit=limit, after=after))


def counts(connection: sqlite3.Connection, tenant_id: str) -> dict[str, int]:
    """A tenant's jobs by status."""
    return _at_once(SqliteIndex(connection).counts(tenant_id, (ALL,)))[0]


def filed(connection: sqlite3.Connection, job_ids: Iterable[str]) -> dict[str, Filed]:
    """Where jobs stand now; those that are new are missing."""
    (rows,) = connection.execute(
        "SELECT json_group_array(json_array(job_id, tenant_id, status, created_at, labels))"
        " FROM jobs WHERE job_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(list(job_ids)).decode(),),
    ).fetchone()
    return {job_id: one for job_id, *one in _filed.decode(rows)}  # type: ignore[misc]


def refile(
    connection: sqlite3.Connection, before: dict[str, Filed], after: dict[str, Filed]
) -> None:
    """Brings labels and counts up to date with jobs that stood elsewhere, or nowhere, before."""
    gone: list[tuple[str, str, str, str, int, str]] = []
    come: list[tuple[str, str, str, str, int, str]] = []
    counted: Counter[tuple[str, str, str, str]] = Counter()
    for job_id, now in after.items():
        then = before.get(job_id)
        if then == now:
            continue
        for one, entries, sign in ((then, gone, -1), (now, come, 1)):
            if one is None:
                continue
            tenant_id, status, created_at, labels = one
            counted[tenant_id, *ALL, status] += sign
            for label in _labels.decode(labels).items():
                entries.append((tenant_id, *label, status, created_at, job_id))
                counted[tenant_id, *label, status] += sign
    _delete(connection, "job_labels", gone, columns=LABELS)
    insert_rows(connection, f"INSERT INTO job_labels ({LABELS})", come)
    _count(connection, {where: number for where, number in counted.items() if number})


def _count(connection: sqlite3.Connection, numbers: dict[tuple[str, ...], int]) -> None:
    insert_rows(
        connection,
        f"INSERT INTO job_counts ({COUNTS}, n)",
        [(*where, number) for where, number in numbers.items()],
        tail=f"ON CONFLICT ({COUNTS}) DO UPDATE SET n = n + excluded.n",
    )
    less = [where for where, number in numbers.items() if number < 0]
    _delete(connection, "job_counts", less, columns=COUNTS, which="AND n = 0")


def _delete(
    connection: sqlite3.Connection,
    table: str,
    rows: Sequence[tuple[Any, ...]],
    *,
    columns: str,
    which: str = "",
) -> None:
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        values, arguments = values_of(rows[start : start + ROWS_PER_STATEMENT])
        connection.execute(
            f"DELETE FROM {table} WHERE ({columns}) IN ({values}) {which}", arguments
        )


class SqliteIndex:
    """The Index of the embedded store; within one transaction. Nothing here waits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def counts(self, tenant_id: str, labels: Sequence[Label]) -> list[dict[str, int]]:
        values, arguments = values_of(labels)
        (rows,) = self._connection.execute(
            "SELECT json_group_array(json_array(key, value, status, n)) FROM job_counts"
            f" WHERE tenant_id = ? AND (key, value) IN ({values})",
            (tenant_id, *arguments),
        ).fetchone()
        found: dict[Label, dict[str, int]] = {label: {} for label in labels}
        for key, value, status, number in _counts.decode(rows):
            found[key, value][status] = number
        return [found[label] for label in labels]

    async def sizes(self, spans: Sequence[Span], *, at_most: int) -> list[int]:
        return [self._size(span, at_most) for span in spans]

    def _size(self, span: Span, at_most: int) -> int:
        runs, values = _runs(span, "1")
        (number,) = self._connection.execute(
            f"SELECT count(*) FROM (SELECT * FROM ({runs}) LIMIT :limit)",
            values | {"limit": at_most},
        ).fetchone()
        return int(number)

    async def entries(
        self, span: Span, *, after: Place | None, limit: int, descending: bool
    ) -> list[Entry]:
        order = f"ORDER BY {span.order} {'DESC' if descending else 'ASC'}, job_id"
        order += f" {'DESC' if descending else 'ASC'} LIMIT :limit"
        key = "number" if span.label == ALL else "job_id"
        columns = f"{span.order}, job_id" if key == "job_id" else f"number, {span.order}, job_id"
        runs, values = _runs(
            span, columns, order=order, after=(after, descending) if after else None
        )
        (bodies,) = self._connection.execute(
            f"SELECT group_concat(body, ',') FROM jobs WHERE {key} IN"
            f" (SELECT {key} FROM (SELECT * FROM ({runs}) {order}))",
            values | {"limit": limit},
        ).fetchone()
        value = ORDERS[span.order]
        jobs = decode_jobs(f"[{bodies or ''}]".encode())
        found: list[Entry] = [((value(job), job.job_id), job) for job in jobs]
        return sorted(found, key=lambda entry: entry[0], reverse=descending)


def _runs(
    span: Span, columns: str, *, order: str = "", after: tuple[Place, bool] | None = None
) -> tuple[str, dict[str, Any]]:
    """A statement for the runs of a span, one for each status, and its values."""
    table, which = "jobs", ""
    values: dict[str, Any] = {"tenant": span.tenant_id, "low": span.low, "high": span.high}
    if span.label != ALL:
        table, which = "job_labels", "AND key = :key AND value = :value"
        values |= {"key": span.label[0], "value": span.label[1]}
    which += f" AND {span.order} >= :low" if span.low is not None else ""
    which += f" AND {span.order} < :high" if span.high is not None else ""
    runs = []
    for number, status in enumerate(span.statuses):
        values[f"status{number}"] = status
        beyond = _beyond(span.order, status, after) if after else ""
        if beyond is not None:
            runs.append(
                f"SELECT * FROM (SELECT {columns} FROM {table} WHERE tenant_id = :tenant"
                f" AND status = :status{number} {which} {beyond} {order})"
            )
    if after:
        (values["past"], values["past_id"]), _ = after
    return " UNION ALL ".join(runs) or f"SELECT {columns} FROM {table} WHERE false", values


def _beyond(order: str, status: str, after: tuple[Place, bool]) -> str | None:
    """What of a status comes after a place; None for nothing of it."""
    (value, _), descending = after
    past = "<" if descending else ">"
    if order != "status":
        return f"AND ({order}, job_id) {past} (:past, :past_id)"
    if status == value:
        return f"AND job_id {past} :past_id"
    return "" if (status < str(value)) == descending else None


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("an index of SQLite does not wait")
