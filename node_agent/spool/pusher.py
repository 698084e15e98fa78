"""The stream of batches to the coordinator, and what is not acknowledged yet.

One stream carries the batches of all ranks. At most WINDOW batches wait for their acknowledgement;
when the stream breaks they are sent again on the next one, in their order. The coordinator drops
what it has, by offset, so nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc
import structlog
from grpc import aio

from node_agent.spool.channels import Channel
from scaimind.agent.v1 import agent_service_pb2 as pb
from scaimind.v1 import stream_pb2

WINDOW = 32
ACK_TIMEOUT_S = 30.0
MAX_BACKOFF_S = 1.0
FIRST_BACKOFF_S = 0.05
REFUSALS_MAX = 3

PushCall = aio.StreamStreamCall[pb.PushRequest, pb.PushResponse]
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch on its way; `counted` is the rank's count of metrics in output right after it."""

    channel: Channel
    batch: pb.PushRequest
    counted: int


class Pusher:
    """Sends batches until they are acknowledged.

    `open_call` starts the RPC, with the credentials that it needs. `on_response(sent, response)`
    is called for each answer; a batch that was answered is forgotten here.

    A batch that the coordinator takes for bad ends the stream. That is a fault of this program; so
    that it does not hold up all others for ever, after REFUSALS_MAX times a warning takes the
    place of what it holds.
    """

    def __init__(
        self,
        open_call: Callable[[], PushCall],
        *,
        node_id: str,
        on_response: Callable[[Sent, pb.PushResponse], None],
    ) -> None:
        self._open_call = open_call
        self._node_id = node_id
        self._on_response = on_response
        self._next_id = 1
        self._unacked: dict[int, Sent] = {}
        self._unsent: deque[int] = deque()
        self._fresh = asyncio.Event()
        self._room = asyncio.Event()
        self._failures = 0
        self._refusals = 0
        self._heard_s = 0.0

    def add(self, channel: Channel, batch: pb.PushRequest, *, counted: int) -> None:
        """Takes over a batch; only to be called after `room`."""
        batch.batch_id = self._next_id
        batch.node_id = self._node_id
        self._next_id += 1
        if not self._unacked:
            self._heard_s = _time_s()
        self._unacked[batch.batch_id] = Sent(channel, batch, counted)
        self._unsent.append(batch.batch_id)
        self._fresh.set()

    @property
    def waiting(self) -> int:
        """Batches that are not acknowledged."""
        return len(self._unacked)

    async def room(self) -> None:
        """Waits until one more batch may be added."""
        while self.waiting >= WINDOW:
            self._room.clear()
            await self._room.wait()

    def drop(self, is_unwanted: Callable[[Channel], bool]) -> None:
        """Forgets the batches of some channels."""
        self._unacked = {i: s for i, s in self._unacked.items() if not is_unwanted(s.channel)}
        self._room.set()

    async def run(self) -> None:
        """Keeps a stream while there is something to send, until cancelled."""
        while True:
            while not self._unacked:
                await self._next_fresh()
            await self._stream()
            self._failures += 1
            ceiling_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self._failures, 10))
            await asyncio.sleep(random.uniform(0, ceiling_s))

    async def _stream(self) -> None:
        """One stream, until it breaks."""
        self._unsent = deque(self._unacked)
        self._heard_s = _time_s()
        call = self._open_call()
        parts = [
            asyncio.create_task(part)
            for part in (self._send(call), self._receive(call), self._watch())
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            error = next(part.exception() for part in parts if part in done)
            self._take_failure(error)
        finally:
            for part in parts:
                part.cancel()
            call.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _send(self, call: PushCall) -> None:
        while True:
            while self._unsent:
                sent = self._unacked.get(self._unsent.popleft())
                if sent is not None:
                    await call.write(sent.batch)
            await self._next_fresh()

    async def _receive(self, call: PushCall) -> None:
        async for response in call:
            sent = self._unacked.get(response.batch_id)
            if sent is None:
                continue
            del self._unacked[response.batch_id]
            self._heard_s = _time_s()
            self._failures = self._refusals = 0
            self._room.set()
            self._on_response(sent, response)
        raise ConnectionError("the coordinator ended the stream")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(ACK_TIMEOUT_S / 4)
            if self._unacked and _time_s() - self._heard_s > ACK_TIMEOUT_S:
                raise TimeoutError("no acknowledgement came")

    async def _next_fresh(self) -> None:
        self._fresh.clear()
        await self._fresh.wait()

    def _take_failure(self, error: BaseException | None) -> None:
        code = error.code() if isinstance(error, aio.AioRpcError) else None
        if self._failures == 0:
            reason = code.name if code is not None else repr(error)
            _log.warning("push_stream_broke", reason=reason, unacknowledged=self.waiting)
        if code is grpc.StatusCode.INVALID_ARGUMENT and self._unacked:
            self._refusals += 1
            if self._refusals >= REFUSALS_MAX:
                self._refusals = 0
                self._defuse()

    def _defuse(self) -> None:
        """Empties the oldest batch, the one that was refused, but for a warning at its end."""
        batch_id, sent = next(iter(self._unacked.items()))
        old = sent.batch
        _log.error("batch_refused", job_id=old.job_id, rank=old.rank, begin=old.begin, end=old.end)
        new = pb.PushRequest()
        for field in (
            "batch_id",
            "node_id",
            "job_id",
            "attempt",
            "rank",
            "channel",
            "begin",
            "end",
        ):
            setattr(new, field, getattr(old, field))
        new.gap_before = old.gap_before
        new.texts.append(f"{len(old.texts)} lines and {len(old.metrics)} metrics were refused")
        new.ends.append(old.end)
        new.times_ms.append(time.time_ns() // 1_000_000)
        new.levels.append(stream_pb2.WARNING)
        self._unacked[batch_id] = replace(sent, batch=new)


def _time_s() -> float:
    return asyncio.get_running_loop().time()
