"""Nodes that are drained a few at a time."""

from __future__ import annotations

from typing import Any

import grpc

from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import node_pb2
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import CHANNEL, Caller, House, Program, cut

RACK = ["rack=a"]


async def a_rack(joiner: Caller, count: int) -> list[FakeAgent]:
    """Nodes of one rack, and n9 of none."""
    agents = [FakeAgent(joiner, f"n{number}") for number in range(1, count + 1)]
    for agent in agents:
        agent.offer.labels["rack"] = "a"
    agents.append(FakeAgent(joiner, "n9"))
    for agent in agents:
        await agent.sync()
    return agents


async def rolling(admin: Caller, drain_id: str) -> api.RollingDrain:
    found = await admin.call("GetRollingDrain", api.GetRollingDrainRequest(drain_id=drain_id))
    assert isinstance(found, api.RollingDrain)
    return found


async def drained(admin: Caller) -> list[str]:
    listed = await admin.call("ListNodes", api.ListNodesRequest())
    return [node.node_id for node in listed.nodes if node.drain_requested]


async def enable(admin: Caller, node_id: str) -> None:
    await admin.call("EnableNode", api.EnableNodeRequest(node_id=node_id))


async def test_nodes_are_taken_one_after_the_other_also_by_the_next_coordinator(
    program: Program,
) -> None:
    async with grpc.aio.insecure_channel(program.address, options=CHANNEL) as channel:
        admin = program.caller(channel, "admin.key")
        agents = await a_rack(program.caller(channel, "join.token"), 3)
        request = api.StartRollingDrainRequest(label=RACK, until_enabled=True, validate_only=True)
        tried = await admin.call("StartRollingDrain", request)
        assert (tried.drain_id, list(tried.waiting_node_ids)) == ("", ["n1", "n2", "n3"])
        assert await drained(admin) == []
        request.validate_only = False
        drain_id = (await admin.call("StartRollingDrain", request)).drain_id
        assert await drained(admin) == ["n1"]
        [one] = (await admin.call("ListRollingDrains", api.ListRollingDrainsRequest())).drains
        assert list(one.waiting_node_ids) == ["n2", "n3"]
        await program.kill()
        await cut(channel)
        await program.start()
        await channel.channel_ready()
        for agent in agents:
            await agent.sync()
        assert await drained(admin) == ["n1"], "it is out until it is enabled"
        await enable(admin, "n1")
        assert await drained(admin) == ["n2"]
        await enable(admin, "n2")
        assert (await rolling(admin, drain_id)).status == api.RollingDrain.RUNNING
        await enable(admin, "n3")
        [one] = (await admin.call("ListRollingDrains", api.ListRollingDrainsRequest())).drains
        assert (one.drain_id, one.status, one.taken_count) == (drain_id, one.DONE, 3)
        assert await drained(admin) == []


async def test_how_far_it_came_and_how_its_nodes_are_emptied_is_told(
    house: House, admin: Caller
) -> None:
    agents = await a_rack(house.agents, 3)
    jobs: dict[str, Any] = {"node_selector": {"rack": "a"}, "gpu_count": 4}
    held = [await admin.submit(**jobs) for _ in range(3)]
    leases = [(await agent.granted())[0] for agent in agents[:3]]
    for agent, lease_id in zip(agents, leases, strict=False):
        await agent.runs(lease_id)
    request = api.StartRollingDrainRequest(
        label=RACK, max_unavailable=2, strategy=api.DrainNodeRequest.WAIT, reason="disks"
    )
    drain_id = (await admin.call("StartRollingDrain", request)).drain_id
    told = await rolling(admin, drain_id)
    assert (list(told.out_node_ids), list(told.waiting_node_ids)) == (["n1", "n2"], ["n3"])
    assert [plan.node_id for plan in told.nodes] == ["n1", "n2"]
    names = {job.job_id for plan in told.nodes for job in plan.jobs}
    assert len(names & set(held)) == 2
    assert all(plan.empty_p50_seconds <= plan.empty_p90_seconds for plan in told.nodes)
    await agents[0].ends(leases[0])
    told = await rolling(admin, drain_id)
    assert (list(told.out_node_ids), told.taken_count) == (["n2", "n3"], 3)
    shown = await admin.call("GetNode", api.GetNodeRequest(node_id="n1"))
    assert (shown.status, shown.status_reason.message) == (node_pb2.Node.DRAINED, "disks")


async def test_cancelled_it_takes_no_more_nodes(house: House, admin: Caller) -> None:
    await a_rack(house.agents, 3)
    request = api.StartRollingDrainRequest(label=RACK, until_enabled=True)
    drain_id = (await admin.call("StartRollingDrain", request)).drain_id
    cancel = api.CancelRollingDrainRequest(drain_id=drain_id)
    told = await admin.call("CancelRollingDrain", cancel)
    assert told.status == api.RollingDrain.CANCELLED
    assert await drained(admin) == ["n1"], "what is out stays drained"
    await enable(admin, "n1")
    assert await drained(admin) == []
    cancel.drain_id = "drain_0"
    fault = await admin.refused("CancelRollingDrain", cancel)
    assert (fault.code, fault.reason) == (grpc.StatusCode.NOT_FOUND, "DRAIN_NOT_FOUND")
    found = api.GetRollingDrainRequest(drain_id="drain_0")
    assert (await admin.refused("GetRollingDrain", found)).reason == "DRAIN_NOT_FOUND"
    nowhere = api.StartRollingDrainRequest(label=["rack=z"])
    assert (await admin.refused("StartRollingDrain", nowhere)).fields == ("label",)
