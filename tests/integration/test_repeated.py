"""Everything that changes something, asked twice: one effect and one answer, whatever happened since.

Over gRPC and REST, from the descriptors: a method that changes something and has no row here fails. Between
the first time and the last everything is ended and the coordinator is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

from gateway.app import create_app
from gateway.upstream import Upstream
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, node_pb2, options_pb2
from scaimind.v1 import key_service_pb2 as keys
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.both import MODULE
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import CHANNEL, Caller, Program, a_submit, cut
from tests.integration.tenants.rows import METHODS, over_http

READS = ("Get", "List", "Stream", "Explain", "Validate", "Simulate")
CHANGES = sorted(name for name in METHODS if not name.startswith(READS))
# What is told of the moment, not of what was done.
OF_THE_MOMENT = {"usage", "estimated_wait_seconds", "last_seen_at"}


def steady(message: Message) -> Any:
    """A message without what changes by itself."""
    return without_moment(json_format.MessageToDict(message, preserving_proto_field_name=True))


def without_moment(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_moment(one) for key, one in value.items() if key not in OF_THE_MOMENT}
    if isinstance(value, list):
        return [without_moment(one) for one in value]
    return value


@dataclass
class World:
    """A coordinator in a process of its own, a gateway before it, and a cluster that is full."""

    program: Program
    channel: grpc.aio.Channel
    admin: Caller
    rest: httpx.AsyncClient
    agent: FakeAgent
    completed: str = ""
    failed: str = ""
    spare: list[str] = field(default_factory=list)
    """Nodes on which nothing can run that a test submits."""

    async def full(self) -> None:
        """Lets everything wait that is submitted from now on."""
        await self.admin.submit({"name": "blocker"}, gpu_count=4)
        (lease_id,) = [one for one in await self.agent.granted() if one not in self.agent.observed]
        await self.agent.runs(lease_id)

    async def ended(self, *, exit_code: int = 0) -> str:
        """A job that has ended."""
        job_id = await self.admin.submit()
        (lease_id,) = await self.agent.granted()
        await self.agent.runs(lease_id)
        lease = self.agent.observe(lease_id, agent_api.ENDED, done=not exit_code)
        if exit_code:
            lease.error.category = job_pb2.JobError.USER_CODE
            lease.error.exit_code = exit_code
        else:
            lease.output_model_uri = "file:///model"
        await self.agent.sync()
        await self.agent.forgets(lease_id)
        return job_id

    async def all_there_is(self) -> list[Any]:
        """Jobs, keys, nodes, queues and rolling drains, as an admin sees them."""
        jobs = await self.admin.call("ListJobs", api.ListJobsRequest(page_size=100))
        known = await self.admin.call("ListKeys", keys.ListKeysRequest())
        nodes = await self.admin.call("ListNodes", api.ListNodesRequest(page_size=100))
        assert not jobs.next_page_token
        queues = await self.admin.call("ListQueues", api.ListQueuesRequest())
        drains = await self.admin.call("ListRollingDrains", api.ListRollingDrainsRequest())
        return [steady(one) for one in (jobs, known, nodes, queues, drains)]

    async def end_all(self) -> None:
        """Cancels all that lives, and lets the nodes be used."""
        everything = api.ActOnJobsRequest(action=api.ActOnJobsRequest.CANCEL, queue_name="default")
        await self.admin.call("ActOnJobs", everything)
        nodes = await self.admin.call("ListNodes", api.ListNodesRequest(page_size=100))
        for node in nodes.nodes:
            await self.admin.call("EnableNode", api.EnableNodeRequest(node_id=node.node_id))

    async def restart(self) -> None:
        """kill -9 of the coordinator."""
        await self.program.kill()
        await cut(self.channel)
        await self.program.start()
        await self.channel.channel_ready()


Prepare = Callable[[World], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Row:
    """How a request is made whose effect can be seen, and what makes another request of it."""

    prepare: Prepare
    other: dict[str, Any]


def of_a_waiting_job(kind: Any, **fields: Any) -> Prepare:
    async def prepare(world: World) -> Message:
        message: Message = kind(job_id=await world.admin.submit(), **fields)
        return message

    return prepare


async def a_resume(world: World) -> Message:
    job_id = await world.admin.submit()
    await world.admin.call("PauseJob", api.PauseJobRequest(job_id=job_id))
    return api.ResumeJobRequest(job_id=job_id)


async def a_bulk(world: World) -> Message:
    name = f"bulk-{len(world.spare)}"
    for _ in range(3):
        await world.admin.submit({"name": name})
    return api.ActOnJobsRequest(action=api.ActOnJobsRequest.CANCEL, name_prefix=name)


async def an_evaluation(world: World) -> Message:
    request = api.SubmitEvaluationRequest(job_id=world.completed)
    request.benchmarks.add(name="perplexity", dataset="/data/test.jsonl")
    return request


async def a_drain(world: World) -> Message:
    return api.DrainNodeRequest(node_id=world.spare.pop())


async def a_word_on_health(world: World) -> Message:
    states = node_pb2.NodeHealth.QUARANTINED, node_pb2.NodeHealth.PROBATION
    return api.SetNodeHealthRequest(node_id="n8", state=states[next(NUMBERS) % 2])


async def an_enable(world: World) -> Message:
    node_id = world.spare.pop()
    await world.admin.call("DrainNode", api.DrainNodeRequest(node_id=node_id))
    return api.EnableNodeRequest(node_id=node_id)


async def a_rolling_drain(_: World) -> Message:
    return api.StartRollingDrainRequest(label=["rack=spare"], until_enabled=True)


async def a_rolling_drain_to_cancel(world: World) -> Message:
    await world.admin.call("EnableNode", api.EnableNodeRequest(node_id="n8"))
    made = await world.admin.call("StartRollingDrain", await a_rolling_drain(world))
    return api.CancelRollingDrainRequest(drain_id=made.drain_id)


async def a_removal(world: World) -> Message:
    node_id = world.spare.pop()
    await world.admin.call("DrainNode", api.DrainNodeRequest(node_id=node_id))
    return api.RemoveNodeRequest(node_id=node_id)


async def a_new_queue(_: World) -> Message:
    return api.SetQueueRequest(name=f"nightly-{next(NUMBERS)}", max_devices=4)


async def a_queue(world: World) -> Message:
    await world.admin.call("SetQueue", api.SetQueueRequest(name="weekly"))
    return api.RemoveQueueRequest(name="weekly")


async def a_revocation(world: World) -> Message:
    made = await world.admin.call("CreateKey", A_KEY)
    return keys.RevokeKeyRequest(key_id=made.info.key_id)


async def plain(request: Message) -> Message:
    return request


NUMBERS = count(1)
A_KEY = keys.CreateKeyRequest(tenant_id="acme", permissions=[options_pb2.VIEW])
ROWS: dict[str, Row] = {
    "SubmitJob": Row(lambda _: plain(a_submit()), {"name": "other"}),
    "BatchSubmitJobs": Row(
        lambda _: plain(api.BatchSubmitJobsRequest(jobs=[a_submit(), a_submit()])),
        {"atomic": True},
    ),
    "CancelJob": Row(of_a_waiting_job(api.CancelJobRequest), {"reason": "other"}),
    "PauseJob": Row(of_a_waiting_job(api.PauseJobRequest), {"checkpoint_timeout_seconds": 5}),
    "ResumeJob": Row(a_resume, {"checkpoint_id": "other"}),
    "UpdateJob": Row(of_a_waiting_job(api.UpdateJobRequest, priority=9), {"priority": 1}),
    "ActOnJobs": Row(a_bulk, {"name_prefix": "other"}),
    "RetryJob": Row(
        lambda world: plain(api.RetryJobRequest(job_id=world.failed)), {"checkpoint_id": "other"}
    ),
    "SubmitEvaluation": Row(an_evaluation, {"model_uri": "file:///other"}),
    "DrainNode": Row(a_drain, {"reason": "other"}),
    "SetNodeHealth": Row(a_word_on_health, {"reason": "other"}),
    "EnableNode": Row(an_enable, {"node_id": "n1"}),
    "StartRollingDrain": Row(a_rolling_drain, {"max_unavailable": 2}),
    "CancelRollingDrain": Row(a_rolling_drain_to_cancel, {"drain_id": "other"}),
    "RemoveNode": Row(a_removal, {"node_id": "n1"}),
    "SetQueue": Row(a_new_queue, {"max_devices": 5}),
    "RemoveQueue": Row(a_queue, {"name": "other"}),
    "CreateKey": Row(lambda _: plain(A_KEY), {"user_id": "eve"}),
    "RevokeKey": Row(a_revocation, {"key_id": "key_admin"}),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What was told, by either way."""

    what: Any
    replayed: bool
    reason: str = ""


