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

from coordinator.sqlite.database import any_of, delete_rows, insert_rows, transaction
from coordinator.store import listing
from coordinator.store.codec import decode_jobs
from coordinator.store.listing import (
    Entry,
    Found,
    Place,
    Span,
    Value,
    after_prefix,
    read_page,
)
from coordinator.store.protocol import JobFilter, JobPage
from coordinator.store.rows import ALL, ORDERS, Label, asked_labels

T = TypeVar("T")
Filed = tuple[str, str, int, str]
"""Tenant, status, created_at, and labels as JSON: all that says where a job stands."""

RUN = "tenant_id, key, value, status"  # what the jobs under a label of a status have in common
IS_RUN = "tenant_id = ? AND key = ? AND value = ? AND status = ?"
LABEL = "key = :key AND value = :value"
NUMBER = f"(SELECT run FROM job_counts WHERE {IS_RUN})"
PUT = "INSERT INTO job_labels (run, created_at, job_id)"
MANY = 16  # jobs that stand at one place and are filed by one statement
PUT_MANY = f"""{PUT} SELECT run, ?3, job.value
    FROM json_each(?4) AS label CROSS JOIN job_counts AS found CROSS JOIN json_each(?5) AS job
    WHERE found.tenant_id = ?1 AND found.key = label.key AND found.value = label.value
    AND found.status = ?2"""

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
    return {job_id: (*one,) for job_id, *one in _filed.decode(rows)}  # type: ignore[misc]


def refile(
    connection: sqlite3.Connection, before: dict[str, Filed], after: dict[str, Filed]
) -> None:
    """Brings labels and counts up to date with jobs that stood elsewhere, or nowhere, before."""
    gone: dict[Filed, list[str]] = {}
    come: dict[Filed, list[str]] = {}
    for job_id, now in after.items():
        then = before.get(job_id)
        if then != now:
            come.setdefault(now, []).append(job_id)
            if then is not None:
                gone.setdefault(then, []).append(job_id)
    labels = {stand[3]: [*_labels.decode(stand[3]).items()] for stand in (*gone, *come)}
    numbered = f"run = {NUMBER} AND created_at = ? AND job_id = ?"
    rows = _entries_of(gone, labels)
    delete_rows(connection, "DELETE FROM job_labels WHERE", numbered, rows=rows)
    numbers: Counter[tuple[str, ...]] = Counter()
    for stands, sign in ((gone, -1), (come, 1)):
        for (tenant_id, status, _, text), job_ids in stands.items():
            for label in (ALL, *labels[text]):
                numbers[tenant_id, *label, status] += sign * len(job_ids)
    _count(connection, {run: number for run, number in numbers.items() if number})
    for stand, job_ids in come.items():
        if len(job_ids) >= MANY:
            values = (*stand, msgspec.json.encode(sorted(job_ids)).decode())
            connection.execute(PUT_MANY, values)
    few = {stand: job_ids for stand, job_ids in come.items() if len(job_ids) < MANY}
    rows = sorted(_entries_of(few, labels))  # as the table is: neighbours go to the same page
    insert_rows(connection, PUT, rows, row=f"({NUMBER}, ?, ?)")


def _entries_of(
    stands: dict[Filed, list[str]], labels: dict[str, list[Label]]
) -> list[tuple[str, str, str, str, int, str]]:
    """The rows of labels for jobs, by where they stand."""
    return [
        (tenant_id, key, value, status, created_at, job_id)
        for (tenant_id, status, created_at, text), job_ids in stands.items()
        for key, value in labels[text]
        for job_id in job_ids
    ]


def _count(connection: sqlite3.Connection, numbers: dict[tuple[str, ...], int]) -> None:
    insert_rows(
        connection,
        f"INSERT INTO job_counts ({RUN}, n)",
        [(*run, number) for run, number in numbers.items()],
        tail=f"ON CONFLICT ({RUN}) DO UPDATE SET n = n + excluded.n",
    )
    less = [run for run, number in numbers.items() if number < 0]
    delete_rows(connection, "DELETE FROM job_counts WHERE n = 0 AND", IS_RUN, rows=less)


