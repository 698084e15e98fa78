"""Changes are tried out on a copy of the cluster."""

from __future__ import annotations

import grpc
import pytest

from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import node_pb2
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, a_submit

EXPECTED = {"scheduling_config": {"expected_duration_seconds": 3600}}


def simulate(*changes: api.SimulatedChange) -> api.SimulateRequest:
    return api.SimulateRequest(changes=changes)


async def test_changes_are_compared_with_what_lies_ahead_and_nothing_is_changed(
    agent: FakeAgent, admin: Caller
) -> None:
    await admin.submit(EXPECTED, gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    waits = await admin.submit(EXPECTED, gpu_count=2)
    bought = api.NewNodes(like_node_id="n1", count=1)
    more = api.NewJobs(job=a_submit(EXPECTED, gpu_count=1), count=2)
    told = await admin.call(
        "Simulate",
        simulate(
            api.SimulatedChange(add_nodes=bought),
            api.SimulatedChange(submit=more),
            api.SimulatedChange(drain=api.DrainNodeRequest(node_id="nowhere")),
            api.SimulatedChange(set_queue=api.SetQueueRequest(name="default", preempts=True)),
        ),
    )
    assert [(one.index, one.error.code) for one in told.refused] == [(2, "NODE_NOT_FOUND")]
    assert (told.before.started_count, told.after.started_count) == (1, 3)
    assert (told.sooner_count, told.later_count) == (3, 0)
    starts = {one.job_id: one for one in told.starts}
    assert set(starts) == {waits, "simulated-2", "simulated-3"}
    assert starts[waits].before_seconds == pytest.approx(3600, abs=60)
    assert starts[waits].after_seconds == pytest.approx(0, abs=1)
    assert not starts["simulated-2"].HasField("before_seconds")
    assert told.before.empty_seconds == pytest.approx(7200, abs=60)
    assert told.after.empty_seconds < told.before.empty_seconds
    nodes = await admin.call("ListNodes", api.ListNodesRequest())
    assert [(one.node_id, one.status) for one in nodes.nodes] == [("n1", node_pb2.Node.READY)]
    assert (await admin.call("ListJobs", api.ListJobsRequest())).total_count == 2


async def test_only_operators_try_changes_out(house: House, agent: FakeAgent) -> None:
    other = await house.caller("other", "CLUSTER_ADMIN")
    fault = await other.refused("Simulate", simulate())
    assert fault.code == grpc.StatusCode.PERMISSION_DENIED


async def test_a_change_that_is_none_is_refused(admin: Caller) -> None:
    fault = await admin.refused("Simulate", simulate(api.SimulatedChange()))
    assert fault.fields == ("changes[0]",)
    assert "set_queue, remove_queue, drain" in fault.text
