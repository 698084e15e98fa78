"""A checkpoint that is asked for: the ranks hear of it, and what answers it is proven first."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from tests.contract.runtimes.conftest import until_holds
from tests.integration.node_agent.conftest import Agent, lease
from tests.integration.node_agent.coordinator import Coordinator

SAVER = """
import scaimind, time
run = scaimind.init()
with run.checkpoint(1) as folder:
    (folder / "weights").write_text("one")
print("up", flush=True)
step = 1
while not run.should_stop:
    if run.should_checkpoint:
        step += 1
        with run.checkpoint(step) as folder:
            (folder / "weights").write_text("more")
        print("saved", step, flush=True)
    time.sleep(0.01)
"""


@pytest.fixture
def saver(tmp_path: Path) -> Path:
    """A program that saves once at its start, and whenever it is asked to."""
    path = tmp_path / "saver.py"
    path.write_text(SAVER)
    return path


def asked(grant: agent_pb2.DesiredLease, number: int) -> agent_pb2.DesiredLease:
    """The lease, with a checkpoint asked for."""
    copy = agent_pb2.DesiredLease()
    copy.CopyFrom(grant)
    copy.save = number
    return copy


async def saved(coordinator: Coordinator, number: int) -> agent_pb2.ObservedLease:
    """Waits until the ask of that number is answered."""
    await coordinator.until(
        lambda: "lease-1" in coordinator.leases and coordinator.leases["lease-1"].saved == number
    )
    return coordinator.leases["lease-1"]


async def test_an_ask_is_answered_once_a_newer_checkpoint_is_proven(
    coordinator: Coordinator, agent: Agent, saver: Path
) -> None:
    await agent.start()
    grant = lease(saver)
    await coordinator.desire(grant)
    await coordinator.until(
        lambda: any(len(one.checkpoints) == 1 for one in coordinator.leases.values())
    )
    assert coordinator.leases["lease-1"].saved == 0
    await coordinator.desire(asked(grant, 1))
    answer = await saved(coordinator, 1)
    assert [one.step for one in answer.checkpoints] == [1, 2]
    assert answer.checkpoints[1].digest.startswith("sha256:")
    await coordinator.next_call()
    await coordinator.desire(asked(grant, 2))
    answer = await saved(coordinator, 2)
    assert [one.step for one in answer.checkpoints] == [1, 2, 3]


async def test_an_agent_that_starts_again_knows_what_was_answered(
    coordinator: Coordinator, agent: Agent, saver: Path
) -> None:
    await agent.start()
    grant = lease(saver)
    await coordinator.desire(grant)
    await until_holds(agent.rank("lease-1") / "stdout", "up")
    await coordinator.desire(asked(grant, 1))
    await saved(coordinator, 1)
    await agent.end(signal.SIGKILL)
    coordinator.requests.clear()
    await agent.start()
    answer = await saved(coordinator, 1)
    assert [one.step for one in answer.checkpoints] == [1, 2]
    assert (agent.rank("lease-1") / "stdout").read_text().count("saved") == 1


async def test_a_program_that_knows_nothing_of_it_runs_on(
    coordinator: Coordinator, agent: Agent, tmp_path: Path
) -> None:
    program = tmp_path / "plain.py"
    program.write_text("import sys, time\nprint('up')\ntime.sleep(3)\nsys.exit(0)\n")
    await agent.start()
    grant = lease(program)
    await coordinator.desire(grant)
    await until_holds(agent.rank("lease-1") / "stdout", "up")
    await coordinator.desire(asked(grant, 1))
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert [rank.exit_code for rank in ended.ranks] == [0]
    assert ended.saved == 0
