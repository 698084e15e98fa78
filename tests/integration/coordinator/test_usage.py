"""What leased devices were used for: over gRPC, for tenants and operators, while jobs run and after them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.runtime.metrics import families
from coordinator.store.protocol import JobFilter, JobPage
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House

By = api.GetUsageRequest
CLASSES = ("starting", "productive", "checkpointing", "redone", "idle", "paused")


async def used(caller: Caller, **asked: Any) -> api.GetUsageResponse:
    answer = await caller.call("GetUsage", api.GetUsageRequest(**asked))
    assert isinstance(answer, api.GetUsageResponse)
    return answer


def adds_up(time: job_pb2.DeviceTime) -> bool:
    return bool(time.leased_us == sum(getattr(time, f"{name}_us") for name in CLASSES))


async def test_a_job_that_is_granted_while_its_page_is_read_is_shown_all_the_same(
    house: House, agent: FakeAgent, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = house.now.parts.store
    read = store.list_jobs
    for _ in range(2):
        waiting = await admin.submit(gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)

    async def slow(where: JobFilter, **words: Any) -> JobPage:
        page = await read(where, **words)
        await agent.ends(lease_id)
        await agent.until(lambda answer: any(one.lease_id != lease_id for one in answer.leases))
        return page

    monkeypatch.setattr(store, "list_jobs", slow)
    page = await admin.call("ListJobs", api.ListJobsRequest(order_by="created_at desc"))
    assert page.jobs[0].job_id == waiting
    assert all(adds_up(one.usage.time) for one in page.jobs)
    assert (await admin.job(waiting)).status == job_pb2.Job.SCHEDULING


async def fails(agent: FakeAgent, admin: Caller, **fields: Any) -> str:
    """A job that trains for a moment, and fails."""
    job_id = await admin.submit(**fields)
    lease_id = f"{job_id}.1.0"
    await agent.until(lambda answer: lease_id in [one.lease_id for one in answer.leases])
    await agent.runs(lease_id)
    await agent.ends(lease_id, exit_code=3)
    await agent.forgets(lease_id)
    return job_id


async def test_what_was_leased_is_told_by_whatever_is_asked_for(
    agent: FakeAgent, admin: Caller, house: House
) -> None:
    failed = await fails(agent, admin, gpu_count=2)
    record = await admin.job(failed)
    time = record.usage.time
    assert adds_up(time)
    assert time.redone_us > 0 == time.productive_us
    (lost,) = record.usage.lost
    assert (lost.attempt, lost.cause, lost.cause_id) == (1, "RANK_FAILED", "n1")
    assert lost.redone_us == time.redone_us
    for by, key in (
        (By.JOB, failed),
        (By.USER, record.user_id),
        (By.QUEUE, "default"),
        (By.NODE, "n1"),
        (By.TENANT, "local"),
        (By.CAUSE, "RANK_FAILED/n1"),
    ):
        answer = await used(admin, group_by=by)
        assert [group.key for group in answer.groups] == [key]
        assert answer.groups[0].time == answer.total == time, (
            "of a job that has ended nothing grows"
        )
    assert (answer.groups[0].cause, answer.groups[0].cause_id) == ("RANK_FAILED", "n1")
    (family,) = [x for x in families(house.now.parts.driver) if "leased_device" in x.name]
    shown = {sample.labels["class"]: sample.value for sample in family.samples}
    assert shown["redone"] == time.redone_us / 1e6
    assert {sample.labels["queue"] for sample in family.samples} == {"default"}


async def test_a_job_that_runs_shows_what_it_has_used_until_now(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit(gpu_count=2)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    first = (await admin.job(job_id)).usage.time
    assert adds_up(first)
    by_job = (await used(admin, group_by=By.JOB)).groups[0].time
    now = (await admin.job(job_id)).usage.time
    assert first.starting_us == now.starting_us > 0
    assert first.leased_us <= by_job.leased_us <= now.leased_us
    await agent.reports(lease_id, agent_api.ENDED, done=True)
    ended = await admin.job(job_id)
    assert ended.status == job_pb2.Job.COMPLETED
    assert adds_up(ended.usage.time)
    assert ended.usage.time.leased_us >= now.leased_us
    assert not ended.usage.lost


async def test_what_a_cancelled_job_still_holds_is_idle_until_it_is_free(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit(gpu_count=2)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await admin.call("CancelJob", api.CancelJobRequest(job_id=job_id))
    while not (held := (await admin.job(job_id)).usage.time).idle_us:
        assert adds_up(held)
    await agent.reports(lease_id, agent_api.ENDED)
    ended = (await admin.job(job_id)).usage.time
    assert adds_up(ended)
    assert ended.idle_us >= held.idle_us
    assert ended.productive_us == held.productive_us
    assert (await used(admin)).total == ended


async def test_operators_see_all_tenants_and_others_only_their_own(
    agent: FakeAgent, admin: Caller, house: House
) -> None:
    acme = await house.caller("acme")
    mine = await fails(agent, admin, gpu_count=1)
    theirs = await fails(agent, acme, gpu_count=2)
    every = await used(admin, group_by=By.JOB)
    assert {(one.key, one.tenant_id) for one in every.groups} == {(mine, "local"), (theirs, "acme")}
    tenants = await used(admin, group_by=By.TENANT, order_by="redone")
    assert {one.key for one in tenants.groups} == {"acme", "local"}
    amounts = [one.time.redone_us for one in tenants.groups]
    assert amounts == sorted(amounts, reverse=True)
    own = await used(acme, group_by=By.JOB)
    assert [one.key for one in own.groups] == [theirs]
    assert (await used(acme, group_by=By.NODE)).total == own.total
    assert (await used(admin, tenant_id="acme")).total == own.total
    assert not (await used(acme, job_id=mine)).groups
    denied = await acme.refused("GetUsage", api.GetUsageRequest(tenant_id="local"))
    assert denied.code == grpc.StatusCode.PERMISSION_DENIED


async def test_sums_come_in_pages_and_are_of_whole_days(agent: FakeAgent, admin: Caller) -> None:
    job_ids = {await fails(agent, admin, gpu_count=1) for _ in range(3)}
    first = await used(admin, group_by=By.JOB, page_size=2)
    assert (len(first.groups), first.total_count) == (2, 3)
    rest = await used(admin, group_by=By.JOB, page_size=2, page_token=first.next_page_token)
    assert {one.key for one in (*first.groups, *rest.groups)} == job_ids
    assert (rest.next_page_token, rest.total) == ("", first.total)
    begins, ends = first.start_time.ToDatetime(UTC), first.end_time.ToDatetime(UTC)
    assert (ends - begins, begins.hour, ends > datetime.now(UTC)) == (timedelta(days=30), 0, True)
    before = Timestamp(seconds=first.start_time.seconds)
    assert not (await used(admin, end_time=before)).groups
    for wrong, field in (
        ({"start_time": first.end_time, "end_time": before}, "start_time"),
        ({"page_token": "x"}, "page_token"),
        ({"order_by": "most"}, "order_by"),
        ({"page_size": 0}, "page_size"),
    ):
        fault = await admin.refused("GetUsage", api.GetUsageRequest(**wrong))
        assert (fault.code, fault.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))
