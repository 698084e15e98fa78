"""Where the job says so, its ranks stop by themselves once the coordinator is out of reach."""

from __future__ import annotations

import json
import signal

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from tests.contract.runtimes.conftest import until_gone, until_holds
from tests.integration.node_agent.conftest import Agent, Script, lease
from tests.integration.node_agent.coordinator import Coordinator

AFTER_MS = 1800
FLAGS = ("--hold-ms", "200", "--devices", "sim:8xH100")


def fenced(desired: agent_pb2.DesiredLease, *, after_ms: int = AFTER_MS) -> agent_pb2.DesiredLease:
    """The same lease, with a deadline."""
    desired.fence_after_ms = after_ms
    return desired


def pid(agent: Agent, lease_id: str = "lease-1") -> int:
    return int(json.loads((agent.rank(lease_id) / "started.json").read_text())["pid"])


async def started(agent: Agent, coordinator: Coordinator, *leases: agent_pb2.DesiredLease) -> None:
    """An agent whose leases all run."""
    agent.flags = FLAGS
    await agent.start()
    await coordinator.desire(*leases)
    for one in leases:
        await coordinator.reported(one.lease_id, agent_pb2.RUNNING)


async def told_lost(coordinator: Coordinator) -> None:
    """The coordinator is told that the lease has ended by itself, and of no fault of its own."""
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.NODE_LOST
    assert "out of contact" in ended.error.message


async def test_a_fenced_lease_stops_and_is_told_lost_and_one_without_a_deadline_runs_on(
    agent: Agent, coordinator: Coordinator, script: Script
) -> None:
    sleeper = script("sleep 60")
    await started(agent, coordinator, fenced(lease(sleeper)), lease(sleeper, lease_id="kept"))
    await coordinator.stop()
    await until_gone(pid(agent))
    assert not (agent.rank("kept") / "exit.json").exists()
    await coordinator.start()
    await told_lost(coordinator)
    assert coordinator.leases["kept"].state == agent_pb2.RUNNING


async def test_a_lease_in_contact_lives_much_longer_than_its_deadline(
    agent: Agent, coordinator: Coordinator, script: Script
) -> None:
    await started(agent, coordinator, fenced(lease(script("sleep 60"))))
    calls = len(coordinator.requests)
    await coordinator.until(lambda: len(coordinator.requests) > calls + 3 * AFTER_MS // 200)
    assert coordinator.leases["lease-1"].state == agent_pb2.RUNNING


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM])
async def test_the_deadline_is_kept_while_the_agent_is_frozen_or_dead(
    agent: Agent, coordinator: Coordinator, script: Script, number: signal.Signals
) -> None:
    await started(agent, coordinator, fenced(lease(script("trap '' TERM; sleep 60"))))
    rank = pid(agent)
    agent.process.send_signal(number)
    await until_gone(rank)
    if number == signal.SIGSTOP:
        agent.process.send_signal(signal.SIGCONT)
    else:
        await agent.start()
    await told_lost(coordinator)


async def test_an_agent_that_starts_without_a_coordinator_changes_nothing_about_it(
    agent: Agent, coordinator: Coordinator, script: Script
) -> None:
    await started(agent, coordinator, fenced(lease(script("sleep 60"))))
    await coordinator.stop()
    await agent.end(signal.SIGKILL)
    await agent.start(wait=False)
    await until_gone(pid(agent))
    await until_holds(agent.rank("lease-1") / "exit.json", "NODE_LOST")
    await coordinator.start()
    await told_lost(coordinator)


async def test_a_deadline_that_is_changed_while_it_runs_counts(
    agent: Agent, coordinator: Coordinator, script: Script
) -> None:
    sleeper = script("sleep 60")
    await started(agent, coordinator, lease(sleeper))
    await agent.end(signal.SIGKILL)  # an adopted lease is told as well
    await agent.start()
    await coordinator.desire(fenced(lease(sleeper)))
    await coordinator.next_call()
    await coordinator.stop()
    await until_gone(pid(agent))
    await coordinator.start()
    await told_lost(coordinator)
