"""An agent that is installed anew, without what it knew, never lets two ranks use one device."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from tests.contract.runtimes.conftest import until_holds
from tests.integration.node_agent.conftest import Agent, Script, lease
from tests.integration.node_agent.coordinator import Coordinator
from tests.support.processes import is_alive

# what the rank leaves behind has shed its marks, and has the rank's supervisor alone to end it
LEAVES_MORE = """
env -i setsid sh -c 'trap "" TERM; echo $$ > "$0"; while :; do sleep 1; done' "$1" &
trap '' TERM
echo up
while :; do sleep 1; done
"""


async def runs(coordinator: Coordinator, agent: Agent, program: Path, other: Path) -> list[int]:
    """Starts an agent and a lease on it; returns its processes."""
    await agent.start()
    await coordinator.desire(lease(program, args=str(other)))
    await coordinator.reported("lease-1", agent_pb2.RUNNING)
    await until_holds(other, "\n")
    started = json.loads((agent.rank("lease-1") / "started.json").read_text())
    return [started["pid"], int(other.read_text()), started["supervisor_pid"]]


@pytest.mark.parametrize("where", ["the same folder", "another folder"])
async def test_ranks_that_it_does_not_know_have_ended_before_it_is_heard(
    agent: Agent, coordinator: Coordinator, script: Script, tmp_path: Path, where: str
) -> None:
    pids = await runs(coordinator, agent, script(LEAVES_MORE), tmp_path / "other")
    await agent.end(signal.SIGKILL)
    shutil.rmtree(agent.data_dir)
    coordinator.desired["lease-1"].ClearField("spec")  # as for any lease that was reported
    if where == "another folder":
        agent.data_dir = tmp_path / "new"
    await agent.start()
    for pid in pids:
        assert not is_alive(pid)
    lost = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert lost.error.category == job_pb2.JobError.NODE_LOST


async def test_ranks_that_it_knows_and_those_of_other_nodes_run_on(
    agent: Agent, coordinator: Coordinator, script: Script, tmp_path: Path
) -> None:
    pids = await runs(coordinator, agent, script(LEAVES_MORE), tmp_path / "other")
    await agent.end(signal.SIGKILL)
    neighbour = Agent(coordinator, tmp_path / "neighbour")
    neighbour.flags = (*agent.flags, "--node-id", "n2")
    await neighbour.start()
    await neighbour.end()
    await neighbour.close()
    await agent.start()
    assert (await coordinator.reported("lease-1", agent_pb2.RUNNING)).lease_id == "lease-1"
    for pid in pids:
        assert is_alive(pid)
