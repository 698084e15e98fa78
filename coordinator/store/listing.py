"""Pages of jobs out of sorted indexes, at a cost that does not grow with the history.

Theory of operation. Jobs are filed by tenant and status in five orders, and once more, by the time when
they were accepted, under each of their labels; queue and parent are labels too. A `Span` is a stretch of
such an index: up to 13 runs, one for each status, whose merged beginning is a page. How many jobs stand
under a label in a status is known without looking; how many lie between two values is counted along
the index, up to COUNTED_MAX.

So most questions are one span, read from where the page before ended. Where several filters meet, the
narrowest span is looked through where it is short; else the next jobs in the order asked for, until the
page is full or SCANNED_MAX were looked at, so that a page may hold fewer than it could, and the count is
then the least that it can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from coordinator.core.records import Job
from coordinator.store.protocol import JobFilter, JobPage
from coordinator.store.rows import ALL, ORDERS, Label, asked_labels

LIMIT_MAX = 1000
COUNTED_MAX = 2_000
SCANNED_MAX = 300  # in the order asked for, for one page
GATHERED = 3  # times as many may be in a span that is looked through and sorted
LAST_CHARACTER, SURROGATES = 0x10FFFF, range(0xD800, 0xE000)

Value = str | int
Place = tuple[Value, str]  # value of the order, job id
Entry = tuple[Place, Job | None]  # None for a job that has left the span since


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A tenant's jobs in some statuses with a label, low ≤ value of the order < high."""

    tenant_id: str
    statuses: tuple[str, ...]
    order: str
    label: Label = ALL  # where it is another one, the order is created_at
    low: Value | None = None
    high: Value | None = None

    @property
    def is_bounded(self) -> bool:
        return self.low is not None or self.high is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look has found."""

    entries: list[Entry]  # the first of those that match, in the order that is asked for
    matched: int  # of all that were looked at
    last: Place | None = None  # where the look ended; None where it came to the end of the span


class Index(Protocol):
    """What a store answers about its spans."""

    async def counts(self, tenant_id: str, labels: Sequence[Label]) -> list[dict[str, int]]:
        """For each label the number of jobs with it, by status; without zeros."""

    async def sizes(self, spans: Sequence[Span], *, at_most: int) -> list[int]:
        """How many jobs each span holds, counted up to a number."""

    async def entries(
        self, span: Span, *, after: Place | None, limit: int, descending: bool
    ) -> list[Entry]:
        """The next jobs of a span after a place, in order."""

    async def gather(
        self, span: Span, where: JobFilter, *, after: Place | None, limit: int
    ) -> Found:
        """Looks through a span of `gathered_max` jobs at most; counts what matches, and answers the
        first of it after a place in the order asked for."""

    async def sift(self, span: Span, where: JobFilter, *, after: Place | None, limit: int) -> Found:
        """Looks at the jobs after a place of a span that is in the order asked for, until `limit`
        match or SCANNED_MAX were looked at."""


@dataclass(frozen=True, slots=True)
class _Path:
    """A span, how many jobs it holds, and which filters all of them meet."""

    span: Span
    size: int
    meets: frozenset[str | Label]


async def read_page(index: Index, where: JobFilter, *, limit: int, after: Place | None) -> JobPage:
    """A page of what matches, `limit` jobs at most, after the last one of the page before.

    Raises:
        ValueError: the order is not known.
    """
    if where.order_by not in ORDERS:
        raise ValueError(f"jobs cannot be ordered by {where.order_by}")
    labels = (ALL, *asked_labels(where))
    counts = await index.counts(where.tenant_id, labels)
    statuses = tuple(
        status
        for status in dict.fromkeys(where.statuses or counts[0])
        if all(status in one for one in counts)
    )
    if not statuses:
        return JobPage(jobs=(), next_key=None, total_count=0)
    totals = {
        label: sum(one[status] for status in statuses)
        for label, one in zip(labels, counts, strict=True)
    }
    asked = frozenset(label for label in labels if label != ALL) | _ranges(where)
    paths = await _paths(index, where, statuses, totals=totals, asked=asked)
    page = _Page(index, where, limit=max(1, min(limit, LIMIT_MAX)), after=after)
    return await page.read(paths, asked)


def gathered_max() -> int:
    """How many jobs a span may hold that is looked through."""
    return min(GATHERED * SCANNED_MAX, COUNTED_MAX)


def after_prefix(prefix: str) -> str | None:
    """The least text after all that begin with a prefix; None where there is none."""
    for end in range(len(prefix), 0, -1):
        last = ord(prefix[end - 1])
        if last < LAST_CHARACTER:
            return prefix[: end - 1] + chr(last + 1 if last + 1 not in SURROGATES else 0xE000)
    return None


def _ranges(where: JobFilter) -> frozenset[str]:
    asked = {
        "created_at": where.created_from_ms is not None or where.created_until_ms is not None,
        "name": bool(where.name_prefix),
    }
    return frozenset(order for order, is_asked in asked.items() if is_asked)


async def _paths(
    index: Index,
    where: JobFilter,
    statuses: tuple[str, ...],
    *,
    totals: Mapping[Label, int],
    asked: frozenset[str | Label],
) -> list[_Path]:
    """The ways to the answer; the first leads through all of the tenant's jobs in the statuses."""
    ranges = _ranges(where)
    rarest = min(totals, key=lambda label: (totals[label], label == ALL))
    every = Span(tenant_id=where.tenant_id, statuses=statuses, order=where.order_by)
    aged = replace(
        every,
        order="created_at",
        label=rarest,
        low=where.created_from_ms,
        high=where.created_until_ms,
    )
    named = replace(
        every, order="name", low=where.name_prefix, high=after_prefix(where.name_prefix)
    )
    met = {
        one: frozenset(ranges & {one.order} | {label for label in (one.label,) if label != ALL})
        for one in (aged, named)
    }
    bounded = [one for one in met if one.order in ranges]
    # Where none of them is the answer they are only counted to see whether one can be looked through.
    is_answer = any(met[one] == asked for one in bounded)
    at_most = COUNTED_MAX if is_answer else gathered_max()
    found = await index.sizes(bounded, at_most=at_most) if bounded else []
    sizes = {aged: totals[rarest]} | dict(zip(bounded, found, strict=True))
    paths = [_Path(span, size, met[span]) for span, size in sizes.items()]
    return [_Path(every, totals[ALL], frozenset()), *paths]


