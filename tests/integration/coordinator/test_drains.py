"""What a drain comes to, told before it and while it goes on; strategies."""

from __future__ import annotations

import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, node_pb2
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


async def test_maintenance_is_planned_and_the_node_takes_who_can_move_until_then(
    agent: FakeAgent, admin: Caller
) -> None:
    start_s = int(time.time()) + 3600
    starts_at, ends_at = Timestamp(seconds=start_s), Timestamp(seconds=start_s + 600)
    request = Request(
        node_id="n1", strategy=Request.CHECKPOINT_AND_MOVE, starts_at=starts_at, ends_at=ends_at
    )
    answer = await admin.call("DrainNode", request)
    assert answer.status == node_pb2.Node.READY
    node = await admin.call("GetNode", api.GetNodeRequest(node_id="n1"))
    assert not node.drain_requested
    assert node.maintenance_starts_at.seconds == start_s
    assert node.maintenance_ends_at.seconds == start_s + 600
    await a_training(agent, admin)
    firm = await admin.submit({"scheduling_config": {"preemptible": False}})
    assert (await admin.job(firm)).status == job_pb2.Job.QUEUED
    await admin.call("EnableNode", api.EnableNodeRequest(node_id="n1"))
    assert (await admin.job(firm)).status == job_pb2.Job.SCHEDULING


async def test_maintenance_that_ends_before_it_begins_is_refused(
    agent: FakeAgent, admin: Caller
) -> None:
    start_s = int(time.time()) + 3600
    early, late = Timestamp(seconds=start_s), Timestamp(seconds=start_s + 1)
    for one in (Request(node_id="n1", starts_at=late, ends_at=early), Request(ends_at=early)):
        one.node_id = "n1"
        if not one.HasField("starts_at"):
            one.ends_at.seconds = 1
        assert (await admin.refused("DrainNode", one)).fields == ("ends_at",)
    far = Request(node_id="n1", starts_at=Timestamp(seconds=start_s + 400 * 86_400))
    assert (await admin.refused("DrainNode", far)).fields == ("starts_at",)
