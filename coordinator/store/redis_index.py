"""Where a job stands in the sorted sets of the Redis store, and what they answer.

Each order is one sorted set of bytes: tenant, status, value, job id. So each status of a tenant is a run.
Labels are another one: tenant, label, status, time of acceptance, job id. Redis knows how long a stretch
of a sorted set is without walking it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from coordinator.core.records import Job, JobStatus
from coordinator.redis import Argument, Script, Server
from coordinator.store import listing
from coordinator.store.codec import decode_job
from coordinator.store.lexical import beginning, beyond, part, parts, split
from coordinator.store.listing import Entry, Found, Place, Span, Value
from coordinator.store.protocol import JobFilter
from coordinator.store.rows import ALL, ORDERS, Label, asked_labels, labels_of

STATUSES = tuple(str(status) for status in JobStatus)
NUMBERS = frozenset({"created_at", "updated_at", "priority"})
INDEXES = tuple(f"by_{order}" for order in ORDERS)
SLOTS = {order: slot for slot, order in enumerate(ORDERS)}
LABELS = "filed"
LAYOUT = 2  # of what is written here; raised where a mark changes

_LENGTH = struct.Struct(">I")
_NUMBER_BYTES = 8
_SIFT = Script.of("coordinator.store", "sift")


def mark(job: Job) -> bytes:
    """How a job stands in the indexes: as commit.lua reads it."""
    tenant_id, status = job.tenant_id, str(job.status)
    run = parts(tenant_id, status)
    job_id = job.job_id.encode()
    texts = [run + part(order(job)) + job_id for order in ORDERS.values()]
    place = part(job.created_at_ms) + job_id
    for key, value in labels_of(job).items():
        texts.append(parts(tenant_id, key, value, status) + place)
    return b"".join(map(_counted, texts))


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
        texts = await self._walk(span, after=after, limit=limit, descending=descending)
        places = [_place(text, span.order) for text in texts]
        return await self._with_jobs(places, span.statuses)

    async def gather(
        self, span: Span, where: JobFilter, *, after: Place | None, limit: int
    ) -> Found:
        most = listing.gathered_max()
        met, _, _ = await self._matching(span, where, after=None, most=most, enough=most)
        met.sort(reverse=where.descending)
        rest = met
        if after is not None:
            end = part(after[0]) + after[1].encode()
            rest = [text for text in met if (text < end if where.descending else text > end)]
        found = [_place(text, where.order_by) for text in rest[:limit]]
        entries = await self._with_jobs(found, span.statuses)
        return Found(entries=entries, matched=len(met))

    async def sift(self, span: Span, where: JobFilter, *, after: Place | None, limit: int) -> Found:
        met: list[bytes] = []
        left, last = listing.SCANNED_MAX, after
        while len(met) < limit and left:
            more, looked, last = await self._matching(
                span, where, after=last, most=left, enough=limit - len(met)
            )
            met += more
            left -= looked
            if last is None:
                break
        found = [_place(text, where.order_by) for text in met]
        entries = await self._with_jobs(found, span.statuses)
        return Found(entries=entries, matched=len(met), last=last)

    async def _matching(
        self, span: Span, where: JobFilter, *, after: Place | None, most: int, enough: int
    ) -> tuple[list[bytes], int, Place | None]:
        """Which of the next jobs of a span match, in its order: value and id of each in the order asked
        for; how many were looked at, and where that ended: None for the end of the span."""
        question = _Question(where, span.statuses)
        width = _NUMBER_BYTES if span.order in NUMBERS else ""
        arguments: list[Argument] = ["down" if where.descending else "up", most, enough, width]
        arguments += [*question.times, len(span.statuses)]
        for run, (created, needles) in zip(_runs(span), question.tests, strict=True):
            low, high = _ends(span, run, after=after, descending=where.descending)
            arguments += [len(run), low, high, created, len(needles), *needles]
        keys = [self._key(span), self._server.key("marks")]
        looked, last, *marks = await self._server.run(_SIFT, keys, arguments, durably=False)
        met = [*filter(None, map(question.place, marks))]
        is_end = looked < most and len(marks) < enough
        return met, looked, None if is_end else _place(last, span.order)

    async def _walk(
        self, span: Span, *, after: Place | None, limit: int, descending: bool
    ) -> list[bytes]:
        """The next entries of a span's merged runs: value and job id of each."""
        key, runs = self._key(span), _runs(span)
        questions: list[tuple[Argument, ...]] = []
        for run in runs:
            low, high = _ends(span, run, after=after, descending=descending)
            command, ends = (
                ("ZREVRANGEBYLEX", (high, low)) if descending else ("ZRANGEBYLEX", (low, high))
            )
            questions.append((command, key, *ends, "LIMIT", 0, limit))
        answers: list[list[bytes]] = await self._server.at_once(questions)
        texts = [
            text[len(run) :] for run, texts in zip(runs, answers, strict=True) for text in texts
        ]
        texts.sort(reverse=descending)
        return texts[:limit]

    async def _with_jobs(self, places: Sequence[Place], statuses: Sequence[str]) -> list[Entry]:
        bodies = await self._server.fields("jobs", [job_id for _, job_id in places])
        jobs = [None if body is None else decode_job(body) for body in bodies]
        # A job may have moved since the index was asked; it is on another page of the next question.
        return [
            (place, job if job and str(job.status) in statuses else None)
            for place, job in zip(places, jobs, strict=True)
        ]

    def _key(self, span: Span) -> str:
        return self._server.key(f"by_{span.order}" if span.label == ALL else LABELS)