class _Page:
    def __init__(self, index: Index, where: JobFilter, *, limit: int, after: Place | None) -> None:
        self._index = index
        self._where = where
        self._limit = limit
        self._after = after

    async def read(self, paths: list[_Path], asked: frozenset[str | Label]) -> JobPage:
        """Goes the best of the ways to the jobs that meet all that is asked."""
        ordered = max(
            (path for path in paths if path.span.order == self._where.order_by),
            key=lambda path: len(path.meets),
        )
        narrowest = min(paths[1:], key=lambda path: path.size)
        exact = next((path for path in paths if path.meets == asked), None)
        if ordered.meets == asked:
            entries = await self._index.entries(
                ordered.span,
                after=self._after,
                limit=self._limit + 1,
                descending=self._where.descending,
            )
            return self._cut(entries, None, total=ordered.size, least=_is_least(ordered))
        if narrowest.size < gathered_max():
            found = await self._index.gather(
                narrowest.span, self._where, after=self._after, limit=self._limit + 1
            )
            return self._cut(found.entries, None, total=found.matched, least=False)
        found = await self._index.sift(
            ordered.span, self._where, after=self._after, limit=self._limit + 1
        )
        total, least = (exact.size, _is_least(exact)) if exact else (found.matched, True)
        return self._cut(found.entries, found.last, total=total, least=least)

    def _cut(
        self, entries: Sequence[Entry], last: Place | None, *, total: int, least: bool
    ) -> JobPage:
        page = entries[: self._limit]
        return JobPage(
            jobs=tuple(job for _, job in page if job is not None),
            next_key=page[-1][0] if len(entries) > self._limit else last,
            total_count=total,
            total_is_least=least,
        )


def _is_least(path: _Path) -> bool:
    return path.span.is_bounded and path.size >= COUNTED_MAX
