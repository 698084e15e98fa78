"""Server-sent events out of a stream of the coordinator.

Theory of operation. Each upstream message carries a batch of events; a batch is printed at once and
written in few, large writes. The next one is read only when the last write was taken, so a slow
reader slows its own call down (HTTP/2 flow control) and holds no memory here; the coordinator tells
it of dropped events by a `gap`. Readers of one stream share a call where they can (gateway.sharing).
Four coroutines serve one stream: the relay, the heartbeat, a watch for the reader's going away, and a
guard that looks whether the reader still may.
Whichever ends the stream first says why, and lets go of the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc

from gateway.middleware import Receive, Send
from gateway.sharing import Source, Stopped
from gateway.upstream import disconnected

RETRY = b"retry: 2000\n\n"
HEARTBEAT = b": alive\n\n"
BROKEN = b'event: error\ndata: {"error": "stream ended"}\n\n'

CONFIRM_S = 2.0

OPEN_KEY, OPEN_VALUE = "x-stream", "open"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Stream:
    """One reader of one stream."""

    def __init__(
        self,
        source: Source,
        *,
        receive: Receive,
        send: Send,
        heartbeat_s: float,
        send_timeout_s: float,
        stands: Callable[[], Awaitable[bool]],
    ) -> None:
        """Takes what is to be read, and how to learn whether its reader still may; `run` relays it."""
        self._stands = stands
        self.sent_events = 0
        self._source = source
        self._receive, self._send = receive, send
        self._heartbeat_s, self._send_timeout_s = heartbeat_s, send_timeout_s
        self._writing = asyncio.Lock()
        self._frozen = False

    async def accepted(self, *, within_s: float) -> bool:
        """Waits until the coordinator has taken the call; False where the reader left meanwhile.

        Raises:
            grpc.RpcError: the call ended without having been taken.
            TimeoutError: nothing came in time.
        """
        opening = asyncio.ensure_future(self._opened())
        leaving = asyncio.ensure_future(disconnected(self._receive))
        try:
            done, _ = await asyncio.wait(
                {opening, leaving}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED
            )
            if opening in done:
                opening.result()
                return True
            if leaving in done:
                return False
            raise TimeoutError
        finally:
            opening.cancel()
            leaving.cancel()

    async def run(self) -> None:
        """Relays until the stream ends on either side. The answer begins here."""
        await self._send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        aides = [
            asyncio.ensure_future(aide) for aide in (self._beat(), self._watch(), self._guard())
        ]
        try:
            await self._write(RETRY)
            if not await self._relay():
                await self._write(BROKEN)
            await self._write(b"", more=False)
        except TimeoutError:
            # The reader takes nothing any more; there is no one to tell. The server closes the
            # connection of an answer that was not finished.
            return
        finally:
            for aide in aides:
                aide.cancel()

    def stop(self) -> None:
        """Ends the stream as a broken one, so that the reader asks again elsewhere."""
        self._source.stop()

    async def _opened(self) -> None:
        call = self._source.call
        for key, value in await call.initial_metadata() or ():
            if (key, value) == (OPEN_KEY, OPEN_VALUE):
                return
        # The call was refused, or an odd server takes it without saying so: its end tells.
        code = await call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code,
                await call.initial_metadata(),
                await call.trailing_metadata(),
                details=await call.details(),
            )

    async def _relay(self) -> bool:
        """Relays all that comes; whether the stream came to its own end."""
        try:
            while chunks := await self._source.next():
                for chunk in chunks:
                    await self._write(chunk.text)
                    self.sent_events += chunk.count
                    if chunk.last:
                        return True
        except (grpc.RpcError, Stopped):
            return False
        except asyncio.CancelledError:
            # Ours, where the call was cancelled by `stop` or the watch; else the server's.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False
        return True

    async def _write(self, text: bytes, *, more: bool = True) -> None:
        if self._frozen:
            raise TimeoutError
        try:
            async with asyncio.timeout(self._send_timeout_s), self._writing:
                await self._send({"type": "http.response.body", "body": text, "more_body": more})
        except TimeoutError:
            self._frozen = True
            raise

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            try:
                await self._write(HEARTBEAT)
            except TimeoutError:
                self.stop()
                return

    async def _guard(self) -> None:
        """Ends the stream of one whose credential was revoked, or has ended."""
        while True:
            await asyncio.sleep(CONFIRM_S)
            if not await self._stands():
                self.stop()
                return

    async def _watch(self) -> None:
        await disconnected(self._receive)
        self.stop()