class SqliteIndex:
    """The Index of the embedded store; within one transaction. Nothing here waits."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def counts(self, tenant_id: str, labels: Sequence[Label]) -> list[dict[str, int]]:
        which = "tenant_id = ? AND key = ? AND value = ?"
        which, values = any_of(which, [(tenant_id, *label) for label in labels])
        (rows,) = self._connection.execute(
            "SELECT json_group_array(json_array(key, value, status, n)) FROM job_counts"
            f" WHERE {which}",
            values,
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
        walk, values = _walk(span, after=after, descending=descending)
        (bodies,) = self._connection.execute(
            f"SELECT group_concat(body, ',') FROM jobs WHERE {_key(span)} IN"
            f" (SELECT {_key(span)} FROM ({walk} LIMIT :limit))",
            values | {"limit": limit},
        ).fetchone()
        return _entries(bodies, span.order, descending=descending)

    async def gather(
        self, span: Span, where: JobFilter, *, after: Place | None, limit: int
    ) -> Found:
        key, descending = _key(span), where.descending
        walk, values = _walk(span, descending=descending)
        which, asked = _matching(where)
        beyond = "true"
        if after is not None:
            beyond = f"({where.order_by}, job_id) {'<' if descending else '>'} (:after, :after_id)"
            asked |= {"after": after[0], "after_id": after[1]}
        matched, bodies = self._connection.execute(
            f"WITH met AS MATERIALIZED (SELECT jobs.number, jobs.{where.order_by}, jobs.job_id"
            f" FROM ({walk} LIMIT :most) AS walked CROSS JOIN jobs ON jobs.{key} = walked.{key}"
            f" WHERE {which})"
            " SELECT (SELECT count(*) FROM met), (SELECT group_concat(body, ',') FROM jobs"
            f" WHERE number IN (SELECT number FROM met WHERE {beyond}"
            f" {_order(where.order_by, descending=descending)} LIMIT :limit))",
            values | asked | {"most": listing.gathered_max(), "limit": limit},
        ).fetchone()
        entries = _entries(bodies, where.order_by, descending=descending)
        return Found(entries=entries, matched=matched)

    async def sift(self, span: Span, where: JobFilter, *, after: Place | None, limit: int) -> Found:
        key, most = _key(span), listing.SCANNED_MAX
        walk, values = _walk(span, after=after, descending=where.descending)
        which, asked = _matching(where)
        # The walk is a coroutine of SQLite: no more of it is read than the page needs.
        (bodies,) = self._connection.execute(
            "SELECT group_concat(body, ',') FROM jobs WHERE number IN (SELECT jobs.number"
            f" FROM ({walk} LIMIT :most) AS walked CROSS JOIN jobs ON jobs.{key} = walked.{key}"
            f" WHERE {which} LIMIT :limit)",
            values | asked | {"most": most, "limit": limit},
        ).fetchone()
        entries = _entries(bodies, where.order_by, descending=where.descending)
        last = None
        if len(entries) < limit:
            last = self._connection.execute(
                f"SELECT {span.order}, job_id FROM ({walk} LIMIT 1 OFFSET :most)",
                values | {"most": most - 1},
            ).fetchone()
        return Found(entries=entries, matched=len(entries), last=last)


def _key(span: Span) -> str:
    """What tells the jobs of an index apart."""
    return "number" if span.label == ALL else "job_id"


def _columns(span: Span) -> str:
    return ", ".join(dict.fromkeys((_key(span), span.order, "job_id")))


def _order(order: str, *, descending: bool) -> str:
    way = "DESC" if descending else "ASC"
    return f"ORDER BY {order} {way}, job_id {way}"


def _walk(
    span: Span, *, after: Place | None = None, descending: bool
) -> tuple[str, dict[str, Any]]:
    """A statement for the jobs of a span, in order, and its values. SQLite merges the runs as it goes."""
    runs, values = _runs(span, _columns(span), after=(after, descending) if after else None)
    return f"{runs} {_order(span.order, descending=descending)}", values


def _entries(bodies: str | None, order: str, *, descending: bool) -> list[Entry]:
    value = ORDERS[order]
    jobs = decode_jobs(f"[{bodies or ''}]".encode())
    found: list[Entry] = [((value(job), job.job_id), job) for job in jobs]
    return sorted(found, key=lambda entry: entry[0], reverse=descending)


def _matching(where: JobFilter) -> tuple[str, dict[str, Any]]:
    """A condition on rows of jobs for what is asked beside tenant and status."""
    values: dict[str, Any] = {"tenant": where.tenant_id}
    conditions = [
        "true"
    ]  # the cheapest first: SQLite goes on with a job only while all of them hold
    for column, test, value in (
        ("created_at", ">=", where.created_from_ms),
        ("created_at", "<", where.created_until_ms),
        ("name", ">=", where.name_prefix or None),
        ("name", "<", after_prefix(where.name_prefix)),
    ):
        if value is not None:
            conditions.append(f"jobs.{column} {test} :bound{len(conditions)}")
            values[f"bound{len(conditions) - 1}"] = value
    for number, label in enumerate(asked_labels(where)):
        # As it stands in the job's own row: the table of labels is large, and this is a look at one
        # place of it for every job. A quote after a comma is in this JSON only where a name begins.
        text = msgspec.json.encode(dict([label])).decode()[1:-1]
        values |= {f"label{number}": text, f"next{number}": "," + text}
        conditions.append(
            f"instr(jobs.labels, :label{number})"
            f" AND instr(',' || substr(jobs.labels, 2), :next{number})"
        )
    return " AND ".join(conditions), values


def _runs(
    span: Span, columns: str, *, after: tuple[Place, bool] | None = None
) -> tuple[str, dict[str, Any]]:
    """A statement for the runs of a span, one for each status, and its values."""
    table = "jobs" if span.label == ALL else "job_labels"
    low, high = _left(span, after) if after else (span.low, span.high)
    values: dict[str, Any] = {"tenant": span.tenant_id, "low": low, "high": high}
    values |= {"key": span.label[0], "value": span.label[1]}
    which = f" AND {span.order} >= :low" if low is not None else ""
    which += f" AND {span.order} < :high" if high is not None else ""
    runs = []
    for number, status in enumerate(span.statuses):
        values[f"status{number}"] = status
        beyond = _beyond(span.order, status, after) if after else ""
        if beyond is not None:
            run = f"tenant_id = :tenant AND status = :status{number}"
            if span.label != ALL:
                run = f"run = (SELECT run FROM job_counts WHERE {run} AND {LABEL})"
            runs.append(f"SELECT {columns} FROM {table} WHERE {run} {which} {beyond}")
    if after:
        (values["past"], values["past_id"]), _ = after
    return " UNION ALL ".join(runs) or f"SELECT {columns} FROM {table} WHERE false", values


def _left(span: Span, after: tuple[Place, bool]) -> tuple[Value | None, Value | None]:
    """The bounds that a place within a span leaves to say: it is the nearer one of its side.

    SQLite goes by one of two bounds on a side, and then looks at all that the other one excludes.
    """
    low: Any = span.low
    high: Any = span.high
    (value, _), descending = after
    if descending:
        return low, high if high is not None and value >= high else None
    return low if low is not None and value < low else None, high


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
