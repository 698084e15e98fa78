"""Where a job stands in the sorted sets of the Redis store, and what they answer.

Each order is one sorted set of bytes: tenant, status, value, job id. So each status of a tenant is a run.
Labels are another one: tenant, label, status, time of acceptance, job id. Redis knows how long a stretch
of a sorted set is without walking it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from coordinator.core.records import Job, JobStatus
from coordinator.redis import Argument, Server
from coordinator.store.codec import decode_job
from coordinator.store.lexical import beginning, beyond, part, parts, split
from coordinator.store.listing import Entry, Place, Span, Value
from coordinator.store.rows import ALL, ORDERS, Label, labels_of

STATUSES = tuple(str(status) for status in JobStatus)
NUMBERS = frozenset({"created_at", "updated_at", "priority"})
INDEXES = tuple(f"by_{order}" for order in ORDERS)
LABELS = "filed"
LAYOUT = 2  # of what is written here; raised where a mark changes

_LENGTH = struct.Struct(">I")


def mark(job: Job) -> bytes:
    """How a job stands in the indexes: as commit.lua reads it."""
    tenant_id, status = job.tenant_id, str(job.status)
    run = parts(tenant_id, status)
    job_id = job.job_id.encode()
    texts = [run + part(order(job)) + job_id for order in ORDERS.values()]
    place = part(job.created_at_ms) + job_id
    for key, value in labels_of(job).items():
        texts.append(parts(tenant_id, key, value, status) + place)
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def reach(run: bytes, low: Value | None, high: Value | None) -> tuple[bytes, bytes]:
    """Where a stretch of a run begins and ends, as ZLEXCOUNT takes it: low ≤ value < high."""
    end = beyond(run) if high is None else run + beginning(high)
    return b"[" + run + (b"" if low is None else beginning(low)), b"(" + end


class RedisIndex:
    """The Index of the shared store."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def counts(self, tenant_id: str, labels: Sequence[Label]) -> list[dict[str, int]]:
        spans = [
            Span(tenant_id=tenant_id, statuses=STATUSES, order="created_at", label=label)
            for label in labels
        ]
        answers = await self._counted(spans)
        return [
            {status: number for status, number in zip(STATUSES, answer, strict=True) if number}
            for answer in answers
        ]

    async def sizes(self, spans: Sequence[Span], *, at_most: int) -> list[int]:
        return [min(sum(numbers), at_most) for numbers in await self._counted(spans)]

    async def _counted(self, spans: Sequence[Span]) -> list[list[int]]:
        """For each span how many jobs it holds in each of its statuses."""
        questions: list[tuple[Argument, ...]] = [
            ("ZLEXCOUNT", self._key(span), *reach(run, span.low, span.high))
            for span in spans
            for run in _runs(span)
        ]
        answers = iter(await self._server.at_once(questions))
        return [[next(answers) for _ in span.statuses] for span in spans]

    async def entries(
        self, span: Span, *, after: Place | None, limit: int, descending: bool
    ) -> list[Entry]:
        key, runs = self._key(span), _runs(span)
        questions: list[tuple[Argument, ...]] = []
        for run in runs:
            low, high = reach(run, span.low, span.high)
            if after is not None:
                place = b"(" + run + part(after[0]) + after[1].encode()
                low, high = (low, place) if descending else (place, high)
            words = (
                ("ZREVRANGEBYLEX", key, high, low)
                if descending
                else ("ZRANGEBYLEX", key, low, high)
            )
            questions.append((*words, "LIMIT", 0, limit))
        answers: list[list[bytes]] = await self._server.at_once(questions)
        texts = [
            text[len(run) :] for run, texts in zip(runs, answers, strict=True) for text in texts
        ]
        texts.sort(reverse=descending)
        places = [_place(text, span.order) for text in texts[:limit]]
        bodies = await self._server.fields("jobs", [job_id for _, job_id in places])
        jobs = [None if body is None else decode_job(body) for body in bodies]
        # A job may have moved since the index was asked; it is on another page of the next question.
        return [
            (place, job if job and str(job.status) in span.statuses else None)
            for place, job in zip(places, jobs, strict=True)
        ]

    def _key(self, span: Span) -> str:
        return self._server.key(f"by_{span.order}" if span.label == ALL else LABELS)


def _runs(span: Span) -> list[bytes]:
    label = () if span.label == ALL else span.label
    return [parts(span.tenant_id, *label, status) for status in span.statuses]


def _place(text: bytes, order: str) -> Place:
    value, job_id = split(text, number=order in NUMBERS)
    return value, job_id.decode()
