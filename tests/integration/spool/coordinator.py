"""A coordinator's Push over real gRPC, in memory: drops what it has by offset, keeps the rest."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
from grpc import aio

from scaimind.agent.v1 import agent_service_pb2 as pb
from scaimind.agent.v1 import agent_service_pb2_grpc
from scaimind.v1 import job_pb2
from tests.support.ports import Port

Key = tuple[str, int, int, int]


@dataclass
class Stored:
    """What was stored of one channel of one rank."""

    acknowledged: int = 0
    texts: list[str] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    points: list[job_pb2.MetricPoint] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)


class RecordingCoordinator(agent_service_pb2_grpc.AgentServiceServicer):
    """Stores batches; `refuse_jobs` are not known, `hold` withholds answers while it is set, and a
    batch with `poison` in it ends the stream.
    """

    def __init__(self) -> None:
        self.stored: dict[Key, Stored] = defaultdict(Stored)
        self.refuse_jobs: set[str] = set()
        self.hold = False
        self.poison = "\0"
        self.streams = 0
        self.batches = 0
        self.telemetry: list[pb.ReportTelemetryRequest] = []
        self.changed = asyncio.Condition()
        self._port = Port()
        self.address = str(self._port)
        self._server: aio.Server | None = None

    async def start(self) -> None:
        """Serves at `address`, the same one at each start."""
        self._server = aio.server(options=[("grpc.so_reuseport", 0)])
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        await self._server.start()

    async def stop(self) -> None:
        """Breaks all streams; what is stored stays."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def close(self) -> None:
        """Gives its port back."""
        self._port.close()

    async def Join(
        self, request: pb.JoinRequest, context: aio.ServicerContext[pb.JoinRequest, pb.JoinResponse]
    ) -> pb.JoinResponse:
        return pb.JoinResponse()

    async def Push(
        self,
        requests: AsyncIterator[pb.PushRequest],
        context: aio.ServicerContext[pb.PushRequest, pb.PushResponse],
    ) -> AsyncIterator[pb.PushResponse]:
        self.streams += 1
        async for batch in requests:
            self.batches += 1
            if self.poison in batch.texts:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "poison")
            unknown = batch.job_id in self.refuse_jobs
            stored = self.stored[batch.job_id, batch.attempt, batch.rank, batch.channel]
            if not unknown:
                self._store(stored, batch)
            async with self.changed:
                self.changed.notify_all()
            while self.hold:
                async with self.changed:
                    await self.changed.wait()
            yield pb.PushResponse(
                batch_id=batch.batch_id,
                acknowledged=stored.acknowledged,
                unknown_job=unknown,
            )

    async def ReportCache(
        self,
        request: pb.ReportCacheRequest,
        context: aio.ServicerContext[pb.ReportCacheRequest, pb.ReportCacheResponse],
    ) -> pb.ReportCacheResponse:
        return pb.ReportCacheResponse()

    async def ReportTelemetry(
        self,
        request: pb.ReportTelemetryRequest,
        context: aio.ServicerContext[pb.ReportTelemetryRequest, pb.ReportTelemetryResponse],
    ) -> pb.ReportTelemetryResponse:
        self.telemetry.append(request)
        async with self.changed:
            self.changed.notify_all()
        return pb.ReportTelemetryResponse()

    async def Sync(
        self,
        request: pb.SyncRequest,
        context: aio.ServicerContext[pb.SyncRequest, pb.SyncResponse],
    ) -> pb.SyncResponse:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not a part of these tests")

    async def release(self) -> None:
        """Answers what was held."""
        self.hold = False
        async with self.changed:
            self.changed.notify_all()

    def of(self, channel: pb.Channel.ValueType, *, rank: int = 0, job_id: str = "job-1") -> Stored:
        """What was stored of a channel of attempt 1."""
        return self.stored[job_id, 1, rank, channel]

    def forget(self, texts: int, *, offset: int) -> None:
        """Loses all but the first so many lines of rank 0's output, which end at `offset`."""
        stored = self.of(pb.STDOUT)
        del stored.texts[texts:]
        stored.acknowledged = offset

    @staticmethod
    def _store(stored: Stored, batch: pb.PushRequest) -> None:
        known = stored.acknowledged
        if batch.gap_before and batch.begin > known:
            stored.gaps.append((known, batch.begin))
        elif batch.begin > known:
            return
        for text, end, level in zip(batch.texts, batch.ends, batch.levels, strict=True):
            if end > known:
                stored.texts.append(text)
                stored.levels.append(level)
        for point, end in zip(batch.metrics, batch.metric_ends, strict=True):
            if end > known:
                stored.points.append(point)
        if batch.HasField("progress"):
            stored.progress.append(batch.progress)
        stored.acknowledged = max(known, batch.end)
