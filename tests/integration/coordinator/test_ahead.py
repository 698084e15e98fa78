"""Agents hear of jobs for which devices of their node are set aside, and of what these name; what they hold
is waited for."""

from __future__ import annotations

from typing import Any

from scaimind.service.reach.keys import key_of
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House
from tests.support.jobs import body

DATA = "https://data.example.org/train.jsonl"
RATE = 100_000_000  # bytes per second
FETCH_S = 600
SOON_S = 100


def naming(uri: str, *, name: str = "waits") -> dict[str, Any]:
    """A job of all devices of the node that reads something."""
    given = body("/train.py", name=name, gpu_count=2)
    given["data_config"] = {"sources": [{"path": uri}], "batch_size": 7}
    return given


async def test_what_a_job_names_for_which_devices_are_set_aside_is_told_until_it_is_granted(
    admin: Caller, agent: FakeAgent
) -> None:
    del agent.offer.devices[2:]
    await agent.sync()
    running = [await admin.submit(gpu_count=1) for _ in range(2)]
    for lease_id in await agent.granted(2):
        await agent.runs(lease_id)
    waiting = await admin.submit(naming(DATA))
    await admin.submit(naming(DATA, name="later"))
    answer = await agent.until(lambda answer: bool(answer.expected))
    (spec,) = answer.expected
    assert (spec.job_id, spec.tenant_id) == (waiting, "local")
    assert [one.path for one in spec.job.data_config.sources] == [DATA]
    assert (spec.job.name, spec.job.data_config.batch_size) == ("", 0), "no more than it names"
    assert not (await agent.sync()).expected, "once told is enough"
    assert len((await agent.sync(seen_revision=0)).expected) == 1
    for job_id in running:
        await agent.ends(f"{job_id}.1.0")
    answer = await agent.until(
        lambda answer: f"{waiting}.1.0" in [one.lease_id for one in answer.leases]
    )
    assert waiting not in [one.job_id for one in answer.expected]


async def test_a_job_that_names_nothing_elsewhere_is_not_told(
    admin: Caller, agent: FakeAgent
) -> None:
    del agent.offer.devices[2:]
    await agent.sync()
    for _ in range(2):
        await admin.submit(gpu_count=1)
    for lease_id in await agent.granted(2):
        await agent.runs(lease_id)
    job_id = await admin.submit(naming("/data/train.jsonl"))
    job = await admin.job(job_id)
    assert "set aside" in job.status_reason.message
    assert not (await agent.sync(seen_revision=0)).expected


async def test_a_job_behind_a_single_attempt_is_told_to_the_node_of_that_one(
    admin: Caller, agent: FakeAgent
) -> None:
    del agent.offer.devices[2:]
    await agent.sync()
    await admin.submit(gpu_count=2)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    waiting = await admin.submit(naming(DATA))
    answer = await agent.until(lambda answer: bool(answer.expected))
    assert [one.job_id for one in answer.expected] == [waiting]
    await admin.call("CancelJob", api.CancelJobRequest(job_id=waiting))
    assert not (await agent.sync(seen_revision=0)).expected


async def test_a_job_whose_data_take_long_to_fetch_waits_for_the_node_that_holds_them(
    house: House, admin: Caller, agent: FakeAgent
) -> None:
    agent.offer.holds.append(key_of(DATA))
    agent.offer.holds_bytes.append(FETCH_S * RATE)
    agent.offer.fetch_bytes_per_s = RATE
    await agent.sync()
    soon = {"scheduling_config": {"expected_duration_seconds": SOON_S}}
    running = await admin.submit(soon, gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    free = FakeAgent(house.agents, "n2")
    await free.sync()
    waiting = await admin.submit(naming(DATA))
    found = await admin.call("ExplainJob", api.ExplainJobRequest(job_id=waiting))
    assert [one.code for one in found.blockers] == ["DATA_AWAITED"]
    assert 0 < found.eta_p50_seconds <= SOON_S
    assert "n1" in (await admin.job(waiting)).status_reason.message
    answer = await agent.until(lambda answer: bool(answer.expected))
    assert [one.job_id for one in answer.expected] == [waiting], "it is to be kept there"
    assert not (await free.sync(seen_revision=0)).expected
    other = await admin.submit(gpu_count=4)
    assert await free.granted() == [f"{other}.1.0"]
    await agent.ends(f"{running}.1.0")
    await agent.until(lambda answer: f"{waiting}.1.0" in [one.lease_id for one in answer.leases])