async def over_grpc(world: World, name: str, request: Any) -> Answer:
    call = world.admin.start(name, request)
    try:
        answer = await call
    except grpc.aio.AioRpcError:
        return Answer(None, False, (await world.admin.refused(name, request)).reason)
    replayed = ("x-idempotency-replayed", "true") in tuple(await call.trailing_metadata())
    return Answer(steady(answer), replayed)


async def over_rest(world: World, name: str, request: Any) -> Answer:
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    (asked,) = over_http(name, bare)
    answer = await world.rest.request(
        **asked.words, headers={"idempotency-key": request.request_id}
    )
    told = answer.json()
    if told["status"] == "error":
        return Answer(None, False, told["error"]["code"])
    replayed = answer.headers.get("idempotency-replayed") == "true"
    return Answer(without_moment(told["data"]), replayed)


Ask = Callable[[World, str, Any], Awaitable[Answer]]
WAYS: dict[str, Ask] = {"grpc": over_grpc, "rest": over_rest}


@pytest.fixture
async def world(program: Program, tmp_path: Path) -> AsyncIterator[World]:
    """A cluster with a job of each end, and otherwise full."""
    async with grpc.aio.insecure_channel(program.address, options=CHANNEL) as channel:
        joiner = program.caller(channel, "join.token")
        agent = FakeAgent(joiner)
        await agent.sync()
        secret = (tmp_path / "gateway.secret").read_text().strip()
        gateway = create_app(Upstream(program.address, secret=secret), access_log=False)
        admin = program.caller(channel, "admin.key")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway),
            base_url=f"http://mind{MODULE}",
            headers=dict(admin.metadata),
        ) as rest:
            made = World(program, channel, admin, rest, agent)
            made.completed = await made.ended()
            made.failed = await made.ended(exit_code=3)
            await made.full()
            for number in range(2, 8):
                spare = FakeAgent(joiner, f"n{number}")
                for device in spare.offer.devices:
                    device.type = "OTHER"
                await spare.sync()
                made.spare.append(spare.node_id)
            racked = FakeAgent(joiner, "n8")
            racked.offer.labels["rack"] = "spare"
            racked.offer.devices[0].type = "OTHER"
            del racked.offer.devices[1:]
            await racked.sync()
            yield made
        await gateway.close()


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    made = Program(tmp_path)
    await made.start("--unreachable-after-s", "600", "--replace-after-s", "1200")
    yield made
    await made.close()


