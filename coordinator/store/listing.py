"""Pages of jobs out of SQLite, at a cost that does not grow with the number of finished jobs.

Each status of a tenant is a run in an index; a page is the first of the merged runs. With labels the
jobs of the first label are looked at instead.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from coordinator.core.records import Job
from coordinator.sqlite import transaction
from coordinator.store.codec import decode_jobs
from coordinator.store.protocol import JobFilter, JobPage
from coordinator.store.rows import ORDERS

LIMIT_MAX = 1000


def counts(connection: sqlite3.Connection, tenant_id: str) -> dict[str, int]:
    """A tenant's jobs by status."""
    return dict(
        connection.execute(
            "SELECT status, n FROM job_counts WHERE tenant_id = ? AND n > 0", (tenant_id,)
        ).fetchall()
    )


class Listing:
    """One question for a page.

    Args:
        where: which jobs, in which order. Raises ValueError when the order is not known.
        limit: at most so many, up to LIMIT_MAX.
        after: the key of the last job of the page before.
    """

    def __init__(
        self, where: JobFilter, *, limit: int, after: tuple[str | int, str] | None
    ) -> None:
        if where.order_by not in ORDERS:
            raise ValueError(f"jobs cannot be ordered by {where.order_by}")
        self._where = where
        self._limit = max(1, min(limit, LIMIT_MAX))
        self._arguments: dict[str, Any] = {"tenant": where.tenant_id, "limit": self._limit + 1}
        direction, past = ("DESC", "<") if where.descending else ("ASC", ">")
        self._order = f"ORDER BY {where.order_by} {direction}, job_id {direction} LIMIT :limit"
        self._beyond = ""
        if after is not None:
            self._beyond = f"AND ({where.order_by}, job_id) {past} (:value, :job_id)"
            self._arguments |= {"value": after[0], "job_id": after[1]}

    def page(self, connection: sqlite3.Connection) -> JobPage:
        """Answers it."""
        with transaction(connection):
            by_status = counts(connection, self._where.tenant_id)
            wanted = self._where.statuses or tuple(by_status)
            statuses = [status for status in dict.fromkeys(wanted) if status in by_status]
            if not statuses:
                return JobPage(jobs=(), next_key=None, total_count=0)
            for number, status in enumerate(statuses):
                self._arguments[f"status{number}"] = status
            if self._where.labels:
                total = self._labelled_count(connection, len(statuses))
                found = self._labelled(len(statuses))
            else:
                total = sum(by_status[status] for status in statuses)
                found = self._merged(len(statuses))
            # one row for all bodies, in any order: they are sorted below
            (bodies,) = connection.execute(
                f"SELECT group_concat(body, ',') FROM jobs WHERE number IN ({found})",
                self._arguments,
            ).fetchone()
        return self._cut(decode_jobs(f"[{bodies or ''}]".encode()), total)

    def _merged(self, statuses_count: int) -> str:
        column = self._where.order_by
        runs = " UNION ALL ".join(
            f"SELECT * FROM (SELECT number, {column}, job_id FROM jobs WHERE tenant_id = :tenant"
            f" AND status = :status{number} {self._beyond} {self._order})"
            for number in range(statuses_count)
        )
        return f"SELECT number FROM (SELECT * FROM ({runs}) {self._order})"

    def _labelled(self, statuses_count: int) -> str:
        return f"SELECT number FROM {self._labels(statuses_count)} {self._beyond} {self._order}"

    def _labelled_count(self, connection: sqlite3.Connection, statuses_count: int) -> int:
        (n,) = connection.execute(
            f"SELECT count(*) FROM {self._labels(statuses_count)}", self._arguments
        ).fetchone()
        return int(n)

    def _labels(self, statuses_count: int) -> str:
        """The rest of a statement that selects the jobs with all labels and one of the statuses."""
        clauses = []
        for number, (key, value) in enumerate(self._where.labels):
            self._arguments |= {f"key{number}": key, f"label{number}": value}
            match = f"tenant_id = :tenant AND key = :key{number} AND value = :label{number}"
            clauses.append(f"number IN (SELECT job_number FROM job_labels WHERE {match})")
        marks = ", ".join(f":status{number}" for number in range(statuses_count))
        return (
            f"jobs WHERE {' AND '.join(clauses)} AND +tenant_id = :tenant AND +status IN ({marks})"
        )

    def _cut(self, jobs: list[Job], total_count: int) -> JobPage:
        value = ORDERS[self._where.order_by]
        jobs.sort(key=lambda job: (value(job), job.job_id), reverse=self._where.descending)
        page = jobs[: self._limit]
        more = len(jobs) > self._limit
        return JobPage(
            jobs=tuple(page),
            next_key=(value(page[-1]), page[-1].job_id) if more else None,
            total_count=total_count,
        )
