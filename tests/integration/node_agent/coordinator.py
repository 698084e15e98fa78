"""A coordinator for tests: real gRPC, desires what a test says, keeps what agents report."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.agent.v1 import agent_service_pb2_grpc as agent_grpc
from tests.support.ports import Port

WAIT_S = 90.0


class Coordinator(agent_grpc.AgentServiceServicer):
    """Answers Sync as the protocol says: at once where the list is news, held where it is not."""

    def __init__(self) -> None:
        self.desired: dict[str, agent_pb2.DesiredLease] = {}
        self.revision = 1
        self.leader_epoch = 1
        self.superseded = False
        self.acknowledges = True
        self.requests: list[agent_pb2.SyncRequest] = []
        self.joined: list[agent_pb2.JoinRequest] = []
        self.metadata: list[dict[str, str]] = []
        self._lines: dict[tuple[str, int, int], dict[int, str]] = {}
        self._moved = asyncio.Condition()
        self._server: grpc.aio.Server | None = None
        self._port = Port()
        self.port = self._port.number

    async def start(self) -> None:
        """Listens, at each start on the same port."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        agent_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(str(self._port))
        await self._server.start()

    async def stop(self) -> None:
        """Goes away, in the middle of whatever it does."""
        if self._server is not None:
            await self._server.stop(None)

    def close(self) -> None:
        """Gives its port back."""
        self._port.close()

    async def next_call(self) -> agent_pb2.SyncRequest:
        """Has the held call answered, and waits for the one after it."""
        calls = len(self.requests)
        await self.bump()
        await self.until(lambda: len(self.requests) > calls)
        return self.requests[-1]

    async def desire(self, *leases: agent_pb2.DesiredLease) -> None:
        """Replaces the whole list of what is desired."""
        self.desired = {lease.lease_id: lease for lease in leases}
        await self.bump()

    async def bump(self) -> None:
        """Makes every held call out of date."""
        async with self._moved:
            self.revision += 1
            self._moved.notify_all()

    async def Join(
        self, request: agent_pb2.JoinRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> agent_pb2.JoinResponse:
        self.joined.append(request)
        self.metadata.append({str(k): str(v) for k, v in context.invocation_metadata() or ()})
        return agent_pb2.JoinResponse()

    async def Sync(
        self, request: agent_pb2.SyncRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> agent_pb2.SyncResponse:
        async with self._moved:
            self.requests.append(request)
            self.metadata.append({str(k): str(v) for k, v in context.invocation_metadata() or ()})
            self._moved.notify_all()
            try:
                async with asyncio.timeout(request.hold_ms / 1000):
                    await self._moved.wait_for(lambda: self.revision != request.seen_revision)
            except TimeoutError:
                pass
            return self._answer()

    def _answer(self) -> agent_pb2.SyncResponse:
        reported = {(lease.lease_id, lease.epoch) for lease in self.requests[-1].leases}
        leases = []
        for desired in self.desired.values():
            lease = agent_pb2.DesiredLease()
            lease.CopyFrom(desired)
            if (lease.lease_id, lease.epoch) in reported:
                lease.ClearField("spec")
            leases.append(lease)
        return agent_pb2.SyncResponse(
            revision=self.revision,
            leader_epoch=self.leader_epoch,
            leases=leases,
            superseded=self.superseded,
        )

    async def Push(
        self,
        request_iterator: AsyncIterator[agent_pb2.PushRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[agent_pb2.PushResponse]:
        async for batch in request_iterator:
            lines = self._lines.setdefault((batch.job_id, batch.rank, batch.channel), {})
            lines.update(zip(batch.ends, batch.texts, strict=True))
            if self.acknowledges:
                yield agent_pb2.PushResponse(batch_id=batch.batch_id, acknowledged=batch.end)

    async def ReportCache(
        self,
        request: agent_pb2.ReportCacheRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> agent_pb2.ReportCacheResponse:
        return agent_pb2.ReportCacheResponse()

    async def ReportTelemetry(
        self,
        request: agent_pb2.ReportTelemetryRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> agent_pb2.ReportTelemetryResponse:
        return agent_pb2.ReportTelemetryResponse()

    def lines(self, job_id: str, rank: int, channel: int) -> list[str]:
        """What a rank printed to a channel, in its order; known offsets came once."""
        return [text for _, text in sorted(self._lines.get((job_id, rank, channel), {}).items())]

    @property
    def leases(self) -> dict[str, agent_pb2.ObservedLease]:
        """What the newest call reported, by lease id."""
        return {lease.lease_id: lease for lease in self.requests[-1].leases}

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Waits until `wanted` holds after some call of an agent."""
        async with asyncio.timeout(WAIT_S), self._moved:
            await self._moved.wait_for(lambda: bool(self.requests) and wanted())

    async def reported(self, lease_id: str, state: int) -> agent_pb2.ObservedLease:
        """Waits until the newest call reports a lease in a state; returns the lease."""
        await self.until(lambda: lease_id in self.leases and self.leases[lease_id].state == state)
        return self.leases[lease_id]

    async def forgotten(self, lease_id: str) -> None:
        """Waits until the newest call does not report a lease."""
        await self.until(lambda: lease_id not in self.leases)
