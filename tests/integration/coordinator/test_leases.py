"""Agents: what they are told, when, and what their reports make of jobs."""

from __future__ import annotations

import asyncio

import grpc

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import HOLD_MS, FakeAgent
from tests.integration.coordinator.house import Caller, House
from tests.support.jobs import body

Job = job_pb2.Job


async def test_a_lease_is_granted_within_one_held_call(agent: FakeAgent, admin: Caller) -> None:
    held = asyncio.create_task(agent.sync(hold_ms=HOLD_MS))
    await asyncio.sleep(0)
    job_id = await admin.submit(gpu_count=2)
    answer = await held
    (lease,) = answer.leases
    assert lease.action == agent_api.DesiredLease.RUN
    spec = lease.spec
    assert (spec.job_id, spec.tenant_id, spec.attempt) == (job_id, "local", 1)
    assert (spec.first_rank, spec.local_world_size, spec.world_size) == (0, 2, 2)
    assert list(spec.device_ids) == ["n1-d0", "n1-d1"]
    assert (spec.node_count, spec.master_port, spec.master_address) == (1, 0, "127.0.0.1")
    assert spec.job.training_config.framework.custom_script_path == "/train.py"
    assert spec.job.name == "test"


async def test_a_job_walks_from_queued_to_completed(agent: FakeAgent, admin: Caller) -> None:
    job_id = await admin.submit()
    seen = [(await admin.job(job_id)).status]
    (lease_id,) = await agent.granted()
    for state in (agent_api.ACCEPTED, agent_api.PREPARING, agent_api.RUNNING):
        await agent.reports(lease_id, state)
        seen.append((await admin.job(job_id)).status)
    await agent.reports(lease_id, agent_api.RUNNING, checkpointing=True)
    seen.append((await admin.job(job_id)).status)
    point = job_pb2.Checkpoint(checkpoint_id="c1", step=5, uri="file:///c1", size_bytes=9)
    await agent.reports(lease_id, agent_api.RUNNING, checkpoints=[point])
    seen.append((await admin.job(job_id)).status)
    await agent.reports(
        lease_id, agent_api.ENDED, done=True, output_model_uri="file:///m", checkpoints=[point]
    )
    job = await admin.job(job_id)
    assert [*seen, job.status] == [
        Job.SCHEDULING,
        Job.PREPARING,
        Job.PREPARING,
        Job.TRAINING,
        Job.CHECKPOINTING,
        Job.TRAINING,
        Job.COMPLETED,
    ]
    assert (job.output_model_uri, job.progress, job.attempts_count) == ("file:///m", 100.0, 1)
    assert [one.checkpoint_id for one in job.checkpoints] == ["c1"]
    assert job.started_at.seconds
    assert job.completed_at.seconds


async def test_the_spec_is_sent_until_the_lease_is_reported_and_not_after(
    agent: FakeAgent, admin: Caller
) -> None:
    await admin.submit()
    (lease_id,) = await agent.granted()
    for _ in range(2):
        (lease,) = (await agent.sync()).leases
        assert lease.HasField("spec")
    agent.observe(lease_id, agent_api.ACCEPTED)
    (lease,) = (await agent.sync()).leases
    assert not lease.HasField("spec")
    assert lease.action == agent_api.DesiredLease.RUN


async def test_a_call_is_held_while_nothing_changes_and_answered_after_the_hold(
    agent: FakeAgent,
) -> None:
    loop = asyncio.get_running_loop()
    began, revision = loop.time(), agent.desired.revision
    answer = await agent.sync(hold_ms=200)
    assert loop.time() - began >= 0.19
    assert answer.revision == revision


async def test_a_call_with_an_old_revision_is_answered_at_once(
    agent: FakeAgent, admin: Caller
) -> None:
    await admin.submit()
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await agent.sync(hold_ms=60_000, seen_revision=0)
    assert (len(answer.leases), loop.time() - began < 30) == (1, True)


async def test_reports_of_progress_do_not_answer_the_held_call(
    agent: FakeAgent, admin: Caller
) -> None:
    await admin.submit()
    (lease_id,) = await agent.granted()
    revision = agent.desired.revision
    await agent.runs(lease_id)
    assert agent.desired.revision == revision


