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
from dataclasses import dataclass

import structlog
from grpc import aio

from node_agent.spool.channels import Channel
from scaimind.agent.v1 import agent_service_pb2 as pb

WINDOW = 32
ACK_TIMEOUT_S = 30.0
MAX_BACKOFF_S = 1.0
FIRST_BACKOFF_S = 0.05

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
    is called for each batch that was acknowledged, or whose job is not known.
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
        self._heard_s = 0.0

    def add(self, channel: Channel, batch: pb.PushRequest, *, counted: int) -> None:
        """Takes over a batch; only to be called after `room`."""
        batch.batch_id = self._next_id
        batch.node_id = self._node_id
        self._next_id += 1
        if not self._unacked:
            self._heard_s = time.monotonic()
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
        self._heard_s = time.monotonic()
        call = self._open_call()
        parts = [
            asyncio.create_task(part)
            for part in (self._send(call), self._receive(call), self._watch())
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            self._say_why(done)
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
            if not response.unknown_job and response.acknowledged < sent.batch.end:
                raise ConnectionError("a batch was answered but not taken over")
            del self._unacked[response.batch_id]
            self._heard_s = time.monotonic()
            self._failures = 0
            self._room.set()
            self._on_response(sent, response)
        raise ConnectionError("the coordinator ended the stream")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(ACK_TIMEOUT_S / 4)
            if self._unacked and time.monotonic() - self._heard_s > ACK_TIMEOUT_S:
                raise TimeoutError("no acknowledgement came")

    async def _next_fresh(self) -> None:
        self._fresh.clear()
        await self._fresh.wait()

    def _say_why(self, done: set[asyncio.Task[None]]) -> None:
        error = next((part.exception() for part in done), None)
        if self._failures == 0:
            reason = error.code().name if isinstance(error, aio.AioRpcError) else repr(error)
            _log.warning("push_stream_broke", reason=reason, unacknowledged=len(self._unacked))
