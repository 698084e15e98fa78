"""What a tenant can learn of another, over every method and every route: nothing.

Whatever is asked about the things of a tenant is answered as if that tenant had never been: the same
code, the same text, the same lists and counts. Machines are shared, and so is how busy they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import grpc
import httpx
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from scaimind.v1 import key_service_pb2 as keys
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.house import Caller, first
from tests.integration.tenants.conftest import NOWHERE, Two
from tests.integration.tenants.rows import METHODS, ROWS, Http, Target, over_http

# How busy the machines are, and when they were heard last.
OF_MACHINES = {
    "free",
    "free_fraction",
    "free_nodes",
    "free_devices",
    "free_device_count",
    "last_seen_at",
    "estimated_wait_seconds",  # it comes once somebody waits for long, and counts down
}
# Drains: how much is left on the node, of whomever.
OF_DRAINS = {
    "status",
    "message",
    "jobs_count",
    "empty_p50_seconds",
    "empty_p90_seconds",
    "lost_device_seconds",
    "restart_device_seconds",
    "left_device_seconds",
}
# What grows by itself while a job runs.
OF_TIME = {"usage"}
OF_METHODS = {
    "DrainNode": OF_DRAINS,
    "StartRollingDrain": {"requested_at"},
    "GetJob": OF_TIME,
    "ListJobs": OF_TIME,
}
# What a method may tell of machines, it tells the owner as well; these know nothing of tenants.
NOBODYS = {
    "GetDataCache",
    "ValidateData",
    "DrainNode",
    "GetDrain",
    "StartRollingDrain",
    "ListRollingDrains",
    "GetRollingDrain",
    "CancelRollingDrain",
    "Simulate",
    "EnableNode",
    "RemoveNode",
    "SetNodeHealth",
    "SetQueue",
    "RemoveQueue",
}
# Who reads first sees what who changes it would not see any more.
IN_ORDER = sorted(
    ROWS.items(), key=lambda row: "request_id" in METHODS[row[0]].input_type.fields_by_name
)
OPEN = ("x-stream", "open")
Outcomes = dict[str, list[str]]


def plain(value: Any, without: set[str]) -> Any:
    """A JSON value without some fields, at any depth."""
    if isinstance(value, dict):
        return {key: plain(one, without) for key, one in value.items() if key not in without}
    if isinstance(value, list):
        return [plain(one, without) for one in value]
    return value


def without(name: str) -> set[str]:
    return OF_MACHINES | OF_METHODS.get(name, set())


def told(error: grpc.aio.AioRpcError) -> str:
    """All that a refusal says."""
    texts = [str(error.code()), error.details() or ""]
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            texts.append(repr(json_format.MessageToDict(status_pb2.Status.FromString(value))))
        else:
            texts.append(f"{key}={value!r}")
    return "\n".join(texts)


async def over_grpc(caller: Caller, name: str, request: Message) -> str:
    """What a caller is told."""
    call = caller.start(name, request)
    try:
        if METHODS[name].server_streaming and OPEN in tuple(await call.initial_metadata()):
            return "open"
        answer = await first(call)
    except grpc.aio.AioRpcError as error:
        return told(error)
    finally:
        call.cancel()
    values = json_format.MessageToDict(answer, preserving_proto_field_name=True)
    return repr(plain(values, without(name)))


async def over_rest(rest: httpx.AsyncClient, asked: Http, *, name: str) -> str:
    """What a caller is told."""
    answer = await rest.request(**asked.words)
    if answer.status_code == 204:
        return "204"
    return f"{answer.status_code} {plain(answer.json(), {'meta', *without(name)})!r}"


async def all_over_grpc(caller: Caller, target: Target) -> Outcomes:
    """Every row's answers."""
    return {
        name: [await over_grpc(caller, name, request) for request in row(target)]
        for name, row in IN_ORDER
    }


