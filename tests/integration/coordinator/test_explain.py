"""Why a job waits, when it starts and what would help: asked over gRPC, answered by the forecaster."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime

import pytest

from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.core.records import Considered, Ruling
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import ALL, Caller, House, a_submit, eventually
from tests.integration.coordinator.test_cluster import priority

Job = job_pb2.Job
HOUR_S = 3600


async def explained(caller: Caller, job_id: str) -> api.ExplainJobResponse:
    answer = await caller.call("ExplainJob", api.ExplainJobRequest(job_id=job_id))
    assert isinstance(answer, api.ExplainJobResponse)
    return answer


def lasting(seconds: int) -> dict[str, object]:
    return {"scheduling_config": {"expected_duration_seconds": seconds}}


async def two_jobs(admin: Caller, agent: FakeAgent) -> tuple[str, str]:
    """One that runs for an hour on three of four devices, and one that waits for all four."""
    first = await admin.submit(lasting(HOUR_S), gpu_count=3)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    return first, await admin.submit(gpu_count=4)


async def test_a_waiting_job_is_told_why_when_and_what_would_help(
    agent: FakeAgent, admin: Caller
) -> None:
    running, waiting = await two_jobs(admin, agent)
    found = await explained(admin, waiting)
    assert (list(found.after_job_ids), found.after_jobs_count) == ([running], 1)
    assert found.status == Job.QUEUED
    assert [one.code for one in found.blockers] == ["DEVICES_BUSY"]
    assert found.blockers[0].message == "it needs 4 x CPU; 1 of 4 is free"
    assert found.position == 1
    assert HOUR_S - 60 < found.eta_p50_seconds <= HOUR_S + 60
    assert found.eta_p90_seconds >= found.eta_p50_seconds
    assert [(one.node_id, one.fits, one.code) for one in found.nodes] == [("n1", True, "")]
    assert [one.change for one in found.counterfactuals] == ["gpu_count=1"]
    assert found.counterfactuals[0].eta_seconds == 0


async def test_its_record_tells_the_wait_that_was_said_when_it_was_accepted_then_that_of_an_answer(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    await two_jobs(admin, agent)
    answer = await admin.call("SubmitJob", a_submit(lasting(HOUR_S), gpu_count=4))
    told_s = (await admin.job(answer.job_id)).estimated_wait_seconds
    assert answer.estimated_wait_seconds - 60 < told_s <= answer.estimated_wait_seconds
    found = await explained(admin, answer.job_id)
    told_s = (await admin.job(answer.job_id)).estimated_wait_seconds
    assert house.now.parts.forecaster.looks == 0
    assert found.eta_p50_seconds - 60 < told_s <= found.eta_p50_seconds


async def test_another_queue_in_which_it_would_start_is_named(
    agent: FakeAgent, admin: Caller
) -> None:
    await agent.sync()
    await admin.call("SetQueue", api.SetQueueRequest(name="full", max_devices=1))
    there = {"queue_name": "full", "expected_duration_seconds": HOUR_S}
    wanted: dict[str, object] = {"scheduling_config": there}
    await admin.submit(wanted)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    waiting = await admin.submit(wanted)
    found = await explained(admin, waiting)
    assert [one.code for one in found.blockers] == ["QUEUE_LIMIT"]
    assert "queue_name=default" in [one.change for one in found.counterfactuals]


async def test_one_that_runs_or_has_ended_waits_for_nothing(
    agent: FakeAgent, admin: Caller
) -> None:
    running, waiting = await two_jobs(admin, agent)
    found = await explained(admin, running)
    assert (found.status, list(found.blockers), found.position) == (Job.TRAINING, [], 0)
    await admin.call("CancelJob", api.CancelJobRequest(job_id=waiting))
    assert (await explained(admin, waiting)).status == Job.CANCELLED


async def test_the_forecaster_follows_what_changes(agent: FakeAgent, admin: Caller) -> None:
    _, waiting = await two_jobs(admin, agent)
    before = await explained(admin, waiting)
    other = await admin.submit(priority(9), gpu_count=4)
    found = await explained(admin, waiting)
    assert found.position == 2
    assert [one.code for one in found.blockers] == ["DEVICES_BUSY", "JOBS_AHEAD"]
    assert found.eta_p50_seconds > before.eta_p50_seconds
    await admin.call("CancelJob", api.CancelJobRequest(job_id=other))
    assert (await explained(admin, waiting)).position == 1


async def test_another_tenants_job_is_not_found(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    _, waiting = await two_jobs(admin, agent)
    stranger = await house.caller("other", "VIEW")
    fault = await stranger.refused("ExplainJob", api.ExplainJobRequest(job_id=waiting))
    assert fault.reason == "JOB_NOT_FOUND"


async def test_a_forecaster_that_is_killed_is_started_again(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    _, waiting = await two_jobs(admin, agent)
    before = await explained(admin, waiting)
    forecaster = house.now.parts.forecaster
    assert forecaster.pid is not None
    os.kill(forecaster.pid, signal.SIGKILL)
    await eventually(lambda: forecaster.pid is None)
    after = await explained(admin, waiting)
    assert after.position == before.position


async def test_what_waits_for_a_while_shows_its_wait_wherever_it_is_read(
    agent: FakeAgent, admin: Caller
) -> None:
    _, waiting = await two_jobs(admin, agent)

    async def wait_s() -> float:
        return float((await admin.job(waiting)).estimated_wait_seconds)

    async with asyncio.timeout(90):
        while not await wait_s():
            await agent.sync(hold_ms=200)
    assert HOUR_S - 120 < await wait_s() <= HOUR_S + 60
    queue = await admin.call("GetQueue", api.GetQueueRequest())
    assert queue.queues[0].jobs[0].estimated_wait_seconds > HOUR_S - 120


async def test_a_submit_is_answered_with_the_wait_as_far_as_it_is_known_at_once(
    agent: FakeAgent, admin: Caller
) -> None:
    await two_jobs(admin, agent)
    behind = a_submit(lasting(HOUR_S), gpu_count=2)
    answer = await admin.call("SubmitJob", behind)
    later_s = answer.estimated_wait_seconds
    assert later_s > HOUR_S - 60, "not before the one that waits for all devices has ended"
    many = await admin.call("BatchSubmitJobs", api.BatchSubmitJobsRequest(jobs=[behind] * 3))
    waits_s = [one.job.estimated_wait_seconds for one in many.results]
    assert min(waits_s) == max(waits_s) > later_s - 60
    held = a_submit({"scheduling_config": {"depends_on": [answer.job_id]}})
    assert not (await admin.call("SubmitJob", held)).HasField("estimated_wait_seconds")
    in_an_hour = datetime.fromtimestamp(time.time() + HOUR_S, UTC).isoformat()
    timed = a_submit({"scheduling_config": {"start_after": in_an_hour}})
    told_s = (await admin.call("SubmitJob", timed)).estimated_wait_seconds
    assert HOUR_S - 60 < told_s <= HOUR_S + 1


async def test_a_submit_begins_no_look_ahead_however_long_others_wait(
    house: House, agent: FakeAgent, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.runtime.forecaster.PATIENCE_MS", 0)
    _, waiting = await two_jobs(admin, agent)
    submit = a_submit(lasting(HOUR_S), gpu_count=4)
    assert (await admin.call("SubmitJob", submit)).HasField("estimated_wait_seconds")
    await admin.call("BatchSubmitJobs", api.BatchSubmitJobsRequest(jobs=[submit] * 3))
    forecaster = house.now.parts.forecaster
    await asyncio.sleep(0.1)
    assert (forecaster.pid, forecaster.looks) == (None, 0)
    await admin.job(waiting)
    await eventually(lambda: forecaster.pid is not None)


async def test_who_was_preempted_is_told_why_and_of_other_tenants_no_names(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    ada, eve = [await house.caller(tenant, *ALL) for tenant in ("acme", "other")]
    mine, also_mine = [await ada.submit() for _ in range(2)]
    theirs = await eve.submit({"scheduling_config": {"queue_name": "secret"}})
    told = [
        Considered(
            job_id=mine,
            attempt=1,
            rule="PRIORITY",
            loss_ms=9_000,
            goes=True,
            awaited_ms=1_700_000_240_000,
            instead=(1, 2),
        ),
        Considered(job_id=also_mine, attempt=2, rule="LESS_TO_DO", loss_ms=12_000, goes=False),
        Considered(job_id=theirs, attempt=1, rule="GUARANTEE", loss_ms=15_000, goes=False),
    ]
    ruling = Ruling(
        job_id=theirs,
        at_ms=1_700_000_000_000,
        queue_name="secret",
        priority=9,
        devices_milli=2_000,
        node_ids=("n1",),
        considered=tuple(told),
    )
    house.now.parts.driver.view.apply(
        [Changed(record=ruling, cause=Reason.RULED, actor="core", at_ms=ruling.at_ms)]
    )
    [found] = (await explained(ada, mine)).preemptions
    assert (found.rule, found.attempt, found.at.seconds) == ("PRIORITY", 1, 1_700_000_000)
    assert (found.for_job_id, found.for_queue_name, found.for_priority) == ("", "", 9)
    assert (found.lost_device_seconds, found.for_devices) == (9, 2)
    assert found.checkpoint_awaited_until.seconds == 1_700_000_240
    assert (found.others_count, [one.job_id for one in found.others]) == (2, [also_mine])
    assert found.decided_again == "SAME"
    kept = found.would_have_stayed
    assert [one.change for one in kept] == ["priority=10", "preemptible=false"]
    assert {(*one.instead_job_ids, one.instead_count) for one in kept} == {(also_mine, 2)}
    await ada.call("CancelJob", api.CancelJobRequest(job_id=mine))
    [found] = (await explained(ada, mine)).preemptions
    assert found.node_ids == ["n1"], "also after it has ended"
    assert not (await explained(ada, also_mine)).preemptions


async def test_who_had_to_leave_a_drained_node_is_told_which_and_why_and_operators_who_drained_it(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    ada = await house.caller("acme", *ALL)
    for caller, actor in ((ada, ""), (admin, "root")):
        job_id = await caller.submit()
        told = Considered(job_id=job_id, attempt=1, rule="DRAIN", loss_ms=3_000, goes=True)
        ruling = Ruling(
            job_id="",
            at_ms=1_700_000_000_000,
            queue_name="",
            priority=0,
            devices_milli=0,
            node_ids=("n1",),
            considered=(told,),
            reason="disks",
            actor="root",
        )
        house.now.parts.driver.view.apply(
            [Changed(record=ruling, cause=Reason.RULED, actor="core", at_ms=ruling.at_ms)]
        )
        [found] = (await explained(caller, job_id)).preemptions
        assert (found.rule, found.reason, found.actor) == ("DRAIN", "disks", actor)
        assert (found.for_job_id, found.lost_device_seconds) == ("", 3)
        assert not found.HasField("checkpoint_awaited_until")
        assert found.node_ids == ["n1"]
        assert (found.decided_again, list(found.would_have_stayed)) == ("SAME", [])
