"""Who may do what: every method, for its owner, for others, without permission, without credential."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory

from coordinator.rpc.server import SERVICES
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, key_service_pb2, options_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import ALL, Caller, House, a_submit, first

CODE = grpc.StatusCode
METHODS = {method.name: method for service in SERVICES for method in service.methods}
RULES = {name: method.GetOptions().Extensions[options_pb2.rule] for name, method in METHODS.items()}
PUBLIC = sorted(name for name, rule in RULES.items() if not rule.program)
INTERNAL = sorted(name for name, rule in RULES.items() if rule.program)
OF_A_JOB = {
    "GetJob": api.GetJobRequest,
    "CancelJob": api.CancelJobRequest,
    "PauseJob": api.PauseJobRequest,
    "GetJobMetrics": api.GetJobMetricsRequest,
    "StreamJobLogs": api.StreamJobLogsRequest,
    "StreamJobMetrics": api.StreamJobMetricsRequest,
}


def any_request(name: str) -> Any:
    """A request of a method with nothing in it."""
    return message_factory.GetMessageClass(METHODS[name].input_type)()


async def test_without_a_credential_every_method_says_only_that(house: House) -> None:
    wrong = Caller(house.channel, "sgk_wrong")
    for name in PUBLIC:
        fault = await house.nobody.refused(name, any_request(name))
        assert (fault.code, fault.reason) == (CODE.UNAUTHENTICATED, "AUTH_TOKEN_MISSING"), name
        fault = await wrong.refused(name, any_request(name))
        assert (fault.code, fault.reason) == (CODE.UNAUTHENTICATED, "AUTH_TOKEN_INVALID"), name


async def test_without_the_permission_every_method_is_denied_whatever_is_asked(
    house: House,
) -> None:
    for name in PUBLIC:
        needed = {options_pb2.Permission.Name(number) for number in RULES[name].any_of}
        caller = await house.caller("acme", *sorted(set(ALL) - needed))
        fault = await caller.refused(name, any_request(name))
        assert (fault.code, fault.reason) == (CODE.PERMISSION_DENIED, "AUTHZ_PERMISSION_DENIED")
        assert all(f"scaimind:{one.lower()}" in fault.text for one in needed), name


async def test_internal_methods_are_for_programs_of_the_installation(house: House) -> None:
    for name in INTERNAL:
        for caller in (house.nobody, house.admin):
            request = any_request(name)
            call = caller.start(name, iter([request]) if name == "Push" else request)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await first(call)
            assert caught.value.code() in (CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED), name


async def test_programs_may_not_call_what_is_for_users(house: House, agent: FakeAgent) -> None:
    for name in PUBLIC:
        for caller in (agent.caller, house.agents):
            fault = await caller.refused(name, any_request(name))
            assert fault.code is CODE.PERMISSION_DENIED, name


@pytest.mark.parametrize("name", OF_A_JOB)
async def test_a_job_of_another_tenant_is_as_unknown_as_one_that_never_was(
    house: House, name: str
) -> None:
    owner, other = await house.caller("acme"), await house.caller("other")
    job_id = await owner.submit()
    unknown_id = "x" * len(job_id)
    foreign = await other.refused(name, OF_A_JOB[name](job_id=job_id))
    unknown = await other.refused(name, OF_A_JOB[name](job_id=unknown_id))
    assert (foreign.code, foreign.reason) == (CODE.NOT_FOUND, "JOB_NOT_FOUND")
    assert foreign == replace(unknown, text=unknown.text.replace(unknown_id, job_id))
    call = owner.start(name, OF_A_JOB[name](job_id=job_id))
    if "Stream" in name:
        assert ("x-stream", "open") in tuple(await call.initial_metadata())
        call.cancel()
    else:
        await call


async def test_a_cancel_of_another_tenant_changes_nothing(house: House) -> None:
    owner, other = await house.caller("acme"), await house.caller("other")
    job_id = await owner.submit()
    for request_id in ("", "r1"):
        request = api.CancelJobRequest(job_id=job_id, request_id=request_id)
        assert (await other.refused("CancelJob", request)).code is CODE.NOT_FOUND
    assert (await owner.job(job_id)).status == job_pb2.Job.QUEUED


async def test_nobody_acts_on_a_job_of_another_tenant(house: House) -> None:
    owner, other = await house.caller("acme"), await house.caller("other")
    job_id = await owner.submit()
    for name, kind in (("ResumeJob", api.ResumeJobRequest), ("RetryJob", api.RetryJobRequest)):
        for request_id in ("", "r1"):
            fault = await other.refused(name, kind(job_id=job_id, request_id=request_id))
            assert fault.code is CODE.NOT_FOUND, name
            fault = await owner.refused(name, kind(job_id=job_id, request_id=request_id))
            assert fault.code is CODE.FAILED_PRECONDITION, name


async def test_lists_and_totals_show_a_tenant_only_its_own(house: House) -> None:
    owner, other = await house.caller("acme", "VIEW", "MANAGE"), await house.caller("other", "VIEW")
    await owner.submit({"scheduling_config": {"queue_name": "secret-project"}})
    page = await other.call("ListJobs", api.ListJobsRequest())
    assert (page.total_count, len(page.jobs)) == (0, 0)
    cluster = await other.call("GetCluster", api.GetClusterRequest())
    assert (cluster.queue_depth, dict(cluster.jobs_by_status)) == (0, {})
    queue = await other.call("GetQueue", api.GetQueueRequest())
    assert "secret" not in str(queue)
    mine = await owner.call("GetQueue", api.GetQueueRequest())
    assert [one.queue_name for one in mine.queues] == ["secret-project"]


async def test_a_node_shows_its_jobs_to_their_tenant_and_to_admins_only(
    house: House, agent: FakeAgent
) -> None:
    owner, other = await house.caller("acme", "VIEW", "MANAGE"), await house.caller("other", "VIEW")
    job_id = await owner.submit()
    await agent.granted()
    request = api.GetNodeRequest(node_id="n1")
    for caller, shown in ((owner, [job_id]), (other, []), (house.admin, [job_id])):
        node = await caller.call("GetNode", request)
        assert list(node.running_job_ids) == shown
        assert [one.job_id for one in node.devices if one.job_id] == shown
        assert node.free_device_count == 3


async def test_a_gateway_speaks_for_its_caller_and_for_nobody_else(house: House) -> None:
    secret = (house.folder / "gateway.secret").read_text().strip()
    speaks = {"x_api_secret": secret, "x_user_id": "ann"}
    owner = Caller(
        house.channel,
        "",
        x_tenant_id="acme",
        x_permissions="scaimind:view,scaimind:manage",
        **speaks,
    )
    job_id = await owner.submit()
    job = await owner.job(job_id)
    assert (job.tenant_id, job.user_id) == ("acme", "ann")
    viewer = Caller(house.channel, "", x_tenant_id="acme", x_permissions="scaimind:view", **speaks)
    assert (await viewer.job(job_id)).job_id == job_id
    denied = await viewer.refused("CancelJob", api.CancelJobRequest(job_id=job_id))
    assert denied.code is CODE.PERMISSION_DENIED
    other = Caller(house.channel, "", x_tenant_id="other", x_permissions="scaimind:view", **speaks)
    assert (await other.refused("GetJob", api.GetJobRequest(job_id=job_id))).code is CODE.NOT_FOUND
    itself = Caller(house.channel, "", x_api_secret=secret)
    assert (await itself.refused("SubmitJob", a_submit())).code is CODE.PERMISSION_DENIED


async def test_keys_are_made_resolved_listed_and_revoked(house: House) -> None:
    secret = (house.folder / "gateway.secret").read_text().strip()
    gateway = Caller(house.channel, "", x_api_secret=secret)
    keys = key_service_pb2
    request = keys.CreateKeyRequest(tenant_id="acme", permissions=[options_pb2.VIEW])
    made = await house.admin.call("CreateKey", request)
    assert made.key.startswith("sgk_")
    caller = Caller(house.channel, made.key)
    await caller.call("ListJobs", api.ListJobsRequest())
    digest = hashlib.sha256(made.key.encode()).hexdigest()
    resolve = keys.ResolveCredentialRequest(key_sha256=digest)
    identity = await gateway.call("ResolveCredential", resolve)
    assert (identity.tenant_id, list(identity.permissions)) == ("acme", [options_pb2.VIEW])
    assert identity.user_id == f"key:{made.info.key_id}"
    listed = await house.admin.call("ListKeys", keys.ListKeysRequest(tenant_id="acme"))
    assert [one.key_id for one in listed.keys] == [made.info.key_id]
    assert made.key not in str(listed)
    revoke = keys.RevokeKeyRequest(key_id=made.info.key_id)
    revoked = await house.admin.call("RevokeKey", revoke)
    assert await house.admin.call("RevokeKey", revoke) == revoked
    fault = await caller.refused("ListJobs", api.ListJobsRequest())
    assert fault.reason == "AUTH_TOKEN_INVALID"
    fault = await gateway.refused("ResolveCredential", resolve)
    assert fault.code is CODE.UNAUTHENTICATED
    unknown = await house.admin.refused("RevokeKey", keys.RevokeKeyRequest(key_id="key_x"))
    assert unknown.reason == "KEY_NOT_FOUND"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": "../x"}, "tenant_id"),
        ({"permissions": []}, "permissions"),
        ({"permissions": [0]}, "permissions[0]"),
        ({"permissions": [99]}, "permissions[0]"),
        ({"permissions": [1, 1]}, "permissions"),
        ({"expires_at": {"seconds": 1}}, "expires_at"),
        ({"expires_at": {"seconds": 1 << 60}}, "expires_at"),
        ({"expires_at": {"seconds": -1}}, "expires_at"),
    ],
    ids=str,
)
async def test_a_key_that_makes_no_sense_is_refused(
    admin: Caller, fields: dict[str, Any], field: str
) -> None:
    values: dict[str, Any] = {"tenant_id": "acme", "permissions": [1], **fields}
    fault = await admin.refused("CreateKey", key_service_pb2.CreateKeyRequest(**values))
    assert (fault.code, set(fault.fields)) == (CODE.INVALID_ARGUMENT, {field})


async def test_a_key_that_is_asked_for_again_is_given_again(house: House) -> None:
    keys = key_service_pb2
    request = keys.CreateKeyRequest(
        tenant_id="acme", permissions=[options_pb2.VIEW], request_id="r1"
    )
    now_ms = house.now.parts.clock.now_ms()
    request.expires_at.FromMilliseconds(now_ms + 60_000)
    first = await house.admin.call("CreateKey", request)
    house.now.parts.clock._now_ms = now_ms + 61_000  # too late to be asked for anew
    call = house.admin.start("CreateKey", request)
    assert await call == first
    assert ("x-idempotency-replayed", "true") in tuple(await call.trailing_metadata())
    request.user_id = "eve"
    assert (await house.admin.refused("CreateKey", request)).reason == "REQUEST_ID_REUSED"
    listed = await house.admin.call("ListKeys", keys.ListKeysRequest(tenant_id="acme"))
    assert len(listed.keys) == 1


async def test_a_tenants_admin_has_a_say_in_the_keys_of_that_tenant_alone(house: House) -> None:
    keys, view, manage = key_service_pb2, options_pb2.VIEW, options_pb2.MANAGE
    ours = await house.admin.call(
        "CreateKey", keys.CreateKeyRequest(tenant_id="other", permissions=[view])
    )
    boss = await house.caller("acme", "CLUSTER_ADMIN", "VIEW")
    made = await boss.call("CreateKey", keys.CreateKeyRequest(tenant_id="acme", permissions=[view]))
    foreign = keys.CreateKeyRequest(tenant_id="other", permissions=[view])
    assert (await boss.refused("CreateKey", foreign)).code is CODE.PERMISSION_DENIED
    more = keys.CreateKeyRequest(tenant_id="acme", permissions=[view, manage])
    fault = await boss.refused("CreateKey", more)
    assert fault.code is CODE.PERMISSION_DENIED
    assert "scaimind:manage" in fault.text
    for tenant_id in ("", "acme", "other", "local"):
        listed = await boss.call("ListKeys", keys.ListKeysRequest(tenant_id=tenant_id))
        assert {one.tenant_id for one in listed.keys} <= {"acme"}
    fault = await boss.refused("RevokeKey", keys.RevokeKeyRequest(key_id=ours.info.key_id))
    assert (fault.code, fault.reason) == (CODE.NOT_FOUND, "KEY_NOT_FOUND")
    await boss.call("RevokeKey", keys.RevokeKeyRequest(key_id=made.info.key_id))


async def test_nobody_gives_a_permission_that_the_maker_does_not_have(house: House) -> None:
    numbers = [options_pb2.Permission.Value(name) for name in ALL]
    for tenant in ("acme", "local"):
        for held in ALL:
            maker = await house.caller(tenant, *sorted({"CLUSTER_ADMIN", held}))
            for number in numbers:
                name = options_pb2.Permission.Name(number)
                request = key_service_pb2.CreateKeyRequest(tenant_id=tenant, permissions=[number])
                if name in ("CLUSTER_ADMIN", held):
                    made = await maker.call("CreateKey", request)
                    assert list(made.info.permissions) == [number]
                    continue
                fault = await maker.refused("CreateKey", request)
                assert fault.code is CODE.PERMISSION_DENIED, (tenant, held, name)
                assert f"scaimind:{name.lower()}" in fault.text


async def test_a_key_ends_by_itself(house: House) -> None:
    request = key_service_pb2.CreateKeyRequest(tenant_id="acme", permissions=[options_pb2.VIEW])
    now_ms = house.now.parts.clock.now_ms()
    request.expires_at.FromMilliseconds(now_ms + 60_000)
    made = await house.admin.call("CreateKey", request)
    caller = Caller(house.channel, made.key)
    await caller.call("ListJobs", api.ListJobsRequest())
    house.now.parts.clock._now_ms = now_ms + 60_000
    fault = await caller.refused("ListJobs", api.ListJobsRequest())
    assert fault.reason == "AUTH_TOKEN_INVALID"


async def test_an_unknown_node_cannot_send_telemetry(house: House) -> None:
    agent = FakeAgent(house.agents, "nowhere")
    await agent.join()
    request = agent_api.ReportTelemetryRequest(node_id="nowhere")
    fault = await agent.caller.refused("ReportTelemetry", request)
    assert (fault.code, fault.reason) == (CODE.NOT_FOUND, "NODE_NOT_FOUND")


async def test_keys_come_in_pages_each_once_while_others_are_made(house: House) -> None:
    keys = key_service_pb2
    request = keys.CreateKeyRequest(tenant_id="acme", permissions=[options_pb2.VIEW])
    made = {(await house.admin.call("CreateKey", request)).info.key_id for _ in range(5)}
    seen: list[str] = []
    page = keys.ListKeysRequest(tenant_id="acme", page_size=2)
    while True:
        answer = await house.admin.call("ListKeys", page)
        seen += [key.key_id for key in answer.keys]
        await house.admin.call("CreateKey", request)
        if not answer.next_page_token:
            break
        page.page_token = answer.next_page_token
    assert len(seen) == len(set(seen))
    assert made <= set(seen)
    page.tenant_id = "other"
    page.page_token = answer.next_page_token or "x"
    assert (await house.admin.refused("ListKeys", page)).code is CODE.INVALID_ARGUMENT