async def all_over_rest(
    two: Two, caller: Caller, target: Target, *, leaving_out: Collection[str] = ()
) -> Outcomes:
    """Every row's answers, by every route that there is to it."""
    rest = two.world.rest
    rest.headers.update(two.world.headers(caller))
    return {
        name: [
            await over_rest(rest, asked, name=name)
            for request in row(target)
            for asked in over_http(name, request)
        ]
        for name, row in IN_ORDER
        if name not in leaving_out
    }


def judge(before: Outcomes, now: Outcomes, aimed: Outcomes, *, target: Target) -> None:
    """Neither what is there nor asking for it by name tells anything."""
    for name in ROWS:
        assert now[name] == before[name], name
        for asked, (mine, nobodys) in enumerate(zip(aimed[name], before[name], strict=True)):
            assert target.masked(mine, NOWHERE) == nobodys, (name, asked)


def silent(outcomes: Outcomes, target: Target) -> None:
    """No word of a tenant is in what was told."""
    shown = repr(outcomes)
    for field, word in target.words:
        assert word not in shown, field
    assert "alpha" not in shown


async def own_view(owner: Caller, target: Target) -> list[str]:
    """All that the owner has, as the owner sees it."""
    requests: list[tuple[str, Message]] = [("ListJobs", api.ListJobsRequest(page_size=100))]
    requests += [("GetJob", api.GetJobRequest(job_id=job_id)) for job_id in target.jobs]
    requests += [("ListKeys", keys.ListKeysRequest())]
    return [await over_grpc(owner, name, request) for name, request in requests]


def test_every_public_method_has_its_row() -> None:
    assert set(ROWS) == set(METHODS)


async def test_every_route_has_its_row(two: Two) -> None:
    document = (await two.world.rest.get("/openapi.json")).json()
    documented = {
        (verb.upper(), path.removeprefix("/v1/modules/scaimind"))
        for path, verbs in document["paths"].items()
        for verb in verbs
        if verb in ("get", "put", "post", "delete", "patch")
    }
    own = {("POST", "/stream-tickets")}
    asked = {
        (one.verb, one.path)
        for name, row in ROWS.items()
        for request in row(NOWHERE)
        for one in over_http(name, request)
    }
    missing = {
        (verb, path)
        for verb, path in documented - own
        if not any(verb == one and matches(path, other) for one, other in asked)
    }
    assert not missing


def matches(template: str, path: str) -> bool:
    pairs = zip(template.split("/"), path.split("/"), strict=False)
    same = template.count("/") == path.count("/")
    return same and all(one.startswith("{") or one == other for one, other in pairs)


async def test_over_grpc_a_tenant_is_as_if_it_had_never_been(two: Two) -> None:
    before = await all_over_grpc(two.other, NOWHERE)
    target = await two.furnish()
    view = await own_view(two.owner, target)
    now = await all_over_grpc(two.other, NOWHERE)
    aimed = await all_over_grpc(two.other, target)
    judge(before, now, aimed, target=target)
    silent(now, target)
    assert await own_view(two.owner, target) == view, "nothing of the owner's has changed"
    own = await all_over_grpc(two.owner, target)
    for name in set(ROWS) - NOBODYS:
        assert own[name] != aimed[name], f"{name} tells its owner no more than anybody"


async def test_over_rest_a_tenant_is_as_if_it_had_never_been(two: Two) -> None:
    before = await all_over_rest(two, two.other, NOWHERE)
    target = await two.furnish()
    view = await own_view(two.owner, target)
    now = await all_over_rest(two, two.other, NOWHERE)
    aimed = await all_over_rest(two, two.other, target)
    judge(before, now, aimed, target=target)
    silent(now, target)
    assert await own_view(two.owner, target) == view, "nothing of the owner's has changed"
    unbound = {name for name in ROWS if not now[name]}
    streams = {name for name in ROWS if METHODS[name].server_streaming}  # they would go on
    own = await all_over_rest(two, two.owner, target, leaving_out=streams)
    for name in set(own) - NOBODYS - unbound:
        assert own[name] != aimed[name], f"{name} tells its owner no more than anybody"
