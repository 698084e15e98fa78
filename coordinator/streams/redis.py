"""The shared streams: logs and metrics in Redis, beside the store, so that whoever leads goes on with them.

Only the leader appends: each script checks its epoch, and that the job's streams are as the leader knows
them. What is new of a batch is worked out here; where that was done on old knowledge (an append of unknown
outcome, say), the script takes nothing, and it is done again on what Redis holds.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from coordinator.redis import Argument, Script, Server
from coordinator.streams.chunk import Chunk, pack_point, unpack_point
from coordinator.streams.front import FrontedStreams
from coordinator.streams.growth import JOBS_KNOWN_MAX, Added, Growth, JobState, SourceKey, key_of
from coordinator.streams.intake import spread, take
from coordinator.streams.protocol import (
    LOG_BYTES_MAX,
    Append,
    Bounds,
    Latest,
    Line,
    Placed,
    Point,
    StreamsUnavailable,
)
from coordinator.streams.tails import News

PREFIX = "mind"
TRIES = 3
SCANNED_BYTES = 16 << 20  # of chunks that one call of `lines` or `tail_start` looks at
CHUNKS_AT_ONCE = 32
POINTS_AT_ONCE = 5000
SAMPLED_MAX = 100_000

APPEND, FORGET = (Script.of("coordinator.streams", name) for name in ("append", "forget"))
NUMBERS = ("log_first", "log_last", "log_bytes", "metrics_first", "metrics_last")
FIGURES = ("point", "progress", "eta")

Entry = tuple[bytes, dict[bytes, bytes]]


class RedisStreams(FrontedStreams):
    """Streams in a Redis, whose leader is the store's of the same prefix.

    Args:
        url: redis://, rediss:// or unix://.
        epoch: answers the epoch that this process leads under; 0 where nobody ever led.
        prefix: tells installations in one database apart.
        log_bytes_max: budget of one job's log; beyond it the oldest lines go.
    """

    def __init__(
        self,
        url: str,
        epoch: Callable[[], int] = lambda: 0,
        *,
        prefix: str = PREFIX,
        log_bytes_max: int = LOG_BYTES_MAX,
    ) -> None:
        server = Server(url, prefix=prefix, trouble=StreamsUnavailable)
        super().__init__(_Redis(server, epoch, log_bytes_max))


class _Head(msgspec.Struct, array_like=True):
    """What is asked of a chunk without opening it."""

    first: int
    last: int
    attempt: int
    rank: int
    channel: int
    node_id: str
    max_level: int
    min_level: int
    compressed: bool


_head_decoder = msgspec.msgpack.Decoder(_Head)


class _Redis:
    """A Disk."""

    def __init__(self, server: Server, epoch: Callable[[], int], log_bytes_max: int) -> None:
        self._server = server
        self._epoch = epoch
        self._log_bytes_max = log_bytes_max
        self._known: OrderedDict[str, JobState] = OrderedDict()

    async def open(self) -> None:
        await self._server.open()
        self._known.clear()

    async def close(self) -> None:
        await self._server.close()

    async def append(self, batches: Sequence[Append]) -> tuple[list[int], dict[str, News]]:
        for _ in range(TRIES):
            jobs = dict.fromkeys(batch.source.job_id for batch in batches)
            states = await self._states(list(jobs))
            offsets, growth = _grow(states, batches)
            if not growth.jobs:
                return offsets, {}
            if await self._run(growth, self._log_bytes_max):
                return offsets, growth.news()
        raise StreamsUnavailable(f"{self._server.name}: another coordinator appends as well")

    async def _run(self, growth: Growth, log_bytes_max: int) -> bool:
        """Has it added; answers whether it was, which it is not where what is known is out of date."""
        trimmed = {job_id for job_id, job in growth.jobs.items() if job.trim_points()}
        # Until it is known what became of it, nothing is known of these jobs.
        for job_id in growth.jobs:
            self._known.pop(job_id, None)
        words: list[Argument] = [self._epoch(), log_bytes_max]
        for job_id, job in growth.jobs.items():
            words += (job_id, job.number)
        said, *facts = await self._server.run(
            APPEND, self._keys(growth.jobs), [*words, *_arguments(growth, trimmed)]
        )
        if said == b"fenced":
            raise StreamsUnavailable("another coordinator leads now")
        if said == b"ok":
            self._learn(growth, facts)
        return bool(said == b"ok")

    async def log_bytes(self) -> int:
        (size,) = await self._server.fields("state", ["log_bytes"])
        return int(size or 0)

    async def log_sizes(self) -> list[tuple[str, int]]:
        begun, sizes = await self._server.at_once(
            [
                ("ZRANGE", self._server.key("begun"), 0, -1),
                ("HGETALL", self._server.key("logs")),
            ]
        )
        return [(job_id.decode(), int(sizes.get(job_id, 0))) for job_id in begun]

    async def cut(self, job_id: str, most: int) -> int:
        for _ in range(TRIES):
            growth = Growth()
            growth.jobs = await self._states([job_id])
            growth.added = {job_id: Added()}
            if await self._run(growth, most):
                return growth.jobs[job_id].log_bytes
        raise StreamsUnavailable(f"{self._server.name}: another coordinator appends as well")

    async def _states(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """What Redis holds of the jobs; kept, so that it is rarely asked."""
        missing = [job_id for job_id in jobs if job_id not in self._known]
        found = await self._server.each([("HGETALL", self._name("streams", id)) for id in missing])
        for job_id, fields in zip(missing, found, strict=True):
            self._known[job_id] = _state(fields)
        states = {job_id: self._known[job_id] for job_id in jobs}
        for job_id in jobs:
            self._known.move_to_end(job_id)
        while len(self._known) > JOBS_KNOWN_MAX:
            self._known.popitem(last=False)
        return states

    def _learn(self, growth: Growth, facts: list[int]) -> None:
        for (job_id, job), first, size in zip(
            growth.jobs.items(), facts[::2], facts[1::2], strict=True
        ):
            job.number += 1
            job.log_first, job.log_bytes = first, size
            self._known[job_id] = job

    def _keys(self, job_ids: Iterable[str]) -> list[str]:
        shared = [self._server.key(name) for name in ("state", "logs", "begun")]
        kinds = ("streams", "log", "points")
        return shared + [self._name(kind, job_id) for job_id in job_ids for kind in kinds]

    def _name(self, kind: str, job_id: str) -> str:
        return self._server.key(f"{kind}:{job_id}")

    async def lines(
        self, job_id: str, *, after: int, limit: int, rank: int | None, min_level: int
    ) -> tuple[list[Line], int]:
        log, _ = await self.bounds(job_id)
        found: list[Line] = []
        scanned, upto = 0, max(after, log.last)
        async with aclosing(self._chunks(job_id, at=max(0, after) + 1)) as chunks:
            async for head, size, body in chunks:
                scanned += size
                upto = max(upto, head.last)
                if rank in (None, head.rank) and head.max_level >= min_level:
                    chunk = _unpack(head, body)
                    found += chunk.matching(after, rank=rank, min_level=min_level)
                if len(found) >= limit:
                    return found[:limit], found[limit - 1].position
                if scanned >= SCANNED_BYTES:
                    return found, head.last
        return found, upto

    async def tail_start(self, job_id: str, *, count: int, rank: int | None, min_level: int) -> int:
        log, _ = await self.bounds(job_id)
        if count <= 0:
            return log.last
        if rank is None and min_level <= 1:
            return max(log.first - 1, log.last - count)
        left, scanned = count, 0
        async with aclosing(self._chunks(job_id, at=log.last + 1, backwards=True)) as chunks:
            async for head, size, body in chunks:
                scanned += size
                if rank in (None, head.rank) and head.max_level >= min_level:
                    passing = _unpack(head, body).matching(0, rank=rank, min_level=min_level)
                    if len(passing) >= left:
                        return passing[-left].position - 1
                    left -= len(passing)
                if scanned >= SCANNED_BYTES:
                    return head.first - 1
        return log.first - 1

    async def _chunks(
        self, job_id: str, *, at: int, backwards: bool = False
    ) -> AsyncGenerator[tuple[_Head, int, bytes], None]:
        """Chunks whose last line is at a position or after it; or before it, the newest first.

        With the bytes of each, and its body.
        """
        key, most = self._name("log", job_id), ("COUNT", CHUNKS_AT_ONCE)
        while True:
            question: tuple[Argument, ...] = ("XRANGE", key, at, "+", *most)
            if backwards:
                question = ("XREVRANGE", key, f"({at}-0", "-", *most)
            (entries,) = await self._server.each([question])
            for _, fields in entries:
                head = _head_decoder.decode(fields[b"head"])
                yield head, int(fields[b"size"]), fields[b"body"]
                at = head.last if backwards else head.last + 1
            if len(entries) < CHUNKS_AT_ONCE:
                return

    async def points(self, job_id: str, *, after: int, limit: int) -> list[Placed]:
        key = self._name("points", job_id)
        found: list[Placed] = []
        while len(found) < limit:
            most = min(limit - len(found), POINTS_AT_ONCE)
            first = max(0, after) + 1
            (entries,) = await self._server.each([("XRANGE", key, first, "+", "COUNT", most)])
            found += (_placed(entry) for entry in entries)
            if len(entries) < most:
                break
            after = found[-1].position
        return found

    async def sampled(self, job_id: str, *, max_points: int) -> tuple[list[Point], int]:
        _, metrics = await self.bounds(job_id)
        count = metrics.last - metrics.first + 1
        most = max(1, min(max_points, SAMPLED_MAX))
        if count <= most:
            placed = await self.points(job_id, after=metrics.first - 1, limit=count)
        else:
            key = self._name("points", job_id)
            wanted = spread(metrics.first, metrics.last, most)
            answers = await self._server.each([("XRANGE", key, at, at) for at in wanted])
            placed = [_placed(entry) for entries in answers for entry in entries]
        return [one.point for one in placed], count

    async def bounds(self, job_id: str) -> tuple[Bounds, Bounds]:
        names = ("log_first", "log_last", "metrics_first", "metrics_last")
        found = await self._server.fields(f"streams:{job_id}", names)
        if found[0] is None:
            return Bounds(first=1, last=0), Bounds(first=1, last=0)
        log_first, log_last, metrics_first, metrics_last = (int(one or 0) for one in found)
        return (
            Bounds(first=log_first, last=log_last),
            Bounds(first=metrics_first, last=metrics_last),
        )

    async def latest(self, job_ids: Sequence[str]) -> dict[str, Latest]:
        rows = await self._server.each(
            [("HMGET", self._name("streams", job_id), *FIGURES) for job_id in job_ids]
        )
        return {
            job_id: Latest(
                point=unpack_point(point.decode()).point if point else None,
                progress=float(progress),
                eta_s=float(eta) if eta else None,
            )
            for job_id, (point, progress, eta) in zip(job_ids, rows, strict=True)
            if progress is not None
        }

    async def forget(self, job_id: str) -> None:
        self._known.pop(job_id, None)
        words = (self._epoch(), job_id)
        if not await self._server.run(FORGET, self._keys([job_id]), words):
            raise StreamsUnavailable("another coordinator leads now")

    async def collect(self) -> None:
        """Redis frees what was forgotten by itself."""


def _grow(states: dict[str, JobState], batches: Sequence[Append]) -> tuple[list[int], Growth]:
    """What is new, and up to where each source is complete then."""
    growth = Growth()
    offsets: list[int] = []
    for batch in batches:
        job, key = states[batch.source.job_id], key_of(batch.source)
        accepted = take(batch, job.offsets.get(key, 0))
        if accepted is not None:
            growth.add(batch, job, accepted)
        offsets.append(job.offsets.get(key, 0))
    return offsets, growth


def _arguments(growth: Growth, trimmed: set[str]) -> list[Argument]:
    """What is new as append.lua reads it."""
    words: list[Argument] = []
    for job_id, added in growth.added.items():
        job = growth.jobs[job_id]
        fields = _fields(job, added)
        words.append(len(fields))
        for field in fields.items():
            words += field
        words.append(len(added.chunks))
        for chunk, size, compressed, body in added.chunks:
            head = msgspec.msgpack.encode((*chunk.row(), compressed))
            words += (f"{chunk.last}-0", size, head, body)
        words.append(len(added.placed))
        for placed in added.placed:
            words += (f"{placed.position}-0", pack_point(placed))
        words.append(job.metrics_first if job_id in trimmed else 1)
    return words


def _fields(job: JobState, added: Added) -> dict[str, Argument]:
    """What changes in a job's hash."""
    return {
        **{name: getattr(job, name) for name in NUMBERS},
        "point": pack_point(job.newest) if job.newest else "",
        "progress": repr(job.progress),
        "eta": "" if job.eta_s is None else repr(job.eta_s),
        **{"/".join(map(str, key)): taken for key, taken in added.offsets.items()},
    }


def _state(fields: dict[bytes, bytes]) -> JobState:
    """A job's hash."""
    if not fields:
        return JobState()
    plain: dict[str, Any] = {name: int(fields.pop(name.encode())) for name in NUMBERS}
    point, progress, eta = (fields.pop(name.encode()) for name in FIGURES)
    number = int(fields.pop(b"rev"))
    return JobState(
        **plain,
        number=number,
        newest=unpack_point(point.decode()) if point else None,
        progress=float(progress),
        eta_s=float(eta) if eta else None,
        offsets={_source_key(name): int(taken) for name, taken in fields.items()},
    )


def _source_key(name: bytes) -> SourceKey:
    attempt, rank, channel = map(int, name.split(b"/"))
    return attempt, rank, channel


def _unpack(head: _Head, body: bytes) -> Chunk:
    source = (head.attempt, head.rank, head.channel, head.node_id)
    return Chunk.unpack(source, head.first, compressed=head.compressed, body=body)


def _placed(entry: Entry) -> Placed:
    return unpack_point(entry[1][b"point"].decode())