class _Question:
    """Tells from a job's mark whether it matches."""

    def __init__(self, where: JobFilter, statuses: Sequence[str]) -> None:
        self._runs = [parts(where.tenant_id, status) for status in statuses]
        self._labels = [
            [parts(where.tenant_id, *label, status) for status in statuses]
            for label in asked_labels(where)
        ]
        self._slot = SLOTS[where.order_by]
        low, high = where.created_from_ms, where.created_until_ms
        self.times = tuple(b"" if at is None else part(at) for at in (low, high))
        self._prefix = beginning(where.name_prefix)

    @property
    def tests(self) -> list[tuple[int, list[bytes]]]:
        """For each status a quick no, for the server to say: at which byte of a mark, counted from 1, the
        time of acceptance begins, and what a mark must hold to match."""
        prefixes = [run + self._prefix for run in self._runs if self._prefix]
        return [
            (
                _LENGTH.size + len(run) + 1,
                [*(runs[at] for runs in self._labels), *prefixes[at : at + 1]],
            )
            for at, run in enumerate(self._runs)
        ]

    def place(self, mark: bytes | None) -> bytes | None:
        """Value and job id of a job in the order that is asked for; None where it does not match."""
        if not mark:
            return None
        stands = [at for at, run in enumerate(self._runs) if mark.startswith(run, _LENGTH.size)]
        if not stands:
            return None
        (number,) = stands
        run = self._runs[number]
        entry = _text(mark, SLOTS["created_at"])[len(run) :]
        low, high = self.times
        # A text with its length and the job's id in it can be nothing but an entry of the mark.
        fits = (
            all(_counted(runs[number] + entry) in mark for runs in self._labels)
            and entry >= low
            and (not high or entry < high)
            and (not self._prefix or _text(mark, SLOTS["name"]).startswith(self._prefix, len(run)))
        )
        return _text(mark, self._slot)[len(run) :] if fits else None


def _ends(span: Span, run: bytes, *, after: Place | None, descending: bool) -> tuple[bytes, bytes]:
    """Where a stretch of a run begins and ends after a place."""
    low, high = reach(run, span.low, span.high)
    if after is None:
        return low, high
    place = b"(" + run + part(after[0]) + after[1].encode()
    return (low, place) if descending else (place, high)


def _counted(text: bytes) -> bytes:
    return _LENGTH.pack(len(text)) + text


def _text(mark: bytes, slot: int) -> bytes:
    """One of the texts of a mark; the orders come first."""
    at = 0
    for _ in range(slot):
        at += _LENGTH.size + _LENGTH.unpack_from(mark, at)[0]
    begin = at + _LENGTH.size
    return mark[begin : begin + _LENGTH.unpack_from(mark, at)[0]]


def _runs(span: Span) -> list[bytes]:
    label = () if span.label == ALL else span.label
    return [parts(span.tenant_id, *label, status) for status in span.statuses]


def _place(text: bytes, order: str) -> Place:
    value, job_id = split(text, number=order in NUMBERS)
    return value, job_id.decode()
