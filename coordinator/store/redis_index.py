"""Where a job stands in the sorted sets of the Redis store, and pages of jobs out of them.

Each order is one sorted set of bytes: tenant, status, value, job id. So each status of a tenant is a run,
and a page is the first of the merged runs, at a cost that does not grow with the history. Where labels
are asked for and many jobs have them, the runs are walked and each job's mark looked at; where few have
them, those few are sorted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from coordinator.core.records import Job, JobStatus
from coordinator.redis import Argument, Server
from coordinator.store.codec import decode_job
from coordinator.store.lexical import beyond, part, parts, split
from coordinator.store.protocol import JobFilter, JobPage
from coordinator.store.rows import ORDERS

LIMIT_MAX = 1000
STATUSES = tuple(str(status) for status in JobStatus)
NUMBERS = frozenset({"created_at", "updated_at", "priority"})
INDEXES = tuple(f"by_{order}" for order in ORDERS)

_LENGTH = struct.Struct(">I")
_FIRST_LABEL = 1 + len(INDEXES)


def mark(job: Job) -> bytes:
    """How a job stands in the indexes: as commit.lua reads it."""
    run = parts(job.tenant_id, str(job.status))
    job_id = job.job_id.encode()
    texts = [run, *(run + part(value(job)) + job_id for value in ORDERS.values())]
    for label in job.labels:
        texts.append(_labelled(job.tenant_id, label, str(job.status)) + job_id)
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def _labelled(tenant_id: str, label: tuple[str, str], status: str) -> bytes:
    return parts(tenant_id, *label, status)


def _texts(mark: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(mark):
        (length,) = _LENGTH.unpack_from(mark, at)
        at += _LENGTH.size
        found.append(mark[at : at + length])
        at += length
    return found


async def counts(server: Server, tenant_id: str) -> dict[str, int]:
    """A tenant's jobs by status."""
    fields = [parts(tenant_id, status) for status in STATUSES]
    found = await server.fields("counts", fields)
    numbers = zip(STATUSES, map(int, (value or 0 for value in found)), strict=True)
    return {status: number for status, number in numbers if number}


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
        self._after = None if after is None else part(after[0]) + after[1].encode()
        self._wanted = tuple(one for one in STATUSES if one in (where.statuses or STATUSES))
        self._slot = 1 + tuple(ORDERS).index(where.order_by)

    async def page(self, server: Server) -> JobPage:
        """Answers it."""
        by_status = await counts(server, self._where.tenant_id)
        in_statuses = sum(by_status.get(status, 0) for status in self._wanted)
        if not in_statuses:
            return JobPage(jobs=(), next_key=None, total_count=0)
        if not self._where.labels:
            return await self._cut(server, await self._merged(server, self._after), in_statuses)
        rarest, number = await self._rarest(server)
        few = number * number < self._limit * in_statuses
        if few or len(self._where.labels) > 1:
            entries = await self._labelled(server, rarest)
            number = len(entries)
            few = number * number < self._limit * in_statuses
        else:
            entries = []
        found = self._sorted(entries) if few else await self._walked(server)
        return await self._cut(server, found, number)

    async def _merged(self, server: Server, after: bytes | None) -> list[bytes]:
        """The next entries of all wanted statuses, one more than a page: value and job id of each."""
        runs = [parts(self._where.tenant_id, status) for status in self._wanted]
        most = self._limit + 1
        questions: list[tuple[Argument, ...]] = []
        key = server.key(f"by_{self._where.order_by}")
        for run in runs:
            low = b"[" + run if after is None or self._where.descending else b"(" + run + after
            high = b"(" + (
                beyond(run) if after is None or not self._where.descending else run + after
            )
            if self._where.descending:
                questions.append(("ZREVRANGEBYLEX", key, high, low, "LIMIT", 0, most))
            else:
                questions.append(("ZRANGEBYLEX", key, low, high, "LIMIT", 0, most))
        answers: list[list[bytes]] = await server.at_once(questions)
        found = [
            entry[len(run) :]
            for run, entries in zip(runs, answers, strict=True)
            for entry in entries
        ]
        found.sort(reverse=self._where.descending)
        return found[:most]

    async def _rarest(self, server: Server) -> tuple[tuple[str, str], int]:
        """The label that the fewest jobs of the wanted statuses have, and how many."""
        labels = self._where.labels
        questions = [
            ("ZLEXCOUNT", server.key("labels"), b"[" + run, b"(" + beyond(run))
            for label in labels
            for run in self._label_runs(label)
        ]
        answers = await server.at_once(questions)
        each = len(self._wanted)
        totals = [sum(answers[start : start + each]) for start in range(0, len(answers), each)]
        return min(zip(labels, totals, strict=True), key=lambda one: one[1])

    def _label_runs(self, label: tuple[str, str]) -> list[bytes]:
        return [_labelled(self._where.tenant_id, label, status) for status in self._wanted]

    async def _labelled(self, server: Server, label: tuple[str, str]) -> list[bytes]:
        """Value and job id of all jobs that have one label, and the others as well."""
        runs = self._label_runs(label)
        key = server.key("labels")
        answers = await server.at_once(
            [("ZRANGEBYLEX", key, b"[" + run, b"(" + beyond(run)) for run in runs]
        )
        ids = [
            entry[len(run) :]
            for run, entries in zip(runs, answers, strict=True)
            for entry in entries
        ]
        return list(self._matching(await server.fields("marks", ids)))

    def _matching(self, marks: Sequence[bytes | None]) -> Iterator[bytes]:
        """Value and job id of each job whose mark passes."""
        runs = {parts(self._where.tenant_id, status): status for status in self._wanted}
        for one in marks:
            texts = _texts(one or b"")
            status = runs.get(texts[0]) if texts else None
            if status is None:
                continue
            entry = texts[self._slot][len(texts[0]) :]
            _, job_id = split(entry, number=self._where.order_by in NUMBERS)
            has = set(texts[_FIRST_LABEL:])
            if all(
                _labelled(self._where.tenant_id, label, status) + job_id in has
                for label in self._where.labels
            ):
                yield entry

    def _sorted(self, entries: list[bytes]) -> list[bytes]:
        down, after = self._where.descending, self._after
        left = [one for one in entries if after is None or (one < after if down else one > after)]
        return sorted(left, reverse=down)

    async def _walked(self, server: Server) -> list[bytes]:
        """The next entries of the merged runs that have the labels, one more than a page."""
        found: list[bytes] = []
        after = self._after
        while len(found) <= self._limit:
            entries = await self._merged(server, after)
            if not entries:
                break
            after = entries[-1]
            ids = [self._job_id(entry) for entry in entries]
            found += self._matching(await server.fields("marks", ids))
        return found

    def _job_id(self, entry: bytes) -> bytes:
        return split(entry, number=self._where.order_by in NUMBERS)[1]

    async def _cut(self, server: Server, entries: list[bytes], total_count: int) -> JobPage:
        page = entries[: self._limit]
        bodies = await server.fields("jobs", [self._job_id(entry) for entry in page])
        next_key = None
        if len(entries) > self._limit:
            value, job_id = split(page[-1], number=self._where.order_by in NUMBERS)
            next_key = (value, job_id.decode())
        jobs = [decode_job(body) for body in bodies if body is not None]
        # A job may have moved since the index was asked; it is on another page of the next question.
        kept = tuple(job for job in jobs if str(job.status) in self._wanted)
        return JobPage(jobs=kept, next_key=next_key, total_count=total_count)
