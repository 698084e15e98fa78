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


async def test_what_does_not_fit_the_schema_refuses_only_the_job_that_it_is_in(
    admin: Caller,
) -> None:
    batch = _batch(5, request_id="some")
    batch.jobs[1].name = ""
    batch.jobs[1].labels["a=b"] = "c"
    batch.jobs[2].Clear()
    batch.jobs[3].training_config.training_type = 99  # type: ignore[assignment]
    for number in range(100):
        batch.jobs[3].labels[f"{number}=" + "long" * 50] = ""
    answer = await admin.call("BatchSubmitJobs", batch)
    assert _codes(answer) == ["", *["INVALID_ARGUMENT"] * 3, ""]
    assert await _total(admin) == 2
    for number in (1, 2, 3):
        fault = await admin.refused("SubmitJob", batch.jobs[number])
        error = answer.results[number].error
        assert (error.code, error.message) == (fault.reason, fault.text)
        assert tuple(one.field for one in error.details) == fault.fields
    assert [one.field for one in answer.results[1].error.details] == ["name", 'labels["a=b"]']
    assert await admin.call("BatchSubmitJobs", batch) == answer
    assert await _total(admin) == 2


async def test_a_batch_of_which_nothing_fits_is_answered_like_any_other(admin: Caller) -> None:
    batch = api.BatchSubmitJobsRequest(jobs=[api.SubmitJobRequest()] * 1000, request_id="none")
    answer = await admin.call("BatchSubmitJobs", batch)
    assert {*_codes(answer)} == {"INVALID_ARGUMENT"}
    assert len(answer.results) == 1000
    assert all(one.error.details for one in answer.results)
    assert await admin.call("BatchSubmitJobs", batch) == answer
    fault = await admin.refused("BatchSubmitJobs", _batch(2, request_id="none"))
    assert fault.reason == "REQUEST_ID_REUSED"


async def test_what_is_told_of_a_thousand_bad_jobs_fits_into_one_answer(admin: Caller) -> None:
    batch = _batch(1000)
    for job in batch.jobs:
        job.name = "n" * 300
        for number in range(9):
            job.labels[f"{number}=" + "世" * 120] = ""
    answer = await admin.call("BatchSubmitJobs", batch)
    assert all(one.error.details for one in answer.results)
    assert answer.ByteSize() < 4 << 20


async def test_what_does_not_fit_the_schema_refuses_an_atomic_batch_as_a_whole(
    admin: Caller,
) -> None:
    batch = _batch(4, atomic=True)
    batch.jobs[1].name = ""
    batch.jobs[3].ClearField("data_config")
    fault = await admin.refused("BatchSubmitJobs", batch)
    assert fault.reason == "INVALID_ARGUMENT"
    assert fault.fields == ("jobs[1].name", "jobs[3].data_config")
    assert await _total(admin) == 0


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
