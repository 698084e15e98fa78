"""Pages of jobs out of SQLite, at a cost that does not grow with the number of finished jobs.

Each status of a tenant is a run in an index; a page is the first of the merged runs. Where labels are
asked for and many jobs have them, the runs are walked and each job's labels looked up; where few have
them, those few are sorted.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from coordinator.core.records import Job
from coordinator.sqlite.database import transaction
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
            self._arguments |= {f"status{index}": status for index, status in enumerate(statuses)}
            total = in_statuses = sum(by_status[status] for status in statuses)
            found = self._merged(len(statuses))
            if self._where.labels:
                (total,) = connection.execute(
                    f"SELECT count(*) {self._labelled(len(statuses))}", self._arguments
                ).fetchone()
                if total * total < self._limit * in_statuses:
                    found = self._sorted(len(statuses))
            # one row for all bodies, in any order: they are sorted below
            (bodies,) = connection.execute(
                f"SELECT group_concat(body, ',') FROM jobs WHERE number IN ({found})",
                self._arguments,
            ).fetchone()
        return self._cut(decode_jobs(f"[{bodies or ''}]".encode()), total)

    def _merged(self, statuses_count: int) -> str:
        """Selects a page out of the runs of the statuses."""
        column = self._where.order_by
        has_labels = "".join(self._has_label(index) for index in range(len(self._where.labels)))
        runs = " UNION ALL ".join(
            f"SELECT * FROM (SELECT number, {column}, job_id FROM jobs WHERE tenant_id = :tenant"
            f" AND status = :status{index} {has_labels} {self._beyond} {self._order})"
            for index in range(statuses_count)
        )
        return f"SELECT number FROM (SELECT * FROM ({runs}) {self._order})"

    def _sorted(self, statuses_count: int) -> str:
        """Selects a page out of all jobs with the labels."""
        return (
            f"SELECT number FROM jobs WHERE number IN (SELECT number {self._labelled(statuses_count)})"
            f" {self._beyond} {self._order}"
        )

    def _has_label(self, index: int) -> str:
        key, value = self._where.labels[index]
        self._arguments |= {f"key{index}": key, f"label{index}": value}
        return (
            f" AND EXISTS (SELECT 1 FROM job_labels WHERE tenant_id = :tenant AND key = :key{index}"
            f" AND value = :label{index} AND job_number = number)"
        )

    def _labelled(self, statuses_count: int) -> str:
        """The rest of a statement that selects the numbers of all jobs with the labels."""
        more = "".join(self._has_label(index) for index in range(1, len(self._where.labels)))
        if self._where.statuses:
            marks = ", ".join(f":status{index}" for index in range(statuses_count))
            more += f" AND (SELECT status FROM jobs WHERE jobs.number = first.number) IN ({marks})"
        return (
            "FROM (SELECT job_number AS number FROM job_labels WHERE tenant_id = :tenant"
            f" AND key = :key0 AND value = :label0) AS first WHERE true {more}"
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
