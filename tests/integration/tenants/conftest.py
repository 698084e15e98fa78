"""Two tenants: one that has everything there is, one that has nothing and may do everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, options_pb2
from scaimind.v1 import key_service_pb2 as keys
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.both import World, opened
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, first
from tests.integration.tenants.rows import Target

DEVICES = 4
PATIENT = ("--unreachable-after-s", "600", "--replace-after-s", "1200")
QUEUES = (  # below the first is all that the tenants do; the other has limits of one by name
    api.SetQueueRequest(name="root"),
    api.SetQueueRequest(name="shared", tenant_limits={"alpha-tenant": 9, "*": 5}),
)
NOWHERE = Target(
    tenant="nobodys-tenant",
    waiting="job_nowhere-waiting",
    running="job_nowhere-running",
    ended="job_nowhere-ended",
    evaluation="job_nowhere-evaluation",
    key_id="key_nowhere",
    queue="nowhere-queue",
    name="nowhere-name",
    label="nowhere-label",
    checkpoint="nowhere-step",
    event_id="nowhere-event",
    page_token="nowhere-page",
    request_id="nowhere-request",
)
CHECKPOINT = job_pb2.Checkpoint(
    checkpoint_id="alpha-step-5", step=5, uri="file:///alpha/5", digest="sha256:ab", attempt=1
)


@dataclass
class Two:
    """Both programs, a node, and the two tenants: `owner` of what `furnish` makes, and `other`."""

    world: World
    agent: FakeAgent
    owner: Caller
    other: Caller

    async def furnish(self) -> Target:
        """One of each thing, all of them the owner's."""
        ended = await self._ended()
        running = await self._submit(gpu_count=DEVICES)
        (lease_id,) = [one for one in await self.agent.granted() if one not in self.agent.observed]
        await self.agent.runs(lease_id)
        await self.agent.reports(lease_id, agent_api.RUNNING, checkpoints=[CHECKPOINT])
        await self._says(running)
        asked = api.SubmitEvaluationRequest(job_id=ended)
        asked.benchmarks.add(name="perplexity", dataset="/alpha/data.jsonl")
        evaluation = (await self.owner.call("SubmitEvaluation", asked)).evaluation_id
        key = keys.CreateKeyRequest(tenant_id="alpha-tenant", permissions=[options_pb2.VIEW])
        logs = api.StreamJobLogsRequest(job_id=running, tail=-1)
        page = await self.owner.call("ListJobs", api.ListJobsRequest(page_size=1))
        return Target(
            tenant="alpha-tenant",
            waiting=await self._submit(request_id="alpha-request"),
            running=running,
            ended=ended,
            evaluation=evaluation,
            key_id=(await self.owner.call("CreateKey", key)).info.key_id,
            queue="alpha-queue",
            name="alpha-name",
            label="alpha-label",
            checkpoint=CHECKPOINT.checkpoint_id,
            event_id=(await first(self.owner.start("StreamJobLogs", logs))).events[0].id,
            page_token=page.next_page_token,
            request_id="alpha-request",
        )

    async def _submit(self, **resources: Any) -> str:
        request_id = resources.pop("request_id", "")
        return await self.owner.submit(
            {
                "name": "alpha-name",
                "labels": {"team": "alpha-label"},
                "request_id": request_id,
                "scheduling_config": {"queue_name": "alpha-queue"},
            },
            **resources,
        )

    async def _ended(self) -> str:
        job_id = await self._submit()
        (lease_id,) = await self.agent.granted()
        await self.agent.runs(lease_id)
        await self._says(job_id)
        self.agent.observe(lease_id, agent_api.ENDED, done=True, output_model_uri="file:///alpha")
        await self.agent.sync()
        await self.agent.forgets(lease_id)
        return job_id

    async def _says(self, job_id: str) -> None:
        point = job_pb2.MetricPoint(step=1, values={"alpha-loss": 1.0}, attempt=1)
        spoken = self.agent.batch(job_id, ["alpha says"])
        measured = self.agent.batch(
            job_id, [], channel=agent_api.EVENTS, metrics=[point], metric_ends=[10], begin=0, end=10
        )
        await self.agent.push(spoken, measured)


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    async with opened(tmp_path, *PATIENT) as world:
        agent = FakeAgent(world.house.agents, devices=DEVICES)
        await agent.sync()
        owner = await world.house.caller("alpha-tenant")
        other = await world.house.caller("beta-tenant")
        for queue in QUEUES:
            await world.house.admin.call("SetQueue", queue)
        for caller in (owner, other):
            caller.metadata.append(("x-request-id", "req_matrix"))
        yield Two(world, agent, owner, other)
