"""Takes what ranks printed and reported: durable first, then acknowledged.

Batches that arrive while one append is under way are appended together with the next; the group is
bounded, and so is what one agent may have unacknowledged (by gRPC's flow control and the group).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum

from coordinator.core.reasons import Reason
from coordinator.runtime.refusal import Refusal
from coordinator.streams.protocol import Append, Point, Source, Streams, StreamsUnavailable
from scaimind.agent.v1 import agent_service_pb2 as api
from scaimind.v1 import job_pb2

GROUP_MAX = 64
RETRY_AFTER_S = 1.0
LEVEL_MAX = 5


class _End(Enum):
    """Marks the end of the requests."""

    END = "END"


_END = _End.END
_Item = api.PushRequest | Exception | _End


class Intake:
    """Turns pushed batches into appends."""

    def __init__(self, streams: Streams, job_exists: Callable[[str], Awaitable[bool]]) -> None:
        self._streams = streams
        self._job_exists = job_exists

    async def take(
        self, requests: AsyncIterator[api.PushRequest]
    ) -> AsyncIterator[api.PushResponse]:
        """Appends each batch and acknowledges it, in order. Raises Refusal STORE_UNAVAILABLE."""
        queue: asyncio.Queue[_Item] = asyncio.Queue(maxsize=GROUP_MAX)
        reader = asyncio.create_task(_read(requests, queue))
        try:
            while True:
                group, end = await _group(queue)
                if group:
                    for response in await self._append(group):
                        yield response
                if isinstance(end, Exception):
                    raise end
                if end is _END:
                    return
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _append(self, group: list[api.PushRequest]) -> list[api.PushResponse]:
        known: dict[str, bool] = {}
        for job_id in sorted({request.job_id for request in group}):
            known[job_id] = await self._job_exists(job_id)
        appends = [_append(request) for request in group if known[request.job_id]]
        try:
            offsets = iter(await self._streams.append(appends))
        except StreamsUnavailable as error:
            raise Refusal(
                Reason.STORE_UNAVAILABLE,
                "the log store does not answer; send again",
                retry_after_s=RETRY_AFTER_S,
            ) from error
        return [
            api.PushResponse(batch_id=request.batch_id, acknowledged=next(offsets))
            if known[request.job_id]
            else api.PushResponse(batch_id=request.batch_id, unknown_job=True)
            for request in group
        ]


async def _read(requests: AsyncIterator[api.PushRequest], queue: asyncio.Queue[_Item]) -> None:
    try:
        async for request in requests:
            await queue.put(request)
    except Exception as error:  # handed to the consumer, which raises it
        await queue.put(error)
    else:
        await queue.put(_END)


async def _group(queue: asyncio.Queue[_Item]) -> tuple[list[api.PushRequest], _Item | None]:
    """All that has arrived, at least one, and what ended it: _END, a fault, or None for nothing."""
    group: list[api.PushRequest] = []
    item = await queue.get()
    while isinstance(item, api.PushRequest):
        group.append(item)
        if queue.empty():
            return group, None
        item = queue.get_nowait()
    return group, item


def _append(request: api.PushRequest) -> Append:
    count = len(request.texts)
    columns = (len(request.ends), len(request.times_ms), len(request.levels))
    if columns != (count, count, count) or len(request.metrics) != len(request.metric_ends):
        text = "the columns differ in length"
        raise Refusal(Reason.INVALID_ARGUMENT, text, violations=(("texts", text),))
    offsets = [request.begin, *request.ends, request.end]
    if sorted(offsets) != offsets:
        text = "offsets must rise from begin to end"
        raise Refusal(Reason.INVALID_ARGUMENT, text, violations=(("ends", text),))
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
        times_ms=list(request.times_ms),
        levels=[min(max(level, 0), LEVEL_MAX) for level in request.levels],
        points=[_point(one, request.attempt) for one in request.metrics],
        point_ends=list(request.metric_ends),
        gap_before=request.gap_before,
        progress=request.progress if request.HasField("progress") else None,
        eta_s=request.eta_seconds if request.HasField("eta_seconds") else None,
    )


def _point(message: job_pb2.MetricPoint, attempt: int) -> Point:
    return Point(
        step=message.step,
        values=tuple(sorted(message.values.items())),
        epoch=message.epoch if message.HasField("epoch") else None,
        at_ms=message.timestamp.ToMilliseconds(),
        attempt=attempt,
        progress=message.progress,
    )
