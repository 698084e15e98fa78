"""What a job's image is: told by the first node that knows, and asked of every other one."""

from __future__ import annotations

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller
from tests.support.jobs import body

FIRST, OTHER = (f"sha256:{letter * 64}" for letter in "ab")
NAME = "registry.example.org:5000/team/train"


@pytest.fixture
async def engine(agent: FakeAgent) -> FakeAgent:
    """An agent that runs containers."""
    agent.offer.labels["containers"] = "yes"
    await agent.sync()
    return agent


async def _fails(agent: FakeAgent, lease_id: str, digest: str) -> None:
    rank = agent_api.ObservedRank(state=agent_api.ENDED, exit_code=1)
    error = job_pb2.JobError(category=job_pb2.JobError.USER_CODE, message="it failed", exit_code=1)
    await agent.reports(lease_id, agent_api.ENDED, image_digest=digest, ranks=[rank], error=error)


async def test_the_next_attempt_and_a_retry_of_the_same_image_have_what_the_first_node_told(
    engine: FakeAgent, admin: Caller
) -> None:
    agent = engine
    given = body("/train.py", resources={"image": f"{NAME}:v1"}, training={"max_retries": 1})
    job_id = await admin.submit(given)
    (first,) = await agent.granted()
    assert agent.specs[first].job.resource_config.image == f"{NAME}:v1"
    await agent.reports(first, agent_api.PREPARING, image_digest=FIRST)
    job = await admin.job(job_id)
    assert (job.image_digest, job.resource_config.image) == (FIRST, f"{NAME}:v1")
    await _fails(agent, first, FIRST)
    await agent.until(lambda answer: f"{job_id}.2.0" in [one.lease_id for one in answer.leases])
    second = f"{job_id}.2.0"
    assert agent.specs[second].job.resource_config.image == f"{NAME}@{FIRST}"
    await _fails(agent, second, FIRST)
    assert (await admin.job(job_id)).status == job_pb2.Job.FAILED

    again = await admin.call("RetryJob", api.RetryJobRequest(job_id=job_id))
    assert isinstance(again, api.RetryJobResponse)
    assert (await admin.job(again.job_id)).image_digest == FIRST
    other = job_pb2.ResourceConfig(gpu_count=1, image=f"{NAME}:v2")
    asked = api.RetryJobRequest(job_id=job_id, modify_resources=True, new_resource_config=other)
    newer = await admin.call("RetryJob", asked)
    assert isinstance(newer, api.RetryJobResponse)
    assert (await admin.job(newer.job_id)).image_digest == ""


async def test_a_digest_that_a_user_names_is_what_the_node_is_asked_for(
    engine: FakeAgent, admin: Caller
) -> None:
    await admin.submit(body("/train.py", resources={"image": f"{NAME}:v1@{OTHER}"}))
    (lease_id,) = await engine.granted()
    assert engine.specs[lease_id].job.resource_config.image == f"{NAME}:v1@{OTHER}"
