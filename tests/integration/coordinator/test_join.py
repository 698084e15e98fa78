"""Agents by name: who may join, and for whom they may speak."""

from __future__ import annotations

import signal

import grpc
import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import key_service_pb2 as keys
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, Program

CODE = grpc.StatusCode
STOLEN = agent_api.JoinRequest(node_id="n1", credential_sha256="0" * 64)


async def test_a_stolen_join_token_takes_over_no_node(house: House, agent: FakeAgent) -> None:
    fault = await house.agents.refused("Join", STOLEN)
    assert (fault.code, fault.reason) == (CODE.ALREADY_EXISTS, "NODE_NAME_TAKEN")
    fault = await house.agents.refused("Sync", agent.request())
    assert fault.code is CODE.PERMISSION_DENIED
    await agent.sync()


async def test_only_the_join_token_joins(house: House, agent: FakeAgent) -> None:
    request = agent_api.JoinRequest(node_id="n2", credential_sha256="0" * 64)
    for caller in (house.admin, agent.caller):
        assert (await caller.refused("Join", request)).code is CODE.PERMISSION_DENIED
    assert (await house.nobody.refused("Join", request)).code is CODE.UNAUTHENTICATED


async def test_an_agent_speaks_for_no_other_node(house: House, agent: FakeAgent) -> None:
    other = FakeAgent(house.agents, "n2")
    await other.sync()
    for name, request in (
        ("Sync", other.request()),
        ("ReportTelemetry", agent_api.ReportTelemetryRequest(node_id="n2")),
    ):
        fault = await agent.caller.refused(name, request)
        assert fault.code is CODE.PERMISSION_DENIED, name
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent.push(other.batch("job_x", ["a"]))
    assert caught.value.code() is CODE.PERMISSION_DENIED


async def test_a_removed_nodes_credential_is_worth_nothing_and_its_name_is_free(
    house: House, agent: FakeAgent
) -> None:
    await house.admin.call("DrainNode", api.DrainNodeRequest(node_id="n1"))
    await house.admin.call("RemoveNode", api.RemoveNodeRequest(node_id="n1"))
    fault = await agent.caller.refused("Sync", agent.request())
    assert (fault.code, fault.reason) == (CODE.UNAUTHENTICATED, "AUTH_TOKEN_INVALID")
    await house.agents.call("Join", STOLEN)


async def test_credentials_of_nodes_are_no_keys(house: House, agent: FakeAgent) -> None:
    listed = await house.admin.call("ListKeys", keys.ListKeysRequest())
    assert [one.key_id for one in listed.keys] == ["key_admin"]
    fault = await house.admin.refused("RevokeKey", keys.RevokeKeyRequest(key_id="node:n1"))
    assert fault.code is CODE.NOT_FOUND
    secret = (house.folder / "gateway.secret").read_text().strip()
    gateway = Caller(house.channel, "", x_api_secret=secret)
    request = keys.ResolveCredentialRequest(key_sha256=agent.digest)
    fault = await gateway.refused("ResolveCredential", request)
    assert fault.code is CODE.UNAUTHENTICATED


async def test_who_joined_is_known_after_a_restart(
    program: Program,
) -> None:
    async with grpc.aio.insecure_channel(program.address) as channel:
        agent = FakeAgent(program.caller(channel, "join.token"))
        await agent.sync()
        await program.stop(signal.SIGKILL)
        await program.start()
        fault = await program.caller(channel, "join.token").refused("Join", STOLEN)
        assert fault.reason == "NODE_NAME_TAKEN"
        await agent.sync()
