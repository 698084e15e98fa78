"""Pieces of streams, and readers that share: against a model, with every order of steps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import sharing
from gateway.chunks import Chunk
from gateway.sharing import Hubs, Source

KEY = ("acme", "", "path", "")


def piece(first: int, last: int) -> Chunk:
    """Events of fixed length, so that offsets can be told."""
    texts = [b"%06d" % number for number in range(first, last + 1)]
    ends = tuple((str(first + index), 6 * (index + 1)) for index in range(len(texts)))
    return Chunk(b"".join(texts), ends)


def printed(message: tuple[int, int]) -> Iterator[Chunk]:
    yield piece(*message)


def test_pieces_can_be_cut_and_joined() -> None:
    whole = piece(1, 9)
    assert piece(1, 4) + piece(5, 9) == whole
    assert whole.after(6 * 4) == piece(5, 9)
    assert (whole.count, whole.last_id, whole.after(54).text) == (9, "9", b"")


class Call:
    """Brings numbers after a place, as far as a world has come, in messages of any size."""

    def __init__(self, world: World, after: int) -> None:
        self.at, self.cancelled = after, False
        self._world = world
        world.calls.append(self)

    async def read(self) -> Any:
        while self.at >= self._world.last:
            if self.cancelled:
                raise asyncio.CancelledError
            if self._world.over:
                return grpc.aio.EOF
            await self._world.news.wait()
        if self.cancelled:
            raise asyncio.CancelledError
        first = self.at + 1
        self.at = min(self._world.last, self.at + self._world.sizes[first % 3])
        return (first, self.at)

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def cancel(self) -> None:
        self.cancelled = True
        self._world.wake()


class World:
    """Numbers from 1 on."""

    def __init__(self, sizes: tuple[int, int, int]) -> None:
        self.last, self.over, self.sizes = 0, False, sizes
        self.calls: list[Call] = []
        self.news = asyncio.Event()
        self.hubs = Hubs()

    def wake(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()

    def reader(self, after: int) -> Source:
        def start(identifier: str) -> Call:
            return Call(self, int(identifier) if identifier else after)

        return Source(start, printed, hubs=self.hubs, key=KEY)


async def read(source: Source, seen: list[int], *, gate: asyncio.Event, leaves_at: int) -> None:
    """Reads to the end; stands still while the gate is shut, and leaves early where told."""
    try:
        while chunks := await source.next():
            for chunk in chunks:
                assert len(chunk.text) == 6 * chunk.count
                seen += [int(chunk.text[at : at + 6]) for at in range(0, len(chunk.text), 6)]
            if leaves_at and len(seen) >= leaves_at:
                return
            await gate.wait()
    finally:
        source.close()


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("grow"), st.integers(1, 40)),
        st.tuples(st.just("join"), st.integers(0, 30)),
        st.tuples(st.just("freeze"), st.integers(0, 5)),
        st.tuples(st.just("thaw"), st.integers(0, 5)),
        st.tuples(st.just("turn"), st.integers(1, 12)),
    ),
    min_size=5,
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(Steps, st.tuples(*[st.integers(1, 9)] * 3))
async def test_every_reader_sees_every_number_once_and_in_order(
    steps: list[tuple[str, int]], sizes: tuple[int, int, int]
) -> None:
    before = sharing.KEPT_BYTES, sharing.WRITE_BYTES, sharing.WAITS_S
    sharing.KEPT_BYTES, sharing.WRITE_BYTES, sharing.WAITS_S = 90, 60, 0.001
    try:
        await follow(steps, World(sizes))
    finally:
        sharing.KEPT_BYTES, sharing.WRITE_BYTES, sharing.WAITS_S = before


async def follow(steps: list[tuple[str, int]], world: World) -> None:
    readers: list[tuple[int, list[int], asyncio.Event, asyncio.Task[None]]] = []
    for what, number in steps:
        if what == "grow":
            world.last += number
            world.wake()
        elif what == "join":
            after, seen, gate = max(0, world.last - number), list[int](), asyncio.Event()
            gate.set()
            leaves_at = number if number % 5 == 4 else 0
            reading = read(world.reader(after), seen, gate=gate, leaves_at=leaves_at)
            readers.append((after, seen, gate, asyncio.ensure_future(reading)))
        elif what == "turn":
            for _ in range(number):
                await asyncio.sleep(0)
        elif number < len(readers):
            gate = readers[number][2]
            gate.clear() if what == "freeze" else gate.set()
    for _, _, gate, _ in readers:
        gate.set()
    world.over = True
    world.wake()
    await asyncio.wait_for(asyncio.gather(*(task for *_, task in readers)), 90)
    for after, seen, _, _ in readers:
        assert seen == list(range(after + 1, after + 1 + len(seen)))
        assert len(seen) == world.last - after or len(seen) >= 4
    assert all(call.cancelled for call in world.calls)
    assert not world.hubs.open
    assert not world.hubs.readers
