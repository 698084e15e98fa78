"""Takes what ranks printed and reported: durable first, then acknowledged.

Batches that arrive while one append is under way are appended together with the next; the group is
bounded, and so is what one agent may have unacknowledged (by gRPC's flow control and the group). A batch
that is no good ends the stream, after everything before it was acknowledged. What a node says of ranks that
were never its own is answered as if there were no such job.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import NamedTuple

from coordinator.core.reasons import Reason
from coordinator.rpc.convert import YEAR_9999_S, milliseconds
from coordinator.runtime.refusal import Refusal
from coordinator.streams.protocol import Append, Point, Source, Streams
from scaimind.agent.v1 import agent_service_pb2 as api
from scaimind.v1 import job_pb2, stream_pb2

GROUP_MAX = 64
TEXT_MAX = 64 * 1024  # characters; agents cut at as many bytes
VALUES_MAX = 1024  # of one point
TIME_MAX_MS = YEAR_9999_S * 1000


class Rank(NamedTuple):
    """A rank of an attempt, on the node that speaks of it."""

    node_id: str
    job_id: str
    attempt: int
    rank: int


IsKnown = Callable[[Rank], Awaitable[bool]]


class _Batch(NamedTuple):
    """A batch that may be appended."""

    batch_id: int
    append: Append


class _End(NamedTuple):
    """No batch comes any more; `error` says why, None where the agent has closed its side."""

    error: Exception | None


_Item = _Batch | _End


class Intake:
    """Turns pushed batches into appends."""

    def __init__(self, streams: Streams, is_known: IsKnown) -> None:
        """`is_known` tells whether a rank is one that its node has, or had, to run."""
        self._streams = streams
        self._is_known = is_known

    async def take(
        self, requests: AsyncIterator[api.PushRequest]
    ) -> AsyncGenerator[api.PushResponse, None]:
        """Appends each batch and acknowledges it, in order.

        Raises:
            Refusal: INVALID_ARGUMENT, a batch is no good.
            StreamsUnavailable, StoreUnavailable: it is not known whether the last ones were taken.
        """
        queue: asyncio.Queue[_Item] = asyncio.Queue(maxsize=GROUP_MAX)
        reader = asyncio.create_task(_read(requests, queue))
        try:
            while True:
                group, end = await _group(queue)
                if group:
                    for response in await self._append(group):
                        yield response
                if end is not None and end.error is not None:
                    raise end.error
                if end is not None:
                    return
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _append(self, group: list[_Batch]) -> list[api.PushResponse]:
        known: dict[Rank, bool] = {}
        for batch in group:
            rank = _rank(batch)
            if rank not in known:
                known[rank] = await self._is_known(rank)
        appends = [batch.append for batch in group if known[_rank(batch)]]
        offsets = iter(await self._streams.append(appends) if appends else ())
        return [
            api.PushResponse(batch_id=batch.batch_id, acknowledged=next(offsets))
            if known[_rank(batch)]
            else api.PushResponse(batch_id=batch.batch_id, unknown_job=True)
            for batch in group
        ]


def _rank(batch: _Batch) -> Rank:
    source = batch.append.source
    return Rank(source.node_id, source.job_id, source.attempt, source.rank)


async def _read(requests: AsyncIterator[api.PushRequest], queue: asyncio.Queue[_Item]) -> None:
    end = _End(None)
    try:
        async for request in requests:
            await queue.put(_Batch(request.batch_id, append_of(request)))
    except Exception as error:  # the consumer raises it
        end = _End(error)
    await queue.put(end)


async def _group(queue: asyncio.Queue[_Item]) -> tuple[list[_Batch], _End | None]:
    """All that has arrived, at least one, and the end where it has come."""
    group: list[_Batch] = []
    item = await queue.get()
    while isinstance(item, _Batch):
        group.append(item)
        if queue.empty():
            return group, None
        item = queue.get_nowait()
    return group, item


def append_of(request: api.PushRequest) -> Append:
    """What a batch appends. Raises Refusal INVALID_ARGUMENT."""
    _check(request)
    return Append(
        source=Source(
            job_id=request.job_id,
            attempt=request.attempt,
            rank=request.rank,
            channel=request.channel,
            node_id=request.node_id,
        ),
        begin=request.begin,
        end=request.end,
        texts=list(request.texts),
        ends=list(request.ends),
        times_ms=_times_ms(request.times_ms),
        levels=_severities(request.levels),
        points=[_point(one, request.attempt) for one in request.metrics],
        point_ends=list(request.metric_ends),
        gap_before=request.gap_before,
        progress=_percent(request.progress) if request.HasField("progress") else None,
        eta_s=_seconds(request.eta_seconds) if request.HasField("eta_seconds") else None,
    )


def _check(request: api.PushRequest) -> None:
    count = len(request.texts)
    columns = (len(request.ends), len(request.times_ms), len(request.levels))
    if columns != (count, count, count):
        raise _fault("texts", "the columns differ in length")
    if len(request.metrics) != len(request.metric_ends):
        raise _fault("metrics", "the columns differ in length")
    if max(map(len, request.texts), default=0) > TEXT_MAX:
        raise _fault("texts", f"a line has more than {TEXT_MAX} characters")
    if any(len(point.values) > VALUES_MAX for point in request.metrics):
        raise _fault("metrics", f"a point has more than {VALUES_MAX} values")
    for field, ends in (("ends", request.ends), ("metric_ends", request.metric_ends)):
        offsets = [0, request.begin, *ends, request.end]
        if sorted(offsets) != offsets:
            raise _fault(field, "offsets must rise from begin to end")
    for field, least in (("attempt", 1), ("rank", 0), ("channel", 1)):
        if getattr(request, field) < least:
            raise _fault(field, f"must be at least {least}")
    if request.channel not in api.Channel.values():
        raise _fault("channel", "is not known")


def _fault(field: str, text: str) -> Refusal:
    return Refusal(Reason.INVALID_ARGUMENT, f"{field}: {text}", violations=((field, text),))


def _times_ms(times_ms: Iterable[int]) -> list[int]:
    taken = list(times_ms)
    if taken and min(taken) >= 0 and max(taken) <= TIME_MAX_MS:
        return taken
    return [min(max(time_ms, 0), TIME_MAX_MS) for time_ms in taken]


def _severities(levels: Iterable[int]) -> list[int]:
    taken = list(levels)
    if _LEVELS.issuperset(taken):
        return taken
    return [level if level in _LEVELS else stream_pb2.INFO for level in taken]


_LEVELS = frozenset(number for number in stream_pb2.LogLevel.values() if number)


def _percent(value: float) -> float:
    return min(max(value, 0.0), 100.0) if value == value else 0.0


def _seconds(value: float) -> float | None:
    return value if 0 <= value < math.inf else None


def _point(message: job_pb2.MetricPoint, attempt: int) -> Point:
    return Point(
        step=message.step,
        values=tuple(sorted(message.values.items())),
        epoch=message.epoch if message.HasField("epoch") else None,
        at_ms=milliseconds(message.timestamp),
        attempt=attempt,
        progress=_percent(message.progress),
    )
