"""Stores that fail as they are told, and drivers over them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from coordinator.core.commands import Caller, SubmitJob
from coordinator.core.core import Core
from coordinator.core.records import Demand, Policy
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import Batch, Snapshot, StoreUnavailable

LOST, LANDED = "lost", "landed"  # what became of a commit that reports failure


class FaultyStore(MemoryStore):
    """A store that reports failures: `commits` and `loads` say of the next ones what becomes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: deque[str] = deque()
        self.loads: deque[str] = deque()
        self.batches: list[Batch] = []  # as they were offered
        self.arrived = asyncio.Event()  # a commit is under way
        self.let_go = asyncio.Event()  # it may go on
        self.let_go.set()

    async def commit(self, batch: Batch, *, epoch: int, expected_version: int) -> int:
        self.batches.append(batch)
        self.arrived.set()
        await self.let_go.wait()
        fault = self.commits.popleft() if self.commits else ""
        if fault == LOST:
            raise StoreUnavailable("the disk is gone")
        version = await super().commit(batch, epoch=epoch, expected_version=expected_version)
        if fault == LANDED:
            raise StoreUnavailable("the answer is gone")
        return version

    async def load(self) -> Snapshot:
        if self.loads:
            self.loads.popleft()
            raise StoreUnavailable("the disk is gone")
        return await super().load()

    def hold(self) -> None:
        """Holds the next commits until `let_go` is set."""
        self.arrived.clear()
        self.let_go.clear()


def a_driver(
    store: MemoryStore,
    *,
    make_core: Callable[[], Core] = Core,
    queue_limit: int = 1_000,
    batch_limit: int = 1_000,
) -> Driver:
    """A driver that does not lead yet."""
    return Driver(make_core, store, clock=Clock(), queue_limit=queue_limit, batch_limit=batch_limit)


async def lead(driver: Driver) -> None:
    """Has the driver lead under a new epoch of its store."""
    await driver.lead(await driver._store.acquire("test"))


@asynccontextmanager
async def running(driver: Driver) -> AsyncIterator[asyncio.Task[None]]:
    """Has the driver lead and decide."""
    await lead(driver)
    task = asyncio.create_task(driver.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def a_command(
    job_id: str, *, request_id: str = "", start_after_ms: int = 0, gpus: int = 1
) -> SubmitJob:
    """A submit that waits for devices."""
    return SubmitJob(
        caller=Caller(tenant_id="acme", user_id="ann", request_id=request_id, digest="d"),
        job_id=job_id,
        name=job_id,
        demand=Demand(device_count=gpus),
        policy=Policy(start_after_ms=start_after_ms),
        document=b"body",
    )
