"""An agent that speaks the agents' API by hand: it reports what a test tells it, and runs nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.runtime.bootstrap import digest_of
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, node_pb2, stream_pb2
from tests.integration.coordinator.house import Caller

HOLD_MS = 10_000
WITHIN_S = 90.0
LINE_BYTES = 10  # what a pushed line takes in its file
Answered = Callable[[agent_api.SyncResponse], bool]


class FakeAgent:
    """One start of the agent of one node, given one who has the join token.

    `desired` is the newest answer, `observed` what is reported.
    """

    def __init__(
        self, caller: Caller, node_id: str = "n1", *, devices: int = 4, generation: int = 1
    ) -> None:
        self._joiner = caller
        self.node_id = node_id
        # Every start of the node's agent has the same one, as from its data directory.
        secret = f"nk_{node_id}.{hashlib.sha256(node_id.encode()).hexdigest()}"
        self.digest = digest_of(secret)
        self.caller = Caller(caller.channel, secret)
        self._has_joined = False
        self.generation = generation
        self.sequence = 0
        self.offer = agent_api.NodeOffer(
            address="127.0.0.1",
            simulated=True,
            cpu_count=64,
            memory_bytes=1 << 40,
            disk_bytes=1 << 40,
            devices=[
                node_pb2.Device(
                    device_id=f"{node_id}-d{index}",
                    index=index,
                    type="CPU",
                    memory_bytes=1 << 30,
                    simulated=True,
                    healthy=True,
                )
                for index in range(devices)
            ],
        )
        self.observed: dict[str, agent_api.ObservedLease] = {}
        self.specs: dict[str, agent_api.LeaseSpec] = {}
        self.desired = agent_api.SyncResponse()
        self._offsets: dict[tuple[str, int, int], int] = {}

    @property
    def lease_ids(self) -> list[str]:
        """Ids of the desired leases."""
        return [lease.lease_id for lease in self.desired.leases]

    def request(self, *, hold_ms: int = 0, **fields: Any) -> agent_api.SyncRequest:
        """The next report."""
        self.sequence += 1
        values = {
            "node_id": self.node_id,
            "incarnation": f"{self.node_id}-{self.generation}",
            "generation": self.generation,
            "sequence": self.sequence,
            "seen_revision": self.desired.revision,
            "hold_ms": hold_ms,
            "offer": self.offer,
            "leases": list(self.observed.values()),
            **fields,
        }
        return agent_api.SyncRequest(**values)

    async def sync(self, *, hold_ms: int = 0, **fields: Any) -> agent_api.SyncResponse:
        """One call, the first after joining; takes over the answer."""
        await self.join()
        answer = await self.caller.call("Sync", self.request(hold_ms=hold_ms, **fields))
        assert isinstance(answer, agent_api.SyncResponse)
        if not answer.superseded:
            self.desired = answer
            for lease in answer.leases:
                if lease.HasField("spec"):
                    self.specs[lease.lease_id] = lease.spec
        return answer

    async def join(self) -> None:
        """Makes the node's credential known."""
        if not self._has_joined:
            request = agent_api.JoinRequest(node_id=self.node_id, credential_sha256=self.digest)
            await self._joiner.call("Join", request)
            self._has_joined = True

    async def until(self, condition: Answered) -> agent_api.SyncResponse:
        """Calls, held, until what is desired is as wanted."""
        async with asyncio.timeout(WITHIN_S):
            while not condition(self.desired):
                await self.sync(hold_ms=HOLD_MS)
        return self.desired

    async def granted(self, count: int = 1) -> list[str]:
        """Waits until so many leases are desired to run; their ids."""
        run = agent_api.DesiredLease.RUN
        await self.until(
            lambda answer: sum(lease.action == run for lease in answer.leases) == count
        )
        return self.lease_ids

    def observe(
        self, lease_id: str, state: agent_api.ObservedState.ValueType, **fields: Any
    ) -> agent_api.ObservedLease:
        """What is reported of a lease from now on."""
        epoch = next(one.epoch for one in self.desired.leases if one.lease_id == lease_id)
        lease = agent_api.ObservedLease(lease_id=lease_id, epoch=epoch, state=state, **fields)
        if state >= agent_api.RUNNING:
            lease.ranks.add(rank=0, state=state, started_at=Timestamp(seconds=1_700_000_000))
        self.observed[lease_id] = lease
        return lease

    async def reports(
        self, lease_id: str, *states: agent_api.ObservedState.ValueType, **fields: Any
    ) -> None:
        """Reports these states, one after the other."""
        for state in states:
            self.observe(lease_id, state, **fields)
            await self.sync()

    async def runs(self, lease_id: str) -> None:
        """Reports a lease up to RUNNING."""
        await self.reports(lease_id, agent_api.ACCEPTED, agent_api.RUNNING)

    async def ends(self, lease_id: str, *, exit_code: int = 0) -> None:
        """Reports that a lease has ended, well or with an exit code."""
        lease = self.observe(lease_id, agent_api.ENDED, done=exit_code == 0)
        if exit_code:
            lease.error.category = job_pb2.JobError.USER_CODE
            lease.error.message = f"rank 0 ended with exit code {exit_code}"
            lease.error.exit_code = exit_code
            lease.error.first_failing_rank = 0
        await self.sync()

    async def forgets(self, lease_id: str) -> None:
        """Everything was sent: reports a lease no longer."""
        del self.observed[lease_id]
        await self.sync()

    def batch(
        self,
        job_id: str,
        texts: Sequence[str],
        *,
        rank: int = 0,
        level: stream_pb2.LogLevel.ValueType = stream_pb2.INFO,
        **fields: Any,
    ) -> agent_api.PushRequest:
        """The next lines of a rank."""
        key = (job_id, int(fields.get("attempt", 1)), rank)
        begin = self._offsets.get(key, 0)
        ends = [begin + LINE_BYTES * (index + 1) for index in range(len(texts))]
        self._offsets[key] = end = ends[-1] if ends else begin
        values = {
            "batch_id": end,
            "node_id": self.node_id,
            "job_id": job_id,
            "attempt": 1,
            "rank": rank,
            "channel": agent_api.STDOUT,
            "begin": begin,
            "end": end,
            "texts": texts,
            "ends": ends,
            "times_ms": [1_700_000_000_000] * len(texts),
            "levels": [level] * len(texts),
            **fields,
        }
        return agent_api.PushRequest(**values)

    async def push(self, *batches: agent_api.PushRequest) -> list[agent_api.PushResponse]:
        """Sends batches over one stream; the acknowledgements."""
        method = self.caller.method("Push")
        call = method(iter(batches), metadata=self.caller.metadata, timeout=WITHIN_S)
        return [answer async for answer in call]

    async def says(self, job_id: str, *texts: str, **fields: Any) -> None:
        """Pushes lines of a rank."""
        await self.push(self.batch(job_id, texts, **fields))
