"""One call of the coordinator for all who read one stream.

Theory of operation. Every reader begins with a call of its own, which brings it from wherever it
asked to begin to where the stream is. Where there are several, the call of one of them becomes a
`Hub`: what it brings is printed once, and kept for a short while. Another reader joins when the id
of its own last event is among what the hub keeps, because what follows one id in a stream is the
same for all; its own call is given up. A reader that falls so far behind that the hub has forgotten
its place goes on with a call of its own after its last id, and may join again later. So nobody
misses an event or sees one twice, and nobody waits for another: a hub reads on as soon as its
fastest reader has all, and holds no more than a few pieces.

Readers share only with those whom the coordinator cannot tell apart: same tenant, same permissions,
same method, same request but for the place where it begins.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import structlog

from gateway.chunks import Chunk, PrintBatch

log = structlog.get_logger("gateway")

KEPT_BYTES = 131_072
WRITE_BYTES = 65_536
# A hub that a frozen reader holds up may never come.
WAITS_S, WAITS_AGAIN_S = 0.5, 5.0

Key = tuple[str, ...]
Start = Callable[[str], Any]
"""Begins a call after the event with an id; where the request says, for no id."""


class Stopped(Exception):
    """The reader was stopped, or what it reads broke."""


class Hubs:
    """The hubs of one gateway."""

    def __init__(self) -> None:
        """There are none yet."""
        self.open: dict[Key, Hub] = {}
        self.readers: Counter[Key] = Counter()
        """How many read each stream, by whatever call."""


class Hub:
    """A call whose events several readers take."""

    def __init__(self, hubs: Hubs, key: Key, *, call: Any, last_id: str, print_batch: PrintBatch):
        """Takes a call that has brought the event `last_id`."""
        self.over = self.good = False
        self.ahead: set[Source] = set()
        """Readers that wait for it to come where they are."""
        self._hubs, self._key, self._call, self._print_batch = hubs, key, call, print_batch
        self._pieces: dict[int, Chunk] = {}
        self._first = self._next = 0
        self._bytes = 0
        self._base = last_id
        self._places: dict[str, tuple[int, int]] = {last_id: (0, 0)}
        self._readers: set[Source] = set()
        self._drained = asyncio.Event()
        self._drained.set()
        hubs.open[key] = self
        self._reading = asyncio.ensure_future(self._read())

    def place(self, last_id: str) -> tuple[int, int] | None:
        """Where a reader goes on: a piece, and how many bytes of it the reader has."""
        return self._places.get(last_id)

    def enter(self, reader: Source) -> None:
        """Tells a reader of what comes from now on."""
        self._readers.add(reader)

    def leave(self, reader: Source) -> None:
        """Forgets a reader; the last one ends the hub."""
        self._readers.discard(reader)
        if not self._readers:
            self._reading.cancel()
            self._end()

    def take(self, place: tuple[int, int]) -> tuple[Chunk | None, tuple[int, int]]:
        """What follows a place, in one piece, and the place behind it; None for nothing yet.

        Raises:
            KeyError: what follows is forgotten.
        """
        number, offset = place
        if number >= self._next:
            return None, place
        first = self._pieces[number]
        chunk = first if not offset else first.after(offset)
        number += 1
        while number < self._next and len(chunk.text) < WRITE_BYTES:
            chunk += self._pieces[number]
            number += 1
        if number == self._next:
            self._drained.set()
        return (chunk if chunk.text else None), (number, 0)

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                for chunk in self._print_batch(message):
                    await self._drained.wait()
                    self._append(chunk)
                    if chunk.last:
                        self.good = True
                        return
            self.good = await self._call.code() is grpc.StatusCode.OK
        except (grpc.RpcError, asyncio.CancelledError):
            return
        except Exception:
            log.exception("gateway_error", route=self._key[2])
        finally:
            self._end()

    def _append(self, chunk: Chunk) -> None:
        number = self._next
        self._pieces[number] = chunk
        for name, end in chunk.ends:
            self._places[name] = (number, end)
        self._next += 1
        self._bytes += len(chunk.text)
        while self._bytes > KEPT_BYTES and self._next - self._first > 1:
            self._forget()
        self._drained.clear()
        self._wake_all()

    def _forget(self) -> None:
        gone = self._pieces.pop(self._first)
        self._first += 1
        self._bytes -= len(gone.text)
        for name in (self._base, *(name for name, _ in gone.ends)):
            self._places.pop(name, None)

    def _end(self) -> None:
        self.over = True
        if self._hubs.open.get(self._key) is self:
            del self._hubs.open[self._key]
        self._call.cancel()
        self._wake_all()

    def _wake_all(self) -> None:
        for reader in (*self._readers, *self.ahead):
            reader.wake.set()


class Source:
    """What one reader gets, by its own call or by one that it shares."""

    def __init__(
        self, start: Start, print_batch: PrintBatch, *, hubs: Hubs, key: Key | None
    ) -> None:
        """Begins the reader's own call; without a key it is never shared."""
        self.wake = asyncio.Event()
        self.call = start("")
        self._start, self._print_batch = start, print_batch
        self._hubs, self._key = hubs, key
        self._hub: Hub | None = None
        self._place = (0, 0)
        self._last_id = ""
        self._stopped = False
        self._waits_after = 0.0
        if key is not None:
            hubs.readers[key] += 1

    async def next(self) -> list[Chunk]:
        """What comes next; nothing where the stream came to its own end.

        Raises:
            Stopped: the reader was stopped, or a call that it shares broke.
            grpc.RpcError: its own call broke.
        """
        while True:
            if self._stopped:
                raise Stopped
            if self._hub is None:
                await self._share()
            if self._hub is None:
                return await self._own()
            chunk = await self._shared(self._hub)
            if chunk is not None:
                return [chunk]
            if self._hub is not None:
                return []

    def stop(self) -> None:
        """Ends the stream as a broken one."""
        self._stopped = True
        self.wake.set()
        if self._hub is None:
            self.call.cancel()

    def close(self) -> None:
        """Lets go of its call, or of the hub."""
        self.stop()
        if self._hub is not None:
            self._hub.leave(self)
        if self._key is not None:
            self._hubs.readers[self._key] -= 1
            if not self._hubs.readers[self._key]:
                del self._hubs.readers[self._key]
            self._key = None

    async def _own(self) -> list[Chunk]:
        while (message := await self.call.read()) is not grpc.aio.EOF:
            chunks = list(self._print_batch(message))
            if chunks:
                self._last_id = chunks[-1].last_id
                return chunks
        if await self.call.code() is not grpc.StatusCode.OK:
            raise Stopped
        return []

    async def _share(self) -> None:
        """Joins the others, or has them join, where that can be done."""
        if self._key is None or not self._last_id:
            return
        hub = self._hubs.open.get(self._key)
        if hub is None and self._hubs.readers[self._key] > 1:
            hub = Hub(
                self._hubs,
                self._key,
                call=self.call,
                last_id=self._last_id,
                print_batch=self._print_batch,
            )
        elif hub is not None and await self._is_reached_by(hub):
            self.call.cancel()
        else:
            return
        self._hub, self._place = hub, hub.place(self._last_id) or (0, 0)
        hub.enter(self)

    async def _is_reached_by(self, hub: Hub) -> bool:
        """Whether the hub is where this reader is; a reader that is ahead of it waits a little."""
        if hub.place(self._last_id) is None:
            now = asyncio.get_running_loop().time()
            if now < self._waits_after:
                return False
            self._waits_after = now + WAITS_AGAIN_S
            hub.ahead.add(self)
            try:
                async with asyncio.timeout(WAITS_S):
                    while not (hub.over or self._stopped or hub.place(self._last_id)):
                        self.wake.clear()
                        await self.wake.wait()
            except TimeoutError:
                return False
            finally:
                hub.ahead.discard(self)
        return not (hub.over or self._stopped) and hub.place(self._last_id) is not None

    async def _shared(self, hub: Hub) -> Chunk | None:
        """What the hub has next; None at its good end, or where this reader has left it."""
        while True:
            self.wake.clear()
            try:
                chunk, self._place = hub.take(self._place)
            except KeyError:
                hub.leave(self)
                self._hub, self.call = None, self._start(self._last_id)
                return None
            if chunk is not None:
                self._last_id = chunk.last_id
                return chunk
            if hub.over and hub.good:
                return None
            if hub.over or self._stopped:
                raise Stopped
            await self.wake.wait()