def test_every_method_that_changes_something_takes_a_request_id_and_has_a_row() -> None:
    assert set(ROWS) == set(CHANGES)
    for name in CHANGES:
        assert "request_id" in METHODS[name].input_type.fields_by_name, name


async def test_asked_twice_it_is_done_once_whatever_happened_since(world: World) -> None:
    asked: list[tuple[str, str, Any, Answer]] = []
    for name, row in ROWS.items():
        for way, ask in WAYS.items():
            if way == "rest" and not METHODS[name].GetOptions().HasExtension(annotations_pb2.http):
                continue
            request: Any = await row.prepare(world)
            request = type(request).FromString(request.SerializeToString())
            request.request_id = f"{name}-{way}"
            before = await world.all_there_is()
            first = await ask(world, name, request)
            assert (first.reason, first.replayed) == ("", False), (name, way)
            done = await world.all_there_is()
            assert done != before, (name, way)
            again = await ask(world, name, request)
            assert again == Answer(first.what, replayed=True), (name, way)
            other = type(request).FromString(request.SerializeToString())
            for field_name, value in row.other.items():
                setattr(other, field_name, value)
            assert (await ask(world, name, other)).reason == "REQUEST_ID_REUSED", (name, way)
            assert await world.all_there_is() == done, (name, way)
            asked.append((name, way, request, first))
    await world.end_all()
    await world.restart()
    there = await world.all_there_is()
    for name, way, request, first in asked:
        again = await WAYS[way](world, name, request)
        assert again == Answer(first.what, replayed=True), (name, way)
    assert await world.all_there_is() == there


CHECKED = [name for name in CHANGES if "validate_only" in METHODS[name].input_type.fields_by_name]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_only_checked_is_not_done_and_its_request_id_is_free(
    world: World, way: str
) -> None:
    assert {"SubmitJob", "RetryJob", "DrainNode"} <= set(CHECKED)
    for name in CHECKED:
        request: Any = await ROWS[name].prepare(world)
        request = type(request).FromString(request.SerializeToString())
        request.request_id, request.validate_only = f"{name}-checked", True
        before = await world.all_there_is()
        told = await WAYS[way](world, name, request)
        assert (told.reason, told.replayed) == ("", False), name
        assert await world.all_there_is() == before, name
        request.validate_only = False
        done = await WAYS[way](world, name, request)
        assert (done.reason, done.replayed) == ("", False), name
        assert await world.all_there_is() != before, name


async def test_the_two_ways_share_what_they_remember(world: World) -> None:
    for one, other in ((over_grpc, over_rest), (over_rest, over_grpc)):
        request = a_submit()
        request.request_id = f"first-{one.__name__}"
        first = await one(world, "SubmitJob", request)
        again = await other(world, "SubmitJob", request)
        assert (again.what["job_id"], again.replayed) == (first.what["job_id"], True)


@pytest.mark.parametrize("name", ["SubmitJob", "SubmitEvaluation", "CreateKey", "RetryJob"])
async def test_asked_many_times_at_once_it_is_done_once(world: World, name: str) -> None:
    request: Any = await ROWS[name].prepare(world)
    request = type(request).FromString(request.SerializeToString())
    request.request_id = "many"
    answers = await asyncio.gather(*(over_grpc(world, name, request) for _ in range(16)))
    assert len({repr(one.what) for one in answers}) == 1
    assert sum(not one.replayed for one in answers) == 1
