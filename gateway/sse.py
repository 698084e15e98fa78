"""Server-sent events out of a stream of the coordinator.

Theory of operation. Each upstream message carries a batch of events; a batch is printed at once and
written in few, large writes. The next message is read only when the last write was taken, so a slow
reader slows its own call down (HTTP/2 flow control) and holds no memory here; the coordinator tells
it of dropped events by a `gap`. Three coroutines serve one stream: the relay, the heartbeat, and a
watch for the reader's going away. Whichever ends the stream first says why, and cancels the call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gateway.catalog import BadCatalog
from gateway.json_out import JsonWriter
from gateway.middleware import Receive, Send
from gateway.upstream import disconnected

RETRY = b"retry: 2000\n\n"
HEARTBEAT = b": alive\n\n"
BROKEN = b'event: error\ndata: {"error": "stream ended"}\n\n'
LAST_EVENT = "end"
EVENTS_PER_WRITE = 512

OPEN_KEY, OPEN_VALUE = "x-stream", "open"

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events in the form in which they are sent."""

    text: bytes
    count: int
    last: bool
    """Whether the stream ends with it."""


PrintBatch = Callable[[Any], Iterator[Chunk]]


def batch_printer(response: Descriptor, writer: JsonWriter) -> PrintBatch:
    """Compiles the printer of a stream's messages: `repeated … events`, each with a string `id`
    and one oneof of messages, whose set field names the event.

    Raises:
        BadCatalog: the message has another shape.
    """
    event = _event_type(response)
    oneof = event.oneofs[0].name
    printers: dict[str, tuple[bytes, Callable[[Any], Any]]] = {}
    for field in event.oneofs[0].fields:
        if field.message_type is None:
            raise BadCatalog(f"{field.full_name}: an event must be a message")
        head = b"\nevent: " + field.name.encode() + b"\ndata: "
        printers[field.name] = (head, writer.printer(field.message_type))
    encode = msgspec.json.Encoder().encode

    def print_batch(message: Any) -> Iterator[Chunk]:
        parts: list[bytes] = []
        for item in message.events:
            name = item.WhichOneof(oneof)
            if name is None:  # an event that only a newer coordinator knows
                continue
            head, printer = printers[name]
            # Ids are made without line ends; a broken one must not break the framing.
            parts.append(b"id: " + item.id.replace("\n", "").replace("\r", "").encode())
            parts.append(head + encode(printer(getattr(item, name))) + b"\n\n")
            if name == LAST_EVENT:
                yield Chunk(b"".join(parts), len(parts) // 2, True)
                return
            if len(parts) >= 2 * EVENTS_PER_WRITE:
                yield Chunk(b"".join(parts), len(parts) // 2, False)
                parts.clear()
        if parts:
            yield Chunk(b"".join(parts), len(parts) // 2, False)

    return print_batch


def _event_type(response: Descriptor) -> Descriptor:
    events = response.fields_by_name.get("events")
    event = events.message_type if events is not None and events.is_repeated else None
    identifier = event.fields_by_name.get("id") if event is not None else None
    if (
        event is None
        or identifier is None
        or identifier.type != FieldDescriptor.TYPE_STRING
        or len(event.oneofs) != 1
    ):
        raise BadCatalog(f"{response.full_name} is not a batch of events")
    return event


class Stream:
    """One reader of one stream."""

    def __init__(
        self,
        call: Any,
        print_batch: PrintBatch,
        *,
        receive: Receive,
        send: Send,
        heartbeat_s: float,
        send_timeout_s: float,
    ) -> None:
        """Takes a call that has begun; `run` relays it."""
        self.sent_events = 0
        self._call, self._print_batch = call, print_batch
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
        aides = [asyncio.ensure_future(self._beat()), asyncio.ensure_future(self._watch())]
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
            self._call.cancel()

    def stop(self) -> None:
        """Ends the stream as a broken one, so that the reader asks again elsewhere."""
        self._call.cancel()

    async def _opened(self) -> None:
        for key, value in await self._call.initial_metadata() or ():
            if (key, value) == (OPEN_KEY, OPEN_VALUE):
                return
        # The call was refused, or an odd server takes it without saying so: its end tells.
        code = await self._call.code()
        if code is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                code,
                await self._call.initial_metadata(),
                await self._call.trailing_metadata(),
                details=await self._call.details(),
            )

    async def _relay(self) -> bool:
        """Relays all that comes; whether the stream came to its own end."""
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                for chunk in self._print_batch(message):
                    await self._write(chunk.text)
                    self.sent_events += chunk.count
                    if chunk.last:
                        return True
        except grpc.RpcError:
            return False
        except asyncio.CancelledError:
            # Ours, where the call was cancelled by `stop` or the watch; else the server's.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return False
        return bool(await self._call.code() is grpc.StatusCode.OK)

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
                self._call.cancel()
                return

    async def _watch(self) -> None:
        await disconnected(self._receive)
        self._call.cancel()
