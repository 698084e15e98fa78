"""Many jobs in one call: a result for each, all of them or only the good ones."""

from __future__ import annotations

from typing import Any

from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, a_submit

Job = job_pb2.Job


def _batch(count: int, *bad: int, **fields: Any) -> api.BatchSubmitJobsRequest:
    """So many submits, of which those numbered ask for no device."""
    jobs = [a_submit({"name": f"job {n}"}, gpu_count=0 if n in bad else 1) for n in range(count)]
    return api.BatchSubmitJobsRequest(jobs=jobs, **fields)


def _codes(answer: api.BatchSubmitJobsResponse) -> list[str]:
    return [one.error.code for one in answer.results]


async def _total(admin: Caller) -> int:
    return int((await admin.call("ListJobs", api.ListJobsRequest())).total_count)


async def test_a_thousand_jobs_are_accepted_in_one_commit(house: House, admin: Caller) -> None:
    before = house.now.parts.driver.figures.commits_total
    answer = await admin.call("BatchSubmitJobs", _batch(1000))
    assert house.now.parts.driver.figures.commits_total == before + 1
    ids = [one.job.job_id for one in answer.results]
    assert len(set(ids)) == 1000
    assert await _total(admin) == 1000
    assert (await admin.job(ids[7])).name == "job 7"


async def test_the_good_ones_are_accepted_and_the_others_named(admin: Caller) -> None:
    answer = await admin.call("BatchSubmitJobs", _batch(4, 1, 2))
    assert _codes(answer) == ["", "INVALID_ARGUMENT", "INVALID_ARGUMENT", ""]
    assert [one.field for one in answer.results[1].error.details] == ["resource_config.gpu_count"]
    assert await _total(admin) == 2


async def test_an_atomic_batch_is_accepted_whole_or_not_at_all(admin: Caller) -> None:
    answer = await admin.call("BatchSubmitJobs", _batch(3, 1, atomic=True))
    assert _codes(answer) == ["BATCH_REFUSED", "INVALID_ARGUMENT", "BATCH_REFUSED"]
    assert await _total(admin) == 0
    answer = await admin.call("BatchSubmitJobs", _batch(3, atomic=True))
    assert _codes(answer) == ["", "", ""]


async def test_what_the_cluster_can_never_run_is_refused_by_itself(
    agent: FakeAgent, admin: Caller
) -> None:
    batch = _batch(2)
    batch.jobs[1].resource_config.gpu_count = 64
    answer = await admin.call("BatchSubmitJobs", batch)
    assert _codes(answer) == ["", "NEVER_FITS"]
    batch.atomic = True
    answer = await admin.call("BatchSubmitJobs", batch)
    assert _codes(answer) == ["BATCH_REFUSED", "NEVER_FITS"]


async def test_the_same_request_gives_the_same_jobs_and_another_body_is_refused(
    admin: Caller,
) -> None:
    batch = _batch(3, request_id="once")
    first = await admin.call("BatchSubmitJobs", batch)
    assert await admin.call("BatchSubmitJobs", batch) == first
    assert await _total(admin) == 3
    fault = await admin.refused("BatchSubmitJobs", _batch(2, request_id="once"))
    assert fault.reason == "REQUEST_ID_REUSED"


async def test_a_job_of_a_batch_that_is_only_to_be_checked_is_not_accepted(admin: Caller) -> None:
    batch = _batch(2)
    batch.jobs[0].validate_only = True
    answer = await admin.call("BatchSubmitJobs", batch)
    assert answer.results[0].job.job_id == ""
    assert answer.results[1].job.job_id
    assert await _total(admin) == 1
