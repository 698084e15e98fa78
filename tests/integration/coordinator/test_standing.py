"""Streams over gRPC of callers whose credential is taken back, or ends, while they read."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
import pytest

from coordinator.rpc import follow
from scaimind.service.tokens import LEEWAY_S
from scaimind.v1 import key_service_pb2 as keys
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import options_pb2
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.follower import Follower
from tests.integration.coordinator.house import Caller, Fault, House
from tests.integration.coordinator.test_tokens import guarded
from tests.support.provider import provider
from tests.support.tokens import signed


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle stream is looked at often, so that a test need not wait for seconds."""
    monkeypatch.setattr(follow, "LOOK_AGAIN_S", 0.05)


async def fault_of(follower: Follower) -> Fault:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await follower.rest()
    return Fault.of(caught.value)


async def test_streams_of_a_revoked_key_end(house: House) -> None:
    request = keys.CreateKeyRequest(tenant_id="local", permissions=[options_pb2.VIEW])
    made = await house.admin.call("CreateKey", request)
    job_id = await house.admin.submit()
    caller = Caller(house.channel, made.key)
    followers = [Follower.of_log(caller, job_id), Follower.of_metrics(caller, job_id)]
    for follower in followers:
        await follower.opened()
    await house.admin.call("RevokeKey", keys.RevokeKeyRequest(key_id=made.info.key_id))
    for follower in followers:
        fault = await fault_of(follower)
        assert (fault.code, fault.reason) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "AUTH_TOKEN_INVALID",
        )


async def test_streams_end_with_the_key_and_with_the_token(tmp_path: Path) -> None:
    async with provider() as made, guarded(tmp_path, made) as house:
        request = keys.CreateKeyRequest(tenant_id="acme", permissions=[options_pb2.VIEW])
        request.expires_at.FromSeconds(int(time.time()) + 5)
        key = await house.admin.call("CreateKey", request)
        owner = await house.caller("acme")
        job_id = await owner.submit()
        token = signed(exp=int(time.time()) - int(LEEWAY_S) + 5)
        followers = [
            Follower.of_log(Caller(house.channel, one), job_id) for one in (key.key, token)
        ]
        for follower in followers:
            await follower.opened()
        for follower in followers:
            assert (await fault_of(follower)).reason == "AUTH_TOKEN_INVALID"


async def test_a_removed_agent_pushes_nothing_more(house: House, agent: FakeAgent) -> None:
    push = agent.caller.method("Push")(metadata=agent.caller.metadata, timeout=90)
    await push.write(agent.batch("job_x", ["a"]))
    assert (await push.read()).unknown_job
    await house.admin.call("DrainNode", api.DrainNodeRequest(node_id="n1"))
    await house.admin.call("RemoveNode", api.RemoveNodeRequest(node_id="n1"))
    await push.write(agent.batch("job_x", ["b"]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await push.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