async def test_a_newer_call_answers_the_older_one(agent: FakeAgent) -> None:
    older = asyncio.create_task(agent.sync(hold_ms=60_000))
    await asyncio.sleep(0.1)
    newer = asyncio.create_task(agent.sync(hold_ms=60_000))
    async with asyncio.timeout(30):
        await older
    newer.cancel()


async def test_a_late_report_changes_nothing(agent: FakeAgent, admin: Caller) -> None:
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    late = agent.request()
    await agent.runs(lease_id)
    late.leases.append(agent_api.ObservedLease(lease_id=lease_id, epoch=1, state=agent_api.ENDED))
    await agent.caller.call("Sync", late)
    assert (await admin.job(job_id)).status == Job.TRAINING


async def test_an_agent_that_was_replaced_is_told_so_and_changes_nothing(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    newer = FakeAgent(house.agents, generation=2)
    newer.observed, newer.desired = dict(agent.observed), agent.desired
    await newer.sync()
    del agent.observed[lease_id]
    answer = await agent.sync()
    assert answer.superseded
    assert not answer.leases
    assert (await admin.job(job_id)).status == Job.TRAINING


async def test_a_cancelled_job_is_stopped_with_its_grace_and_frees_its_devices_at_the_end(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit({"scheduling_config": {"checkpoint_grace_seconds": 7}}, gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    cancelled = await admin.call("CancelJob", api.CancelJobRequest(job_id=job_id))
    assert cancelled.status == Job.CANCELLED
    (lease,) = (await agent.sync()).leases
    assert (lease.action, lease.grace_ms) == (agent_api.DesiredLease.STOP, 7_000)
    next_id = await admin.submit(gpu_count=4)
    assert (await admin.job(next_id)).status == Job.QUEUED
    await agent.ends(lease_id)
    (next_lease,) = await agent.granted()
    assert next_lease.startswith(next_id)


async def test_a_failure_is_told_and_tried_again_as_often_as_was_asked(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit({"training_config": retrying(1)})
    (first,) = await agent.granted()
    await agent.runs(first)
    await agent.ends(first, exit_code=3)
    job = await admin.job(job_id)
    assert (job.status, job.error.exit_code) == (Job.QUEUED, 3)
    del agent.observed[first]
    await agent.until(lambda answer: any(one.lease_id != first for one in answer.leases))
    (second,) = [one for one in agent.lease_ids if one != first]
    assert agent.specs[second].attempt == 2
    await agent.runs(second)
    await agent.ends(second, exit_code=4)
    job = await admin.job(job_id)
    assert (job.status, job.error.exit_code, job.attempts_count) == (Job.FAILED, 4, 2)
    assert job.status_reason.code == "RANK_FAILED"


async def test_a_gang_is_placed_over_nodes_with_one_rendezvous(house: House, admin: Caller) -> None:
    agents = [FakeAgent(house.agents, name, devices=2) for name in ("n1", "n2")]
    for one in agents:
        await one.sync()
    job_id = await admin.submit(gpu_count=4, node_count=2)
    specs = []
    for one in agents:
        (lease_id,) = await one.granted()
        specs.append(one.specs[lease_id])
    assert [spec.node_rank for spec in specs] == [0, 1]
    assert [spec.first_rank for spec in specs] == [0, 2]
    assert len({(spec.master_address, spec.master_port) for spec in specs}) == 1
    assert specs[0].master_port
    await agents[0].runs(agents[0].lease_ids[0])
    assert (await admin.job(job_id)).status == Job.SCHEDULING
    await agents[1].runs(agents[1].lease_ids[0])
    assert (await admin.job(job_id)).status == Job.TRAINING


async def test_an_unknown_lease_is_not_desired(agent: FakeAgent) -> None:
    agent.observed["job_x.1.0"] = agent_api.ObservedLease(
        lease_id="job_x.1.0", epoch=1, state=agent_api.RUNNING
    )
    assert not (await agent.sync()).leases


async def test_leases_that_nobody_knows_alarm_admins_and_keep_their_node_and_job_waiting(
    agent: FakeAgent, admin: Caller
) -> None:
    await agent.sync()
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    agent.observed[lease_id].epoch -= 1  # as if it had been granted in another life
    agent.observed[f"other.{lease_id}"] = agent_api.ObservedLease(
        lease_id=f"other.{lease_id}", epoch=1, state=agent_api.RUNNING
    )
    await agent.sync()
    cluster = await admin.call("GetCluster", api.GetClusterRequest())
    (alarm,) = cluster.alarms
    assert (alarm.code, alarm.node_id) == ("LEASES_UNKNOWN", "n1")
    assert f"{lease_id}, other.{lease_id}" in alarm.message
    second = await admin.submit()
    explained = await admin.call("ExplainJob", api.ExplainJobRequest(job_id=second))
    assert [(one.node_id, one.code) for one in explained.nodes] == [("n1", "LEASES_UNKNOWN")]
    agent.observed.clear()
    await agent.sync()
    await agent.granted(2)
    assert not (await admin.call("GetCluster", api.GetClusterRequest())).alarms
    assert {agent.specs[one].job_id for one in agent.lease_ids} == {second, job_id}


async def test_what_only_a_newer_agent_knows_is_passed_over_and_frees_nothing(
    agent: FakeAgent, admin: Caller
) -> None:
    await agent.sync()
    job_id = await admin.submit(gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    lease = agent.observed[lease_id]
    lease.MergeFromString(b"\xc2\x3e\x05later")  # field 1000, which is not known here
    agent.observed[lease_id].ClearField("state")
    lease.MergeFromString(b"\x18\x63")  # the state 99
    assert lease.state == 99
    await agent.sync()
    assert (await admin.job(job_id)).status == job_pb2.Job.TRAINING
    later = await admin.submit(gpu_count=4)
    await agent.sync()
    assert (await admin.job(later)).status == job_pb2.Job.QUEUED
    await agent.ends(lease_id)
    assert (await admin.job(job_id)).status == job_pb2.Job.COMPLETED


async def test_an_offer_that_is_no_good_is_refused_and_changes_nothing(
    agent: FakeAgent, admin: Caller
) -> None:
    twice = agent.request()
    twice.offer.devices[1].device_id = twice.offer.devices[0].device_id
    nameless = agent.request()
    nameless.offer.devices[0].device_id = ""
    no_offer = agent.request()
    no_offer.ClearField("offer")
    for request in (twice, nameless, no_offer):
        fault = await agent.caller.refused("Sync", request)
        assert fault.code is grpc.StatusCode.INVALID_ARGUMENT
        assert fault.fields[0].startswith("offer")
    await agent.sync()


async def test_times_that_are_none_do_no_harm(agent: FakeAgent, admin: Caller) -> None:
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.reports(lease_id, agent_api.ACCEPTED)
    lease = agent.observe(lease_id, agent_api.RUNNING)
    lease.ranks[0].started_at.seconds = 1 << 60
    lease.checkpoints.add(checkpoint_id="c", uri="u").created_at.nanos = -7
    await agent.sync()
    assert (await admin.job(job_id)).status == Job.TRAINING


def retrying(times: int) -> dict[str, object]:
    """A training config that allows so many retries."""
    return {**body("/train.py")["training_config"], "max_retries": times}


async def test_shares_of_one_device_are_granted_beside_each_other(
    agent: FakeAgent, admin: Caller
) -> None:
    half = await admin.submit(gpu_count=1, gpu_fraction=0.5)
    third = await admin.submit(gpu_count=1, gpu_fraction=0.3, gpu_type="H100|A100|CPU|L4")
    answer = await agent.until(lambda answer: len(answer.leases) == 2)
    found = {lease.spec.job_id: lease.spec for lease in answer.leases}
    assert found[half].device_ids == found[third].device_ids
    assert [found[half].device_thousandths, found[third].device_thousandths] == [500, 300]
    (device,) = (await admin.job(third)).attempt.devices
    assert device.fraction == 0.3
    node = await admin.call("GetNode", api.GetNodeRequest(node_id="n1"))
    shown = next(one for one in node.devices if one.device_id == device.device_id)
    assert (round(shown.free_fraction, 3), shown.job_id) == (0.2, min(half, third))
