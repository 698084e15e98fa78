"""A client that follows a stream of a job and keeps what it saw."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.house import Caller

WITHIN_S = 90.0


class Follower:
    """One stream of events, of the log or of the metrics."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.events: list[Any] = []

    @classmethod
    def of_log(cls, caller: Caller, job_id: str, **fields: Any) -> Follower:
        """Follows the log; all of it unless `tail` or `after` says otherwise."""
        if "after" not in fields:
            fields.setdefault("tail", -1)
        request = api.StreamJobLogsRequest(job_id=job_id, **fields)
        return cls(caller.start("StreamJobLogs", request, timeout_s=150))

    @classmethod
    def of_metrics(cls, caller: Caller, job_id: str, **fields: Any) -> Follower:
        """Follows the metrics."""
        request = api.StreamJobMetricsRequest(job_id=job_id, **fields)
        return cls(caller.start("StreamJobMetrics", request, timeout_s=150))

    @property
    def lines(self) -> list[str]:
        """Texts of the lines so far."""
        return [one.log.message for one in self.events if one.WhichOneof("event") == "log"]

    @property
    def kinds(self) -> list[str]:
        """Kinds of the events so far."""
        return [str(one.WhichOneof("event")) for one in self.events]

    @property
    def last_id(self) -> str:
        """Id of the newest event."""
        return str(self.events[-1].id)

    async def opened(self) -> Any:
        """The initial metadata, as soon as the server sends it."""
        async with asyncio.timeout(WITHIN_S):
            return tuple(await self.call.initial_metadata())

    async def until(self, count: int) -> list[str]:
        """Reads until so many events came; the lines."""
        async with asyncio.timeout(WITHIN_S):
            while len(self.events) < count:
                message = await self.call.read()
                assert hasattr(message, "events"), f"ended after {self.lines}"
                self.events.extend(message.events)
        return self.lines

    async def rest(self) -> list[str]:
        """Reads until the stream ends; the lines."""
        async with asyncio.timeout(WITHIN_S):
            while (message := await self.call.read()) is not grpc.aio.EOF:
                self.events.extend(message.events)
        return self.lines
