"""What a drain comes to, told before it and while it goes on; strategies."""

from __future__ import annotations

import grpc
import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller

Request = api.DrainNodeRequest
EXPECTED_S = 3600


async def a_training(agent: FakeAgent, admin: Caller) -> tuple[str, str]:
    """A job that runs, and its lease."""
    expected = {"expected_duration_seconds": EXPECTED_S, "checkpoint_grace_seconds": 60}
    job_id = await admin.submit({"scheduling_config": expected}, gpu_count=2)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    return job_id, lease_id


async def test_a_drain_is_tried_out_and_tells_what_becomes_of_each_job(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id, _ = await a_training(agent, admin)
    seconds = {}
    for strategy in (Request.WAIT, Request.CHECKPOINT_AND_MOVE, Request.FORCE):
        request = Request(node_id="n1", strategy=strategy, validate_only=True)
        plan = (await admin.call("DrainNode", request)).plan
        assert (plan.node_id, plan.strategy, plan.jobs_count) == ("n1", strategy, 1)
        [job] = plan.jobs
        assert (job.job_id, job.devices) == (job_id, 2)
        assert not job.HasField("restart_seconds"), "there is no other node"
        assert plan.left_device_seconds == pytest.approx(2 * EXPECTED_S, abs=60)
        seconds[strategy] = (
            api.DrainedJob.Outcome.Name(job.outcome),
            round(plan.empty_p50_seconds, -2),
            round(plan.empty_p90_seconds, -2),
        )
    assert seconds == {
        Request.WAIT: ("ENDS", EXPECTED_S, EXPECTED_S),
        Request.CHECKPOINT_AND_MOVE: ("MOVES", 0, EXPECTED_S),
        Request.FORCE: ("FORCED", 0, 100),
    }
    with pytest.raises(grpc.aio.AioRpcError, match="is not drained"):
        await admin.call("GetDrain", api.GetDrainRequest(node_id="n1"))


async def test_a_drain_that_goes_on_tells_when_its_node_is_empty(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id, lease_id = await a_training(agent, admin)
    request = Request(node_id="n1", strategy=Request.CHECKPOINT_AND_MOVE, deadline_seconds=900)
    await admin.call("DrainNode", request)
    plan = await admin.call("GetDrain", api.GetDrainRequest(node_id="n1"))
    assert plan.strategy == Request.CHECKPOINT_AND_MOVE
    assert plan.deadline.seconds - plan.requested_at.seconds == 900
    assert [job.job_id for job in plan.jobs] == [job_id]
    (lease,) = (await agent.sync()).leases
    assert (lease.action, lease.save) == (agent_api.DesiredLease.RUN, 1)
    saved = job_pb2.Checkpoint(checkpoint_id="c1", step=1, uri="file:///c1")
    agent.observe(lease_id, agent_api.RUNNING, saved=1, checkpoints=[saved])
    await agent.sync()
    (lease,) = (await agent.sync()).leases
    assert lease.action == agent_api.DesiredLease.STOP
    agent.observe(lease_id, agent_api.ENDED)
    await agent.sync()
    assert (await admin.job(job_id)).status == job_pb2.Job.QUEUED
    plan = await admin.call("GetDrain", api.GetDrainRequest(node_id="n1"))
    assert (plan.jobs_count, plan.empty_p50_seconds, plan.empty_p90_seconds) == (0, 0, 0)


async def test_a_strategy_beside_force_is_refused(agent: FakeAgent, admin: Caller) -> None:
    request = Request(node_id="n1", force=True, strategy=Request.WAIT)
    assert (await admin.refused("DrainNode", request)).fields == ("strategy",)
