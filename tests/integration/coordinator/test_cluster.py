"""Nodes, drains, queues and totals."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from coordinator.rpc import cluster
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, node_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House
from tests.support.jobs import body

Job, Node = job_pb2.Job, node_pb2.Node


def drain(node_id: str = "n1", **fields: object) -> api.DrainNodeRequest:
    return api.DrainNodeRequest(node_id=node_id, **fields)  # type: ignore[arg-type]


async def node(admin: Caller, node_id: str = "n1") -> node_pb2.Node:
    found = await admin.call("GetNode", api.GetNodeRequest(node_id=node_id))
    assert isinstance(found, node_pb2.Node)
    return found


async def test_a_node_is_shown_as_its_agent_offers_it(agent: FakeAgent, admin: Caller) -> None:
    shown = await node(admin)
    assert (shown.status, shown.simulated, shown.address) == (Node.READY, True, "127.0.0.1")
    assert (shown.device_count, shown.free_device_count, shown.cpu_count) == (4, 4, 64)
    assert [device.device_id for device in shown.devices] == [f"n1-d{n}" for n in range(4)]
    assert shown.health.state == node_pb2.NodeHealth.HEALTHY
    assert shown.last_seen_at.seconds
    assert shown.joined_at.seconds


async def test_how_fast_a_node_fetches_is_shown_once_it_is_known(
    agent: FakeAgent, admin: Caller
) -> None:
    assert (await node(admin)).cache.fetch_bytes_per_s == 0
    agent.offer.fetch_bytes_per_s = 7 << 24
    await agent.sync()
    assert (await node(admin)).cache.fetch_bytes_per_s == 7 << 24
    (listed,) = (await admin.call("ListNodes", api.ListNodesRequest())).nodes
    assert listed.cache.fetch_bytes_per_s == 7 << 24


async def test_a_sick_device_is_shown_and_not_given_away(agent: FakeAgent, admin: Caller) -> None:
    agent.offer.devices[0].healthy = False
    await agent.sync()
    shown = await node(admin)
    assert shown.health.state == node_pb2.NodeHealth.SUSPECT
    assert "n1-d0" in shown.health.reasons[0]
    cluster = await admin.call("GetCluster", api.GetClusterRequest())
    assert (cluster.total_devices, cluster.free_devices) == (4, 3)


async def test_a_jobs_metrics_tell_what_the_devices_that_it_holds_measured_last(
    agent: FakeAgent, admin: Caller
) -> None:
    request = agent_api.ReportTelemetryRequest(
        node_id="n1", devices={"n1-d0": node_pb2.DeviceTelemetry(power_watts=300.0)}
    )
    await agent.caller.call("ReportTelemetry", request)
    job_id = await admin.submit(gpu_count=2)
    await agent.granted()
    answer = await admin.call("GetJobMetrics", api.GetJobMetricsRequest(job_id=job_id))
    assert [(one.node_id, one.device_id) for one in answer.devices] == [
        ("n1", "n1-d0"),
        ("n1", "n1-d1"),
    ]
    assert [one.telemetry.power_watts for one in answer.devices] == [300.0, 0.0]
    assert not answer.devices[1].HasField("telemetry")


async def test_telemetry_is_shown_with_its_node(agent: FakeAgent, admin: Caller) -> None:
    request = agent_api.ReportTelemetryRequest(
        node_id="n1",
        host=node_pb2.HostTelemetry(cpu_percent=50.0),
        devices={"n1-d1": node_pb2.DeviceTelemetry(power_watts=300.0)},
    )
    await agent.caller.call("ReportTelemetry", request)
    shown = await node(admin)
    assert shown.host.cpu_percent == 50.0
    assert [device.HasField("telemetry") for device in shown.devices] == [False, True, False, False]
    assert shown.devices[1].telemetry.power_watts == 300.0


async def test_totals_count_nodes_devices_and_jobs(house: House, agent: FakeAgent) -> None:
    big = FakeAgent(house.agents, "n2", devices=2)
    await big.sync()
    cluster = await house.admin.call("GetCluster", api.GetClusterRequest())
    assert (cluster.ready_nodes, cluster.free_nodes, cluster.free_devices) == (2, 2, 6)
    for _ in range(3):
        await house.admin.submit(gpu_count=2)
    await house.admin.submit(gpu_count=2)
    cluster = await house.admin.call("GetCluster", api.GetClusterRequest())
    assert (cluster.total_nodes, cluster.ready_nodes, cluster.free_nodes) == (2, 2, 0)
    assert (cluster.total_devices, cluster.free_devices) == (6, 0)
    assert dict(cluster.jobs_by_status) == {"SCHEDULING": 3, "QUEUED": 1}
    assert (cluster.queue_depth, cluster.simulated) == (1, True)
    (cpus,) = cluster.accelerators
    assert (cpus.type, cpus.total, cpus.free, cpus.simulated) == ("CPU", 6, 0, True)


async def test_nodes_are_listed_by_id_in_pages_and_by_status(house: House) -> None:
    for name in ("n3", "n1", "n2"):
        await FakeAgent(house.agents, name).sync()
    await house.admin.call("DrainNode", drain("n2"))
    request = api.ListNodesRequest(page_size=2)
    first = await house.admin.call("ListNodes", request)
    request.page_token = first.next_page_token
    second = await house.admin.call("ListNodes", request)
    assert [one.node_id for one in [*first.nodes, *second.nodes]] == ["n1", "n2", "n3"]
    assert (first.total_count, second.next_page_token) == (3, "")
    drained = await house.admin.call("ListNodes", api.ListNodesRequest(status_filter="drained"))
    assert [one.node_id for one in drained.nodes] == ["n2"]
    request.status_filter = "READY"
    fault = await house.admin.refused("ListNodes", request)
    assert fault.fields == ("page_token",)


@pytest.mark.parametrize("text", ["nope", "STATUS_UNSPECIFIED", "0", "\0"])
async def test_an_unknown_status_of_nodes_is_refused_and_the_known_ones_are_named(
    admin: Caller, text: str
) -> None:
    fault = await admin.refused("ListNodes", api.ListNodesRequest(status_filter=text))
    assert (fault.fields, "UNREACHABLE" in fault.text) == (("status_filter",), True)


async def test_a_drained_node_gets_nothing_new_until_it_is_enabled(
    agent: FakeAgent, admin: Caller
) -> None:
    running = await admin.submit(gpu_count=1)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    answer = await admin.call("DrainNode", drain(reason="new disks"))
    assert (answer.status, list(answer.running_job_ids)) == (Node.DRAINING, [running])
    waiting = await admin.submit(gpu_count=1)
    shown = await node(admin)
    assert (shown.status, shown.status_reason.message) == (Node.DRAINING, "new disks")
    assert (await admin.job(waiting)).status == Job.QUEUED
    await agent.ends(lease_id)
    assert (await node(admin)).status == Node.DRAINED
    assert (await admin.job(running)).status == Job.COMPLETED
    enabled = await admin.call("EnableNode", api.EnableNodeRequest(node_id="n1"))
    assert (enabled.status, enabled.drain_requested) == (Node.READY, False)
    assert (await admin.job(waiting)).status == Job.SCHEDULING


async def test_a_forced_drain_stops_what_runs_and_queues_it_again(
    agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await admin.call("DrainNode", drain(force=True))
    (lease,) = (await agent.sync()).leases
    assert (lease.action, lease.save) == (agent_api.DesiredLease.RUN, 1)
    checkpoint = job_pb2.Checkpoint(checkpoint_id="c1", step=1, uri="file:///c1")
    agent.observe(lease_id, agent_api.RUNNING, saved=1, checkpoints=[checkpoint])
    await agent.sync()
    (lease,) = (await agent.sync()).leases
    assert lease.action == agent_api.DesiredLease.STOP
    agent.observe(lease_id, agent_api.ENDED)
    await agent.sync()
    job = await admin.job(job_id)
    assert (job.status, job.attempts_count) == (Job.QUEUED, 1)


async def test_to_validate_a_drain_changes_nothing(agent: FakeAgent, admin: Caller) -> None:
    job_id = await admin.submit()
    await agent.granted()
    answer = await admin.call("DrainNode", drain(force=True, validate_only=True))
    assert list(answer.running_job_ids) == [job_id]
    assert (await node(admin)).status == Node.READY


@pytest.mark.parametrize(
    ("method", "request_of"),
    [
        ("GetNode", api.GetNodeRequest),
        ("DrainNode", api.DrainNodeRequest),
        ("GetDrain", api.GetDrainRequest),
        ("EnableNode", api.EnableNodeRequest),
    ],
)
async def test_an_unknown_node_is_not_found(
    admin: Caller, method: str, request_of: type[api.GetNodeRequest]
) -> None:
    fault = await admin.refused(method, request_of(node_id="nowhere"))
    assert (fault.code, fault.reason) == (grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND")


async def test_the_queue_is_told_in_the_order_in_which_jobs_would_start(
    house: House, agent: FakeAgent
) -> None:
    ann, other = await house.caller("acme"), await house.caller("other")
    await ann.submit(gpu_count=4)
    low = await ann.submit(priority(1), gpu_count=4)
    await other.submit(priority(9), gpu_count=4)
    high = await ann.submit(priority(8), gpu_count=4)
    answer = await ann.call("GetQueue", api.GetQueueRequest())
    (queue,) = answer.queues
    assert (answer.depth, answer.running, queue.queue_name) == (3, 1, "default")
    assert [(job.job_id, job.position) for job in queue.jobs] == [(high, 2), (low, 3)]
    assert queue.jobs[0].status_reason.code == "WAITING_FOR_CAPACITY"


async def test_a_paused_job_neither_waits_nor_runs(agent: FakeAgent, admin: Caller) -> None:
    running = await admin.submit(gpu_count=4)
    waiting = await admin.submit(gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    for job_id in (waiting, running):
        request = api.PauseJobRequest(job_id=job_id, save_checkpoint=False)
        await admin.call("PauseJob", request)
    await agent.reports(lease_id, agent_api.ENDED)
    assert (await admin.job(running)).status == Job.PAUSED
    (queue,) = (await admin.call("GetQueue", api.GetQueueRequest())).queues
    assert (queue.depth, queue.running, len(queue.jobs)) == (0, 0, 0)


async def test_an_answer_about_many_queues_is_bounded_and_still_counts_all(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "QUEUES_MAX", 3)
    monkeypatch.setattr(cluster, "QUEUE_JOBS_MAX", 6)
    monkeypatch.setattr(cluster, "QUEUE_JOBS_LEAST", 1)
    for number in range(16):
        await admin.submit({"scheduling_config": {"queue_name": f"q{number % 4}"}})
    answer = await admin.call("GetQueue", api.GetQueueRequest())
    assert answer.depth == 16
    assert [(one.queue_name, one.depth, len(one.jobs)) for one in answer.queues] == [
        ("q0", 4, 2),
        ("q1", 4, 2),
        ("q2", 4, 2),
    ]
    (one,) = (await admin.call("GetQueue", api.GetQueueRequest(queue_name="q3"))).queues
    assert [job.position for job in one.jobs] == [1, 2, 3, 4]


def priority(value: int) -> dict[str, object]:
    """A training config of this priority."""
    return {"training_config": {**body("/t.py")["training_config"], "priority": value}}


async def test_an_unknown_queue_is_empty(admin: Caller) -> None:
    answer = await admin.call("GetQueue", api.GetQueueRequest(queue_name="none"))
    assert [(one.queue_name, one.depth) for one in answer.queues] == [("none", 0)]


async def test_a_node_that_fell_silent_is_unreachable_and_comes_back(
    house: House, agent: FakeAgent, admin: Caller
) -> None:
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    clock = house.now.parts.clock
    for _ in range(6):  # all at once it would be the coordinator's own stall
        clock._now_ms = clock.now_ms() + 4_000
        await admin.submit()  # wakes the driver, which then sees the time
    async with asyncio.timeout(90):
        while (await node(admin)).status != Node.UNREACHABLE:
            pass
    assert (await admin.job(job_id)).status == Job.TRAINING
    await agent.sync()
    assert (await node(admin)).status == Node.READY
    assert (await admin.job(job_id)).status == Job.TRAINING
