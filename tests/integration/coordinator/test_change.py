"""Live jobs are changed: one, or all that match, in one commit."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House

Job, Act = job_pb2.Job, api.ActOnJobsRequest


def labelled(name: str, team: str = "nlp") -> dict[str, Any]:
    return {"name": name, "labels": {"team": team}}


async def order(admin: Caller) -> list[str]:
    """The names of the jobs that wait, as they stand in line."""
    queues = (await admin.call("GetQueue", api.GetQueueRequest())).queues
    return [job.name for queue in queues for job in queue.jobs]


async def test_a_job_that_waits_goes_first_once_its_priority_says_so(admin: Caller) -> None:
    ids = [await admin.submit({"name": name}) for name in ("a", "b", "c")]
    change = api.UpdateJobRequest(job_id=ids[2], priority=9, max_runtime_seconds=60)
    changed = await admin.call("UpdateJob", change)
    assert (changed.priority, changed.training_config.priority) == (9, 9)
    assert changed.resource_config.max_runtime_seconds == 60
    assert (await admin.job(ids[2])).resource_config.max_runtime_seconds == 60
    assert await order(admin) == ["c", "a", "b"]
    change = api.UpdateJobRequest(job_id=ids[2], queue_name="night", expected_duration_seconds=9)
    changed = await admin.call("UpdateJob", change)
    assert (changed.queue_name, changed.scheduling_config.queue_name) == ("night", "night")
    assert changed.scheduling_config.expected_duration_seconds == 9
    assert changed.priority == 9, "what is not given stays"


async def test_asked_only_nothing_is_changed(admin: Caller) -> None:
    job_id = await admin.submit()
    change = api.UpdateJobRequest(job_id=job_id, priority=9, validate_only=True)
    assert (await admin.call("UpdateJob", change)).priority == 9
    job = await admin.job(job_id)
    assert (job.priority, job.version) == (5, 1)


async def test_what_has_ended_or_is_anothers_is_not_changed(house: House, admin: Caller) -> None:
    job_id = await admin.submit()
    await admin.call("CancelJob", api.CancelJobRequest(job_id=job_id))
    change = api.UpdateJobRequest(job_id=job_id, priority=9)
    refused = await admin.refused("UpdateJob", change)
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "WRONG_STATUS",
    )
    stranger = await house.caller("globex")
    assert (await stranger.refused("UpdateJob", change)).code is grpc.StatusCode.NOT_FOUND
    outside = await admin.refused("UpdateJob", api.UpdateJobRequest(job_id=job_id, priority=11))
    assert outside.fields == ("priority",)


async def test_all_that_match_are_changed_in_one_commit(house: House, admin: Caller) -> None:
    mine = [await admin.submit(labelled(f"m{n}")) for n in range(3)]
    other = await admin.submit(labelled("other", "vision"))
    stranger = await house.caller("globex")
    foreign = await stranger.submit(labelled("foreign"))
    before = house.now.parts.driver.figures.commits_total
    request = Act(
        action=Act.UPDATE,
        label=["team=nlp"],
        update=api.JobChange(priority=8),
        request_id="once",
    )
    answer = await admin.call("ActOnJobs", request)
    assert house.now.parts.driver.figures.commits_total == before + 1
    assert [one.job_id for one in answer.results] == mine
    assert not answer.more
    assert [(await admin.job(id)).priority for id in (*mine, other)] == [8, 8, 8, 5]
    assert (await stranger.job(foreign)).priority == 5
    assert await admin.call("ActOnJobs", request) == answer, "the same request, the same answer"
    assert house.now.parts.driver.figures.commits_total == before + 1


async def test_each_has_an_outcome_of_its_own(admin: Caller, agent: FakeAgent) -> None:
    waits = await admin.submit(labelled("waits"), gpu_count=4)
    held = await admin.submit(labelled("held"), gpu_count=4)
    await admin.call("PauseJob", api.PauseJobRequest(job_id=held))
    asked = Act(action=Act.RESUME, label=["team=nlp"], validate_only=True)
    told = await admin.call("ActOnJobs", asked)
    assert {one.job_id for one in told.results} == {waits, held}
    assert (await admin.job(held)).status == Job.PAUSED, "only asked"
    answer = await admin.call("ActOnJobs", Act(action=Act.RESUME, label=["team=nlp"]))
    outcome = {one.job_id: (Job.Status.Name(one.status), one.error.code) for one in answer.results}
    assert outcome == {waits: ("SCHEDULING", "WRONG_STATUS"), held: ("QUEUED", "")}
    cancelled = Act(action=Act.CANCEL, name_prefix="h", status=[Job.QUEUED])
    answer = await admin.call("ActOnJobs", cancelled)
    assert [(one.job_id, one.status) for one in answer.results] == [(held, Job.CANCELLED)]


async def test_a_selector_that_says_nothing_is_refused(admin: Caller) -> None:
    await admin.submit()
    for request, field in (
        (Act(action=Act.CANCEL), "label"),
        (Act(label=["a=b"]), "action"),
        (Act(action=Act.UPDATE, label=["a=b"]), "update"),
        (Act(action=Act.CANCEL, label=["a=b"], update=api.JobChange(priority=1)), "update"),
    ):
        refused = await admin.refused("ActOnJobs", request)
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (field,))
    over = Act(action=Act.CANCEL, status=[Job.COMPLETED])
    assert not (await admin.call("ActOnJobs", over)).results, "what has ended is not acted upon"


async def test_a_job_that_ends_before_its_turn_tells_so_and_not_that_it_is_unknown(
    house: House, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await admin.submit(labelled("ends"))
    waits = await admin.submit(labelled("waits"))
    store = house.now.parts.store
    look = store.list_jobs

    async def look_too_early(*args: Any, **fields: Any) -> Any:
        page = await look(*args, **fields)
        monkeypatch.undo()
        await admin.call("CancelJob", api.CancelJobRequest(job_id=ended))
        return page

    monkeypatch.setattr(store, "list_jobs", look_too_early)
    answer = await admin.call("ActOnJobs", Act(action=Act.PAUSE, label=["team=nlp"]))
    told = [(one.job_id, Job.Status.Name(one.status), one.error.code) for one in answer.results]
    assert told == [(ended, "CANCELLED", "WRONG_STATUS"), (waits, "PAUSED", "")]
