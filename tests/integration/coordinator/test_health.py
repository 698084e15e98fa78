"""The health of nodes over gRPC: agents tell faults and canaries, operators have a word, all is shown."""

from __future__ import annotations

import grpc
import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import node_pb2
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller
from tests.integration.coordinator.test_cluster import node

Health = node_pb2.NodeHealth


async def said(
    admin: Caller, state: node_pb2.NodeHealth.State.ValueType, **fields: str
) -> node_pb2.Node:
    request = api.SetNodeHealthRequest(node_id="n1", state=state, **fields)  # type: ignore[arg-type]
    answer = await admin.call("SetNodeHealth", request)
    assert isinstance(answer, node_pb2.Node)
    return answer


async def test_a_bad_device_takes_nothing_new_until_its_canary_has_passed(
    agent: FakeAgent, admin: Caller
) -> None:
    agent.offer.devices[0].faults.add(code="XID_48", seen_count=1, message="a double bit error")
    await agent.sync()
    shown = await node(admin)
    [device, *others] = shown.devices
    assert (device.healthy, device.health.state) == (False, Health.QUARANTINED)
    assert [(note.code, note.message) for note in device.health.notes] == [
        ("XID_48", "a double bit error")
    ]
    assert all(one.healthy for one in others)
    assert shown.health.state == Health.SUSPECT
    assert shown.health.reasons == ["device n1-d0 is QUARANTINED (XID_48)"]
    totals = await admin.call("GetCluster", api.GetClusterRequest())
    assert (totals.total_devices, totals.free_devices) == (4, 3)
    job_id = await admin.submit(gpu_count=4)
    told = await admin.call("ExplainJob", api.ExplainJobRequest(job_id=job_id))
    assert "NODE_QUARANTINED" in [blocker.code for blocker in told.blockers]

    await said(admin, Health.PROBATION, device_id="n1-d0", reason="it was cooled")
    answer = await agent.until(lambda desired: desired.HasField("canary"))
    assert list(answer.canary.device_ids) == ["n1-d0"]
    passed = agent_api.ObservedCanary(number=answer.canary.number)
    await agent.sync(canary=passed)
    await agent.until(lambda desired: not desired.HasField("canary"))
    await agent.granted()
    assert (await node(admin)).devices[0].health.state == Health.SUSPECT


async def test_an_operator_says_how_far_a_node_is_trusted(agent: FakeAgent, admin: Caller) -> None:
    shown = await said(admin, Health.QUARANTINED, reason="it smells")
    assert shown.health.state == Health.QUARANTINED
    assert shown.health.notes[0].message == "an admin said QUARANTINED: it smells"
    totals = await admin.call("GetCluster", api.GetClusterRequest())
    assert (totals.free_nodes, totals.free_devices) == (0, 0)
    shown = await said(admin, Health.HEALTHY)
    assert (shown.health.state, shown.health.score) == (Health.HEALTHY, 0)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await said(admin, Health.SUSPECT)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await said(admin, Health.HEALTHY, device_id="nobody")
    assert "has no device nobody" in (refused.value.details() or "")
