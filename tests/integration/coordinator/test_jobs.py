"""Submitting, reading, listing and cancelling jobs; what is refused, and how."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, Fault, House, a_submit

Job = job_pb2.Job
INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def names_of(caller: Caller, **filters: Any) -> list[str]:
    """Names of all the jobs of a list, over its pages."""
    names: list[str] = []
    token = ""
    while True:
        page = await caller.call("ListJobs", api.ListJobsRequest(page_token=token, **filters))
        names += [job.name for job in page.jobs]
        token = page.next_page_token
        if not token:
            return names


async def test_a_submitted_job_is_the_record_that_is_read(admin: Caller) -> None:
    request = a_submit({"name": "first", "labels": {"team": "a"}}, gpu_count=3)
    answer = await admin.call("SubmitJob", request)
    job = await admin.job(answer.job_id)
    assert answer.status == job.status == Job.QUEUED
    assert answer.message == "The job was accepted."
    assert (job.name, job.tenant_id, job.user_id) == ("first", "local", "admin")
    assert (job.priority, job.queue_name, dict(job.labels)) == (5, "default", {"team": "a"})
    assert job.training_config == request.training_config
    assert job.data_config == request.data_config
    assert job.resource_config == request.resource_config
    assert not job.HasField("output_config")
    assert (job.status_reason.code, bool(job.status_reason.message)) == (
        "WAITING_FOR_CAPACITY",
        True,
    )
    assert (job.lineage_id, job.version, job.attempts_count) == (job.job_id, 1, 0)
    assert job.created_at == job.updated_at
    assert not job.HasField("estimated_wait_seconds")


async def test_a_job_that_starts_at_once_waits_no_time(agent: FakeAgent, admin: Caller) -> None:
    answer = await admin.call("SubmitJob", a_submit())
    assert answer.estimated_wait_seconds == 0.0
    assert answer.HasField("estimated_wait_seconds")


async def test_validate_only_accepts_nothing(admin: Caller) -> None:
    request = a_submit()
    request.validate_only = True
    answer = await admin.call("SubmitJob", request)
    assert (answer.job_id, answer.status) == ("", Job.QUEUED)
    assert await names_of(admin) == []


async def test_ids_sort_by_age(admin: Caller) -> None:
    ids = [await admin.submit() for _ in range(5)]
    assert len(set(ids)) == 5
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)


async def test_lists_are_newest_first_filtered_ordered_and_counted(
    agent: FakeAgent, admin: Caller
) -> None:
    for number in range(6):
        labels = {"half": "even" if number % 2 == 0 else "odd"}
        await admin.submit({"name": f"job {number}", "labels": labels}, gpu_count=4)
    assert await names_of(admin, page_size=4) == [f"job {n}" for n in (5, 4, 3, 2, 1, 0)]
    assert await names_of(admin, order_by="name", page_size=2) == [f"job {n}" for n in range(6)]
    assert await names_of(admin, label=["half=odd"]) == ["job 5", "job 3", "job 1"]
    assert await names_of(admin, status=[Job.SCHEDULING]) == ["job 0"]
    assert await names_of(admin, status=[Job.QUEUED, Job.SCHEDULING], label=["half=even"]) == [
        "job 4",
        "job 2",
        "job 0",
    ]
    page = await admin.call("ListJobs", api.ListJobsRequest(page_size=2))
    assert page.total_count == 6


async def test_pages_tell_every_job_once_while_jobs_come_and_go(admin: Caller) -> None:
    for number in range(9):
        await admin.submit({"name": f"old {number}"})
    seen: list[str] = []
    request = api.ListJobsRequest(page_size=2)
    while True:
        page = await admin.call("ListJobs", request)
        seen += [job.name for job in page.jobs]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
        await admin.submit({"name": f"new {len(seen)}"})
        await admin.call("CancelJob", api.CancelJobRequest(job_id=page.jobs[0].job_id))
    assert seen == [f"old {number}" for number in range(8, -1, -1)]


@pytest.mark.parametrize(
    "change",
    [
        {"order_by": "name"},
        {"label": ["a=b"]},
        {"status": [Job.QUEUED]},
        {"page_token": "AAAA"},
        {"page_token": "ü"},
    ],
    ids=str,
)
async def test_a_token_of_another_list_is_refused(admin: Caller, change: dict[str, Any]) -> None:
    for _ in range(3):
        await admin.submit()
    page = await admin.call("ListJobs", api.ListJobsRequest(page_size=1))
    values = {"page_size": 1, "page_token": page.next_page_token, **change}
    fault = await admin.refused("ListJobs", api.ListJobsRequest(**values))
    assert (fault.code, fault.fields) == (INVALID, ("page_token",))


async def test_a_cancelled_job_is_final_and_cannot_be_cancelled_again(admin: Caller) -> None:
    job_id = await admin.submit()
    request = api.CancelJobRequest(job_id=job_id, reason="a typo")
    job = await admin.call("CancelJob", request)
    assert (job.status, job.status_reason.message) == (Job.CANCELLED, "a typo")
    fault = await admin.refused("CancelJob", request)
    assert fault.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (fault.reason, "CANCELLED" in fault.text) == ("WRONG_STATUS", True)


async def test_the_same_request_id_gives_the_first_answer_again(admin: Caller) -> None:
    request = a_submit()
    request.request_id = "once"
    first = await admin.call("SubmitJob", request)
    call = admin.start("SubmitJob", request)
    assert (await call).job_id == first.job_id
    assert ("x-idempotency-replayed", "true") in tuple(await call.trailing_metadata())
    assert len(await names_of(admin)) == 1
    request.name = "another"
    fault = await admin.refused("SubmitJob", request)
    assert (fault.code, fault.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_the_same_cancel_gives_the_first_answer_again(admin: Caller) -> None:
    job_id = await admin.submit()
    request = api.CancelJobRequest(job_id=job_id, request_id="once")
    first = await admin.call("CancelJob", request)
    again = await admin.call("CancelJob", request)
    assert again == first


async def test_concurrent_submits_with_one_request_id_make_one_job(admin: Caller) -> None:
    request = a_submit()
    request.request_id = "once"
    answers = await asyncio.gather(*(admin.call("SubmitJob", request) for _ in range(20)))
    assert len({answer.job_id for answer in answers}) == 1
    assert len(await names_of(admin)) == 1


async def test_a_request_id_belongs_to_its_tenant(house: House) -> None:
    request = a_submit()
    request.request_id = "once"
    ids = {
        (await (await house.caller(tenant)).call("SubmitJob", request)).job_id
        for tenant in ("acme", "other")
    }
    assert len(ids) == 2


async def test_a_job_waits_for_those_that_it_depends_on(agent: FakeAgent, admin: Caller) -> None:
    needed = await admin.submit()
    child = await admin.submit({"scheduling_config": {"depends_on": [needed]}})
    assert (await admin.job(child)).status_reason.code == "WAITING_FOR_DEPENDENCIES"
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await agent.ends(lease_id)
    assert (await admin.job(child)).status == Job.SCHEDULING
    await agent.forgets(lease_id)
    late = await admin.submit({"scheduling_config": {"depends_on": [needed]}})
    assert (await admin.job(late)).status == Job.SCHEDULING


async def test_a_job_cannot_depend_on_a_job_of_another_tenant(house: House, admin: Caller) -> None:
    foreign = await (await house.caller("other")).submit()
    faults = [
        await admin.refused("SubmitJob", a_submit({"scheduling_config": {"depends_on": [one]}}))
        for one in (foreign, "job_unknown")
    ]
    assert {(fault.code, fault.reason) for fault in faults} == {(INVALID, "DEPENDENCY_NOT_FOUND")}


async def test_a_job_that_could_never_fit_is_refused_and_told_what_would(
    agent: FakeAgent, admin: Caller
) -> None:
    fault = await admin.refused("SubmitJob", a_submit(gpu_count=5))
    assert (fault.code, fault.reason) == (INVALID, "NEVER_FITS")
    assert "4" in fault.text
    fault = await admin.refused("SubmitJob", a_submit(gpu_type="H100"))
    assert (fault.reason, fault.fields) == ("NEVER_FITS", ("resource_config.gpu_type",))


def set_name(value: str) -> Callable[[api.SubmitJobRequest], object]:
    return lambda request: setattr(request, "name", value)


BAD: dict[str, tuple[Callable[[api.SubmitJobRequest], object], str]] = {
    "no name": (set_name(""), "name"),
    "long name": (set_name("x" * 257), "name"),
    "name of two lines": (set_name("a\nb"), "name"),
    "queue of two lines": (
        lambda request: setattr(request.scheduling_config, "queue_name", "a\nb"),
        "scheduling_config.queue_name",
    ),
    "no configs": (lambda request: request.ClearField("data_config"), "data_config"),
    "unknown type of training": (
        lambda request: setattr(request.training_config, "training_type", 99),
        "training_config.training_type",
    ),
    "priority": (
        lambda request: setattr(request.training_config, "priority", 11),
        "training_config.priority",
    ),
    "no script": (
        lambda request: request.training_config.framework.ClearField("custom_script_path"),
        "training_config.framework.custom_script_path",
    ),
    "no devices": (
        lambda request: setattr(request.resource_config, "gpu_count", 0),
        "resource_config.gpu_count",
    ),
    "label with =": (lambda request: request.labels.update({"a=b": ""}), 'labels["a=b"]'),
    "long request id": (lambda request: setattr(request, "request_id", "x" * 257), "request_id"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_refused_with_its_field(admin: Caller, name: str) -> None:
    change, field = BAD[name]
    request = a_submit()
    change(request)
    fault = await admin.refused("SubmitJob", request)
    assert (fault.code, fault.reason, fault.fields) == (INVALID, "INVALID_ARGUMENT", (field,))
    assert await names_of(admin) == []


@pytest.mark.parametrize("order", ["size", "name down", "name desc,status", "NAME"])
async def test_an_unknown_order_is_refused(admin: Caller, order: str) -> None:
    fault = await admin.refused("ListJobs", api.ListJobsRequest(order_by=order))
    assert (fault.code, fault.fields) == (INVALID, ("order_by",))


async def test_bytes_that_are_no_message_are_refused(house: House, admin: Caller) -> None:
    method: Any = house.channel.unary_unary("/scaimind.v1.MindCoordinator/GetJob")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(b"\xff\xff", metadata=admin.metadata)
    fault = Fault.of(caught.value)
    assert (fault.code, fault.text) == (INVALID, "the request is not a GetJobRequest")


@pytest.mark.parametrize("size_mib", [5, 17])
async def test_a_message_beyond_the_limit_is_refused(admin: Caller, size_mib: int) -> None:
    request = a_submit()
    request.training_config.environment["A"] = "x" * (size_mib << 20)
    fault = await admin.refused("SubmitJob", request)
    assert fault.code in (INVALID, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert await names_of(admin) == []


async def test_a_finished_job_is_read_from_history_as_it_ended(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit({"name": "done"})
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await agent.ends(lease_id)
    live = await admin.job(job_id)
    await agent.forgets(lease_id)
    assert job_id not in house.now.parts.driver.view.jobs
    house.now.parts.driver.view._recent.clear()
    assert await admin.job(job_id) == live
    assert await names_of(admin, status=[Job.COMPLETED]) == ["done"]
    fault = await admin.refused("CancelJob", api.CancelJobRequest(job_id=job_id))
    assert (fault.reason, "COMPLETED" in fault.text) == ("WRONG_STATUS", True)


async def test_metrics_of_a_job_are_sampled_and_its_newest_are_in_its_record(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit()
    request = api.GetJobMetricsRequest(job_id=job_id, max_points=5)
    empty = await admin.call("GetJobMetrics", request)
    assert (empty.total_points, len(empty.points)) == (0, 0)
    batch = agent.batch(job_id, [], channel=agent_api.EVENTS, progress=40.0, eta_seconds=6.0)
    for step in range(100):
        batch.metrics.add(step=step, values={"loss": 100.0 - step}, progress=step)
        batch.metric_ends.append(step + 1)
    batch.end = 100
    await agent.push(batch, batch)
    answer = await admin.call("GetJobMetrics", request)
    assert (answer.total_points, len(answer.points)) == (100, 5)
    assert (answer.points[0].step, answer.points[-1].step) == (0, 99)
    job = await admin.job(job_id)
    assert (job.progress, job.eta_seconds) == (40.0, 6.0)
    assert (job.latest_metrics.step, job.latest_metrics.values["loss"]) == (99, 1.0)


async def test_a_retry_names_faults_where_the_caller_made_them_and_tells_its_wait(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await agent.ends(lease_id, exit_code=1)
    for devices, reason in ((0, "INVALID_ARGUMENT"), (999, "NEVER_FITS")):
        other = job_pb2.ResourceConfig(gpu_count=devices)
        asked = api.RetryJobRequest(job_id=job_id, modify_resources=True, new_resource_config=other)
        refused = await admin.refused("RetryJob", asked)
        assert (refused.reason, refused.fields) == (reason, ("new_resource_config.gpu_count",))
    answer = await admin.call("RetryJob", api.RetryJobRequest(job_id=job_id))
    assert answer.HasField("estimated_wait_seconds")
