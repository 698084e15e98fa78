"""A rank's folder, a coordinator, and the spool between them, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from grpc import aio

from node_agent.ranks import RankFiles
from node_agent.spool import Spool
from node_agent.spool.spool import DEFAULT_BUDGET_BYTES
from scaimind.agent.v1 import agent_service_pb2_grpc
from tests.integration.spool.coordinator import RecordingCoordinator

TIMEOUT_S = 90.0
_RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
]


class Agent:
    """One spool that can be killed and started again on the same files."""

    def __init__(self, root: Path, coordinator: RecordingCoordinator) -> None:
        self.root = root
        self.coordinator = coordinator
        self.changed = asyncio.Event()
        self.budget_bytes = DEFAULT_BUDGET_BYTES
        self.spool: Spool
        self._channel: aio.Channel
        self._running: asyncio.Task[None]

    async def start(self) -> None:
        self._channel = aio.insecure_channel(self.coordinator.address, options=_RECONNECT)
        stub = agent_service_pb2_grpc.AgentServiceStub(self._channel)
        self.spool = Spool(
            lambda: stub.Push(metadata=(("authorization", "Bearer secret"),)),
            node_id="node-1",
            budget_bytes=self.budget_bytes,
        )
        self.spool.on_change = lambda lease_id: self.changed.set()
        self._running = asyncio.create_task(self.spool.run())

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._channel.close()

    async def restart(self, *ranks: RankFiles) -> None:
        await self.stop()
        await self.start()
        for rank in ranks:
            self.spool.watch(rank)

    def rank(self, number: int = 0, *, job_id: str = "job-1", lease_id: str = "") -> RankFiles:
        lease_id = lease_id or f"lease-{job_id}"
        path = self.root / lease_id / f"rank-{number}"
        path.mkdir(parents=True, exist_ok=True)
        checkpoints = self.root / f"checkpoints-{job_id}"
        checkpoints.mkdir(exist_ok=True)
        for name in ("stdout", "stderr", "events"):
            (path / name).touch()
        return RankFiles(path, job_id, job_id, 1, lease_id, 1, number, checkpoints, 3)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a condition that the coordinator or the spool brings about."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self.changed.clear()
                waits = [
                    asyncio.create_task(self.changed.wait()),
                    asyncio.create_task(self._heard()),
                ]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)

    async def drained(self, *leases: str) -> None:
        await self.until(lambda: all(self.spool.is_drained(lease) for lease in leases))

    async def _heard(self) -> None:
        async with self.coordinator.changed:
            await self.coordinator.changed.wait()


@pytest.fixture
async def coordinator() -> AsyncIterator[RecordingCoordinator]:
    coordinator = RecordingCoordinator()
    await coordinator.start()
    yield coordinator
    await coordinator.release()
    await coordinator.stop()
    coordinator.close()


@pytest.fixture
async def agent(tmp_path: Path, coordinator: RecordingCoordinator) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path, coordinator)
    await agent.start()
    yield agent
    await agent.stop()
