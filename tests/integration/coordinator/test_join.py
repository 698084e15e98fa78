"""Agents by name: who may join, and for whom they may speak."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, options_pb2
from scaimind.v1 import key_service_pb2 as keys
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import (
    CHANNEL,
    Caller,
    House,
    Program,
    cut,
    first,
    open_house,
)
from tests.support.certificates import Authority

CODE = grpc.StatusCode
STOLEN = agent_api.JoinRequest(node_id="n1", credential_sha256="0" * 64)


async def test_a_stolen_join_token_takes_over_no_node(house: House, agent: FakeAgent) -> None:
    fault = await house.agents.refused("Join", STOLEN)
    assert (fault.code, fault.reason) == (CODE.ALREADY_EXISTS, "NODE_NAME_TAKEN")
    fault = await house.agents.refused("Sync", agent.request())
    assert fault.code is CODE.PERMISSION_DENIED
    await agent.sync()


@asynccontextmanager
async def in_the_clear(folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A coordinator without TLS."""
    async with open_house(folder) as house:
        yield house.channel


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
        ("ReportCache", agent_api.ReportCacheRequest(node_id="n2")),
    ):
        fault = await agent.caller.refused(name, request)
        assert fault.code is CODE.PERMISSION_DENIED, name
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent.push(other.batch("job_x", ["a"]))
    assert caught.value.code() is CODE.PERMISSION_DENIED


async def test_a_node_reports_nothing_of_ranks_of_another(house: House, agent: FakeAgent) -> None:
    other = FakeAgent(house.agents, "n2", devices=1)
    job_id = await house.admin.submit(gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await agent.says(job_id, "mine")
    await other.sync()
    point = job_pb2.MetricPoint(step=1, values={"loss": 0.0}, attempt=1)
    measured: dict[str, Any] = {
        "channel": agent_api.EVENTS,
        "metrics": [point],
        "metric_ends": [10],
        "end": 10,
    }
    told = await other.push(
        other.batch(job_id, ["forged"], rank=1),
        other.batch(job_id, ["forged"], attempt=2),
        other.batch(job_id, [], **measured),
        other.batch("job_never_was", ["forged"]),
    )
    assert [(one.unknown_job, one.acknowledged) for one in told] == [(True, 0)] * 4
    lease = agent_api.ObservedLease(lease_id=lease_id, epoch=1, state=agent_api.ENDED, done=True)
    answer = await other.sync(leases=[lease])
    assert not answer.leases
    assert (await house.admin.job(job_id)).status == job_pb2.Job.TRAINING
    logs = api.StreamJobLogsRequest(job_id=job_id, tail=-1)
    call = house.admin.start("StreamJobLogs", logs)
    events = (await first(call)).events
    assert [one.log.message for one in events] == ["mine"]
    call.cancel()
    metrics = await house.admin.call("GetJobMetrics", api.GetJobMetricsRequest(job_id=job_id))
    assert metrics.total_points == 0


async def test_what_a_node_wrote_is_taken_after_its_lease_has_gone(
    house: House, agent: FakeAgent
) -> None:
    job_id = await house.admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await agent.ends(lease_id)
    await agent.forgets(lease_id)
    (told,) = await agent.push(agent.batch(job_id, ["late"]))
    assert (told.unknown_job, told.acknowledged) == (False, 10)


@asynccontextmanager
async def by_tls(folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A coordinator that asks for certificates, and the channel of one who has one."""
    authority = Authority(folder / "authority")
    pair, own = authority.pair("coordinator", "127.0.0.1"), authority.pair("agent")
    words = ("--tls-cert", pair.cert, "--tls-key", pair.key, "--tls-ca", authority.ca)
    credentials = grpc.ssl_channel_credentials(
        *(path.read_bytes() for path in (authority.ca, own.key, own.cert))
    )
    async with open_house(folder, *map(str, words)) as house:
        address = f"127.0.0.1:{house.now.port}"
        async with grpc.aio.secure_channel(address, credentials, options=CHANNEL) as channel:
            yield channel


AGENTS = {
    method.name: method
    for method in agent_api.DESCRIPTOR.services_by_name["AgentService"].methods
    if method.GetOptions().Extensions[options_pb2.rule].program == options_pb2.AGENT
}


async def asked_for(caller: Caller, name: str, node_id: str) -> grpc.StatusCode:
    """What becomes of a bare call for a node."""
    request = message_factory.GetMessageClass(AGENTS[name].input_type)(node_id=node_id)
    streams = AGENTS[name].client_streaming
    call = caller.start(name, iter([request]) if streams else request)
    try:
        await first(call)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return CODE.OK


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "mutual TLS"])
async def test_over_every_method_of_agents_a_credential_is_good_for_its_node_alone(
    tmp_path: Path, *, secure: bool
) -> None:
    opened = by_tls(tmp_path) if secure else in_the_clear(tmp_path)
    async with opened as channel:
        joiner = Caller(channel, (tmp_path / "join.token").read_text().strip())
        one, two = FakeAgent(joiner, "n1"), FakeAgent(joiner, "n2")
        await one.sync()
        await two.sync()
        forged = Caller(channel, "nk_n2." + "0" * 64)
        for name in AGENTS:
            assert await asked_for(one.caller, name, "n1") is not CODE.PERMISSION_DENIED, name
            assert await asked_for(one.caller, name, "n2") is CODE.PERMISSION_DENIED, name
            assert await asked_for(joiner, name, "n1") is CODE.PERMISSION_DENIED, name
            # A certificate lets nobody in by itself.
            for nobody in (Caller(channel, ""), forged):
                assert await asked_for(nobody, name, "n2") is CODE.UNAUTHENTICATED, name


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
        await cut(channel)
        await program.start()
        await channel.channel_ready()
        fault = await program.caller(channel, "join.token").refused("Join", STOLEN)
        assert fault.reason == "NODE_NAME_TAKEN"
        await agent.sync()
