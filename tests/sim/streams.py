"""The coordinator's streams in the simulated world: the real intake, stores and followers.

Only the disk is another one: a database in memory that outlives the coordinator, loses its newest
writes where the world says so, and fails as disks do.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from coordinator.core.records import Job
from coordinator.rpc.border import Call
from coordinator.rpc.follow import FollowMethods
from coordinator.rpc.identity import Identity
from coordinator.rpc.intake import Intake
from coordinator.rpc.jobs import JobReader
from coordinator.rpc.ranks import Ranks
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from coordinator.sqlite.database import Database, Work, transaction
from coordinator.streams.front import FrontedStreams
from coordinator.streams.protocol import StreamsUnavailable
from coordinator.streams.sqlite import SCHEMA, SqliteDisk
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.sim.tasks import Tasks
from tests.sim.wire import BROKEN, Wire

T = TypeVar("T")
COPIES = 12  # of the newest states, for a store that loses them

BEFORE_WRITE = "crash before the write"
BEFORE_FSYNC = "crash before the fsync"
BEFORE_REPLY = "crash before the reply"
BEFORE_EFFECTS = "crash before the effects"
COMMIT_FAILS = "commit fails"
COMMIT_LANDS = "commit lands but fails"

Follows = api.StreamJobLogsRequest | api.StreamJobMetricsRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """A call of a user of some tenant."""

    request: Follows
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Over:
    """The coordinator has ended a stream, by a refusal where there is a reason."""

    reason: str = ""


class SimDatabase(Database):
    """A file that outlives the coordinator. `fault` says what goes wrong with a write; "" for nothing."""

    def __init__(self, rng: Random, *, fault: Callable[[], str], keeps_copies: bool) -> None:
        self.crash: Callable[[], None] = lambda: None
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.executescript(SCHEMA.current)
        self.in_doubt = False
        self._rng = rng
        self._fault = fault
        self._copies: deque[bytes] | None = deque(maxlen=COPIES) if keeps_copies else None

    def lose(self, count: int) -> None:
        """Forgets the newest writes, as a copy that takes over too early does."""
        copies = self._copies
        for _ in range(min(count, len(copies) if copies else 0)):
            assert copies is not None
            self.connection.deserialize(copies.pop())

    async def write(self, work: Work[T]) -> T:
        await asyncio.sleep(self._rng.randint(1, 20) / 1000)
        fault = self._fault()
        if fault in (BEFORE_WRITE, BEFORE_FSYNC):
            await self._die()
        if fault == COMMIT_FAILS:
            raise StreamsUnavailable("the disk is full")
        if self._copies is not None:
            self._copies.append(self.connection.serialize())
        with transaction(self.connection, "BEGIN IMMEDIATE"):
            result = work(self.connection)
        if fault == BEFORE_REPLY:
            await self._die()
        if fault == COMMIT_LANDS:
            raise StreamsUnavailable("it is not known whether the disk took it")
        if fault == BEFORE_EFFECTS:
            asyncio.get_running_loop().call_later(0.001, self.crash)
        return result

    async def read(self, work: Work[T]) -> T:
        await asyncio.sleep(0.001)
        return work(self.connection)

    async def _die(self) -> None:
        self.crash()
        await asyncio.get_running_loop().create_future()  # nobody comes back from that


class StreamService:
    """The streams of one life of the coordinator. `told` sees every answer as it is sent."""

    def __init__(
        self,
        tasks: Tasks,
        database: SimDatabase,
        view: View,
        *,
        stored: Callable[[str], Awaitable[Job | None]],
        log_bytes_max: int,
        told: Callable[[str, Any], None],
    ) -> None:
        streams = FrontedStreams(SqliteDisk(database, log_bytes_max))

        self._tasks = tasks
        self._told = told
        self._intake = Intake(streams, Ranks(view, stored).are_known)
        self._follow = FollowMethods(view, streams, JobReader(view, stored))
        self._wires: list[Wire] = []

    def close(self) -> None:
        """The process is gone: so is every stream."""
        for wire in self._wires:
            wire.break_off()

    def push(self, wire: Wire, first: object) -> None:
        """Takes an agent's stream of batches."""
        requests: asyncio.Queue[Any] = asyncio.Queue()
        requests.put_nowait(first)
        self._serve(wire, self._take(wire, requests), hear=requests.put_nowait)

    def follow(self, wire: Wire, asked: Asked) -> None:
        """Takes a user's call that follows a job."""
        self._serve(wire, self._show(wire, asked), hear=lambda item: None)

    def _serve(self, wire: Wire, work: Any, *, hear: Callable[[Any], None]) -> None:
        self._wires = [one for one in self._wires if not one.is_broken]
        self._wires.append(wire)
        task = self._tasks.start(work)

        # as gRPC does: the handler of a call whose other end is gone is cancelled
        def up(item: object) -> None:
            if item is BROKEN:
                task.cancel()
            else:
                hear(item)

        wire.up = up

    async def _take(self, wire: Wire, requests: asyncio.Queue[Any]) -> None:
        async def read() -> AsyncIterator[Any]:
            while True:
                yield await requests.get()

        try:
            async with aclosing(self._intake.take(read())) as responses:
                async for response in responses:
                    wire.send(response, up=False)
        except (Refusal, StreamsUnavailable):
            wire.break_off()

    async def _show(self, wire: Wire, asked: Asked) -> None:
        identity = Identity(tenant_id=asked.tenant_id, user_id="u", permissions=frozenset())
        call = Call(identity, "", [])
        over = Over()
        try:
            follow: Any = self._follow.StreamJobMetrics
            if isinstance(asked.request, api.StreamJobLogsRequest):
                follow = self._follow.StreamJobLogs
            async with aclosing(follow(asked.request, call)) as responses:
                async for response in responses:
                    if response is not None:
                        self._told(asked.request.job_id, response)
                        await wire.room.acquire()
                        wire.send(response, up=False)
        except Refusal as refusal:
            over = Over(refusal.reason.value)
        except StreamsUnavailable:
            over = Over("STORE_UNAVAILABLE")
        await wire.room.acquire()
        wire.send(over, up=False)
