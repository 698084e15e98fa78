"""Streams between a process and the coordinator, at the level at which gRPC fails.

In order, whole, and never twice; until the stream breaks after a prefix that neither end knows. Each end
hears of the break in its own time, or finds out by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from tests.sim.clock import SECOND, Loop
from tests.sim.network import Network

NOTICED_MS = (1, 10, SECOND, 20 * SECOND, 60 * SECOND)
ON_THE_WAY = 4  # messages of one stream that its reader has not taken


class Broken:
    """What an end is told last."""


BROKEN = Broken()
Hear = Callable[[Any], None]


class Wire:
    """One stream. `up` and `down` take what arrives at the coordinator and at the other end."""

    def __init__(self, loop: Loop, rng: Random, network: Network, *, what: str, node_id: str = ""):
        self.up: Hear = lambda item: None
        self.down: Hear = lambda item: None
        self.room = asyncio.Semaphore(ON_THE_WAY)  # for the coordinator's messages
        self.is_broken = False
        self._loop = loop
        self._rng = rng
        self._network = network
        self._what = what
        self._node_id = node_id
        self._last_ms = {True: 0, False: 0}

    def send(self, item: object, *, up: bool) -> None:
        """Something is on its way, behind all that was sent before."""
        if self.is_broken:
            return
        delay_ms = self._network.delay_ms(self._what, self._rng, node_id=self._node_id, up=up)
        if delay_ms is None:
            self.break_off()
            return
        at_ms = max(self._last_ms[up] + 1, self._loop.now_ms + delay_ms)  # no two at once
        self._last_ms[up] = at_ms
        self._loop.after(at_ms - self._loop.now_ms, lambda: self._arrive(item, up))

    def break_off(self) -> None:
        """Nothing arrives any more; both ends hear of it at some time."""
        if self.is_broken:
            return
        self.is_broken = True
        for hear in (self.up, self.down):
            notice_ms = self._rng.choice(NOTICED_MS)
            self._loop.after(notice_ms, lambda hear=hear: hear(BROKEN))  # type: ignore[misc]

    def _arrive(self, item: object, up: bool) -> None:
        if not self.is_broken:
            (self.up if up else self.down)(item)


class PushCall:
    """An agent's end of the stream of its batches, as gRPC shows it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._heard: asyncio.Queue[Any] = asyncio.Queue()
        wire.down = self._heard.put_nowait

    async def write(self, batch: object) -> None:
        """Sends a batch; as with gRPC it is not known whether it arrives."""
        self._wire.send(batch, up=True)

    def __aiter__(self) -> PushCall:
        return self

    async def __anext__(self) -> Any:
        item = await self._heard.get()
        if item is BROKEN:
            raise ConnectionError("the stream broke")
        return item

    def cancel(self) -> None:
        """The agent has given the stream up."""
        self._wire.break_off()
