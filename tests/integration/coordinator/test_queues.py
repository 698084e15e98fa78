"""Admins set queues: over gRPC, at once, for all that waits; forecasts and explanations know of it."""

from __future__ import annotations

from typing import Any

import grpc

from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House
from tests.integration.coordinator.test_explain import explained

Job, Settings = job_pb2.Job, api.QueueSettings


def of_queue(name: str, **more: Any) -> dict[str, Any]:
    return {"scheduling_config": {"queue_name": name, **more}}


async def test_a_queue_is_set_whole_and_acts_at_once(agent: FakeAgent, admin: Caller) -> None:
    put = api.SetQueueRequest(name="night", cordoned=True, max_devices=2, tenant_limits={"*": 1})
    made = await admin.call("SetQueue", put)
    assert (made.parent, made.weight, made.order) == ("root", 1, Settings.PRIORITY_FIFO)
    assert (made.cordoned, made.closed, made.version) == (True, False, 1)
    assert dict(made.tenant_limits) == {"*": 1}
    waits = await admin.submit(of_queue("night"), gpu_count=1)
    over = await admin.submit(of_queue("night"), gpu_count=2)
    assert [one.code for one in (await explained(admin, waits)).blockers] == ["QUEUE_CORDONED"]
    made = await admin.call("SetQueue", api.SetQueueRequest(name="night", tenant_limits={"*": 1}))
    assert (made.cordoned, made.max_devices, made.version) == (False, 0, 2)
    assert len(await agent.granted()) == 1, "what waited starts"
    (blocker,) = (await explained(admin, over)).blockers
    assert blocker.code == "TENANT_LIMIT"
    text = "it needs 2 devices, and its tenant in queue night may hold 1: as it is it never starts"
    assert blocker.message == text
    closed = api.SetQueueRequest(name="night", closed=True)
    await admin.call("SetQueue", closed)
    request = await admin.refused("UpdateJob", api.UpdateJobRequest(job_id=over, priority=99))
    assert request.fields == ("priority",)


async def test_what_a_queue_can_never_be_is_refused(admin: Caller) -> None:
    over = api.SetQueueRequest(name="night", guaranteed_devices=3, max_devices=2)
    refused = await admin.refused("SetQueue", over)
    assert (refused.reason, refused.fields) == ("QUEUE_REFUSED", ("guaranteed_devices",))
    refused = await admin.refused("SetQueue", api.SetQueueRequest(name="a\u0000b"))
    assert (refused.reason, refused.fields) == ("INVALID_ARGUMENT", ("name",))


async def test_who_set_a_queue_and_who_removed_it_is_kept(house: House, admin: Caller) -> None:
    await admin.call("SetQueue", api.SetQueueRequest(name="night", max_devices=2))
    await admin.call("SetQueue", api.SetQueueRequest(name="night", max_devices=3))
    await admin.call("RemoveQueue", api.RemoveQueueRequest(name="night"))
    lines = await house.now.parts.store.events(id="night")
    assert [line.cause for line in lines] == ["QUEUE_CHANGED", "QUEUE_CHANGED", "RETIRED"]
    assert {line.actor for line in lines} == {"admin"}


async def test_queues_are_listed_with_what_they_hold(agent: FakeAgent, admin: Caller) -> None:
    await admin.call("SetQueue", api.SetQueueRequest(name="a", order=Settings.FAIR))
    await admin.call("SetQueue", api.SetQueueRequest(name="b", parent="a", guaranteed_devices=2))
    await admin.submit(of_queue("b"), gpu_count=3)
    await agent.granted()
    queues = (await admin.call("ListQueues", api.ListQueuesRequest())).queues
    told = [(one.name, one.parent, one.order, one.held_devices) for one in queues]
    assert told == [("a", "root", Settings.FAIR, 3.0), ("b", "a", Settings.PRIORITY_FIFO, 3.0)]


async def test_queues_come_in_pages_however_many_there_are(house: House, admin: Caller) -> None:
    names = [f"q{number:02}" for number in range(24)]
    for name in names:
        await admin.call("SetQueue", api.SetQueueRequest(name=name))
    first = await admin.call("ListQueues", api.ListQueuesRequest())
    assert (len(first.queues), first.total_count) == (20, 24)
    again = api.ListQueuesRequest(page_size=10, page_token=first.next_page_token)
    rest = await admin.call("ListQueues", again)
    assert [one.name for one in (*first.queues, *rest.queues)] == names
    assert not rest.next_page_token
    wrong = await admin.refused("ListQueues", api.ListQueuesRequest(page_token="x"))
    assert (wrong.code, wrong.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("page_token",))


async def test_a_page_of_queues_with_many_limits_is_shorter_than_was_asked(admin: Caller) -> None:
    limits = {"\u4e16" * 124 + f"{number:04}": 1 for number in range(1000)}
    for name in ("a", "b", "c", "d", "e"):
        await admin.call("SetQueue", api.SetQueueRequest(name=name, tenant_limits=limits))
    found: list[str] = []
    asked = api.ListQueuesRequest(page_size=100)
    while asked.page_token or not found:
        page = await admin.call("ListQueues", asked)
        assert page.ByteSize() < 2 << 20
        found += [one.name for one in page.queues]
        asked.page_token = page.next_page_token
    assert found == ["a", "b", "c", "d", "e"]


async def test_a_removed_queue_is_as_by_default(agent: FakeAgent, admin: Caller) -> None:
    await admin.call("SetQueue", api.SetQueueRequest(name="a", cordoned=True))
    await admin.call("SetQueue", api.SetQueueRequest(name="b", parent="a"))
    await admin.submit(of_queue("b"))
    refused = await admin.refused("RemoveQueue", api.RemoveQueueRequest(name="a"))
    assert (refused.reason, refused.fields) == ("QUEUE_REFUSED", ("name",))
    for name in ("b", "a"):
        await admin.call("RemoveQueue", api.RemoveQueueRequest(name=name))
    assert len(await agent.granted()) == 1, "its jobs may start"
    refused = await admin.refused("RemoveQueue", api.RemoveQueueRequest(name="a"))
    assert refused.code is grpc.StatusCode.NOT_FOUND


async def test_a_queue_that_takes_no_jobs_says_so(admin: Caller) -> None:
    await admin.call("SetQueue", api.SetQueueRequest(name="old", closed=True))
    moved = await admin.submit()
    change = api.UpdateJobRequest(job_id=moved, queue_name="old")
    refused = await admin.refused("UpdateJob", change)
    assert (refused.reason, refused.fields) == ("QUEUE_CLOSED", ("queue_name",))
    lost = await admin.refused("SetQueue", api.SetQueueRequest(name="new", parent="nowhere"))
    assert (lost.reason, lost.fields) == ("QUEUE_REFUSED", ("parent",))


async def test_a_forecast_knows_how_the_queue_is_ordered(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    await admin.call("SetQueue", api.SetQueueRequest(name="default", order=Settings.SHORTEST))
    await admin.submit(of_queue("", expected_duration_seconds=600), gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await admin.submit(of_queue("", expected_duration_seconds=7200), gpu_count=4)
    short = await admin.submit(of_queue("", expected_duration_seconds=60), gpu_count=4)
    found = await explained(admin, short)
    assert found.position == 1
    assert found.eta_p50_seconds < 1200, "it does not wait for the long one before it"


async def test_where_users_take_turns_who_used_less_is_told_to_be_before(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    await admin.call("SetQueue", api.SetQueueRequest(name="default", order=Settings.FAIR))
    much = await house.caller("acme")
    await much.submit(gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    later = [await much.submit(gpu_count=4) for _ in range(2)]
    first = await admin.submit(gpu_count=4)
    for caller, jobs in ((admin, [(first, 1)]), (much, [(later[0], 2), (later[1], 3)])):
        (queue,) = (await caller.call("GetQueue", api.GetQueueRequest())).queues
        assert [(one.job_id, one.position) for one in queue.jobs] == jobs
        for job_id, position in jobs:
            assert (await explained(caller, job_id)).position == position
    (blocker,) = (await explained(admin, first)).blockers
    assert blocker.code == "DEVICES_BUSY", "nobody is before it"
