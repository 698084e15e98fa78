"""Whatever dies on the node or beyond, running ranks are found again and told truly."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from tests.contract.runtimes.conftest import until_gone, until_holds
from tests.integration.node_agent.conftest import Agent, Script, lease, stop
from tests.integration.node_agent.coordinator import Coordinator

WAITING = "echo up; read x < $PWD/go; echo got it; exit 4"


async def _run(coordinator: Coordinator, agent: Agent, program: Path) -> agent_pb2.DesiredLease:
    """Runs a program that says `up`; returns the lease once it has said so."""
    granted = lease(program)
    await coordinator.desire(granted)
    await until_holds(agent.rank("lease-1") / "stdout", "up")
    await coordinator.reported("lease-1", agent_pb2.RUNNING)
    return granted


def _go(agent: Agent) -> Path:
    """The FIFO on which WAITING waits."""
    path = agent.data_dir / "storage/jobs/job_1/work/go"
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    return path


def _started(agent: Agent) -> dict[str, int]:
    content = (agent.rank("lease-1") / "started.json").read_text()
    started: dict[str, int] = json.loads(content)
    return started


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_rank_outlives_its_agent_and_is_found_again(
    coordinator: Coordinator, agent: Agent, script: Script, number: int
) -> None:
    go = _go(agent)
    await agent.start()
    await _run(coordinator, agent, script(WAITING))
    before = coordinator.leases["lease-1"].ranks[0]
    assert await agent.end(number) == (0 if number == signal.SIGTERM else -number)
    await agent.start()
    assert coordinator.leases["lease-1"].ranks[0] == before
    go.write_text("\n")
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.ranks[0].exit_code == 4
    assert (agent.rank("lease-1") / "stdout").read_text() == "up\ngot it\n"


async def test_a_rank_that_ends_while_there_is_no_agent_is_reported_as_it_ended(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    go = _go(agent)
    await agent.start()
    await _run(coordinator, agent, script(WAITING))
    await agent.end(signal.SIGKILL)
    go.write_text("\n")
    await until_holds(agent.rank("lease-1") / "exit.json", "exit_code")
    await agent.start()
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.ranks[0].exit_code == 4
    assert ended.error.exit_code == 4


async def test_what_was_measured_before_a_failure_is_told_by_the_agent_that_was_started_after_it(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    go = _go(agent)
    await agent.start()
    grant = lease(script(WAITING))
    grant.spec.device_ids.append("sim-H100-0")
    await coordinator.desire(grant)
    await until_holds(agent.rank("lease-1") / "stdout", "up")
    await until_holds(agent.data_dir / "telemetry", "host")
    await agent.end(signal.SIGKILL)
    killed_s = time.time()
    go.write_text("\n")
    await until_holds(agent.rank("lease-1") / "exit.json", "exit_code")
    await asyncio.sleep(6.0)  # what is measured so long after a failure says nothing of it
    await agent.start()
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    seen = ended.error.telemetry
    assert seen.samples_count >= 1
    assert seen.last_at.seconds <= killed_s
    assert [device.device_id for device in seen.devices] == ["sim-H100-0"]


async def test_a_silent_training_is_told_with_what_its_devices_measured_before(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    grant = lease(script("exec sleep 600"))
    grant.spec.device_ids.append("sim-H100-3")
    grant.spec.job.scheduling_config.hang_after_seconds = 1
    await coordinator.desire(grant)
    await coordinator.until(
        lambda: any(one.HasField("silent_since") for one in coordinator.leases.values())
    )
    told = coordinator.leases["lease-1"]
    assert told.state == agent_pb2.RUNNING
    assert told.telemetry.samples_count >= 1
    assert [device.device_id for device in told.telemetry.devices] == ["sim-H100-3"]
    assert told.telemetry.last_at.seconds >= told.silent_since.seconds


async def test_a_stop_goes_on_while_there_is_no_agent(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    granted = await _run(
        coordinator, agent, script("trap 'echo term' TERM; echo up; while :; do sleep 0.05; done")
    )
    await coordinator.desire(stop(granted, grace_ms=700))
    await until_holds(agent.rank("lease-1") / "stdout", "term")
    await agent.end(signal.SIGKILL)
    await until_holds(agent.rank("lease-1") / "exit.json", '"signal": 9')
    await agent.start()
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.ranks[0].signal == signal.SIGKILL
    assert not ended.HasField("error")


async def test_a_lost_supervisor_ends_its_rank_and_is_told(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await _run(coordinator, agent, script("setsid sleep 600 & echo up; exec sleep 600"))
    left = agent.processes()
    os.kill(_started(agent)["supervisor_pid"], signal.SIGKILL)
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.NODE_LOST
    assert ended.ranks[0].signal == signal.SIGKILL
    assert len(left) == 2
    for pid in left:
        await until_gone(pid)


async def test_a_supervisor_that_was_lost_while_there_was_no_agent_is_told(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await _run(coordinator, agent, script("echo up; exec sleep 600"))
    started = _started(agent)
    await agent.end(signal.SIGKILL)
    os.kill(started["supervisor_pid"], signal.SIGKILL)
    await agent.start()
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.NODE_LOST
    await until_gone(started["pid"])


async def test_a_rank_of_an_earlier_boot_is_lost_and_no_stranger_is_killed(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await _run(coordinator, agent, script("echo up; exec env -i sleep 600"))
    started = _started(agent)
    await agent.end(signal.SIGKILL)
    os.kill(started["supervisor_pid"], signal.SIGKILL)
    path = agent.rank("lease-1") / "started.json"
    path.write_text(json.dumps({**started, "boot": "another"}))
    await agent.start()
    ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
    assert ended.error.category == job_pb2.JobError.NODE_LOST
    assert "restarted" in ended.error.message
    os.kill(started["pid"], signal.SIGKILL)  # as far as this boot knows, it was a stranger


async def test_a_killed_fork_server_is_replaced_and_ranks_do_not_notice(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    first = await _run(coordinator, agent, script("echo up; exec sleep 600"))
    for pid in _fork_servers(agent):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    programs = script("true")
    others = [lease(programs, lease_id=f"other-{n}") for n in range(8)]
    await coordinator.desire(first, *others)
    for other in others:
        ended = await coordinator.reported(other.lease_id, agent_pb2.ENDED)
        assert ended.ranks[0].exit_code == 0
    assert coordinator.leases["lease-1"].state == agent_pb2.RUNNING


async def test_nothing_is_left_of_a_killed_agent_but_ranks_and_their_supervisors(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await _run(coordinator, agent, script("echo up; exec sleep 600"))
    servers = _fork_servers(agent)
    assert servers
    await agent.end(signal.SIGKILL)
    for pid in servers:
        await until_gone(pid)
    assert _started(agent)["pid"] in agent.processes()


async def test_a_coordinator_that_goes_and_comes_back_finds_all_as_it_was(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    granted = await _run(coordinator, agent, script("echo up; exec sleep 600"))
    await coordinator.stop()
    await coordinator.start()
    calls = len(coordinator.requests)
    await coordinator.until(lambda: len(coordinator.requests) > calls)
    assert coordinator.leases["lease-1"].state == agent_pb2.RUNNING
    await coordinator.desire(stop(granted))
    await coordinator.reported("lease-1", agent_pb2.ENDED)


async def test_a_lease_that_ends_while_there_is_no_coordinator_is_reported_later(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    go = _go(agent)
    await agent.start()
    await _run(coordinator, agent, script(WAITING))
    await coordinator.stop()
    go.write_text("\n")
    await until_holds(agent.rank("lease-1") / "exit.json", "exit_code")
    await coordinator.start()
    assert (await coordinator.reported("lease-1", agent_pb2.ENDED)).ranks[0].exit_code == 4
    await coordinator.desire()
    await coordinator.forgotten("lease-1")
    assert coordinator.lines("job_1", 0, agent_pb2.STDOUT) == ["up", "got it"]


async def test_a_superseded_agent_stops_its_ranks_and_ends_with_code_3(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await _run(coordinator, agent, script("echo up; exec sleep 600"))
    rank = _started(agent)["pid"]
    coordinator.superseded = True
    await coordinator.bump()
    assert await agent.process.wait() == 3
    assert rank not in agent.processes()


async def test_an_answer_of_an_old_leader_changes_nothing(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    coordinator.leader_epoch = 5
    await agent.start()
    granted = await _run(coordinator, agent, script("echo up; exec sleep 600"))
    coordinator.leader_epoch = 4
    await coordinator.desire()
    await coordinator.next_call()
    await coordinator.next_call()
    assert coordinator.leases["lease-1"].state == agent_pb2.RUNNING
    coordinator.leader_epoch = 6
    await coordinator.desire(stop(granted))
    await coordinator.reported("lease-1", agent_pb2.ENDED)


async def test_each_start_has_a_higher_generation_and_each_call_a_higher_sequence(
    coordinator: Coordinator, agent: Agent
) -> None:
    for _ in range(3):
        await agent.start()
        await coordinator.next_call()
        await agent.end()
    starts = sorted({(r.generation, r.incarnation) for r in coordinator.requests})
    assert len({generation for generation, _ in starts}) == 3
    assert len({incarnation for _, incarnation in starts}) == 3
    for _, incarnation in starts:
        sequences = [r.sequence for r in coordinator.requests if r.incarnation == incarnation]
        assert sequences == sorted(set(sequences))
        assert sequences[0] == 1


async def test_a_second_agent_on_one_data_folder_does_not_start(
    coordinator: Coordinator, agent: Agent
) -> None:
    await agent.start()
    second = Agent(coordinator, agent.data_dir)
    await second.start(wait=False)
    assert await second.process.wait() == 1


async def test_a_lease_whose_file_is_damaged_is_still_known_by_its_folder(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    await _run(coordinator, agent, script("echo up; exec sleep 600"))
    await agent.end(signal.SIGKILL)
    (agent.rank("lease-1").parent / "lease.pb").write_bytes(b"\xff\xff")
    await agent.start()
    assert coordinator.leases["lease-1"].state == agent_pb2.RUNNING
    await coordinator.desire()
    await coordinator.forgotten("lease-1")
    assert agent.processes() == []


async def test_junk_in_the_data_folder_does_no_harm(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    junk = agent.data_dir / "leases"
    (junk / "half.7").mkdir(parents=True)
    (junk / "nonsense" / "rank-x").mkdir(parents=True)
    (junk / "a file").write_text("x")
    (agent.data_dir / "trash" / "old").mkdir(parents=True)
    (agent.data_dir / "generation").write_text("not a number")
    await agent.start()
    assert not coordinator.leases
    await coordinator.desire(lease(script("true")))
    await coordinator.reported("lease-1", agent_pb2.ENDED)


async def test_no_output_is_lost_or_doubled_when_the_agent_is_killed(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    await agent.start()
    program = script("echo up; i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done")
    await coordinator.desire(lease(program))
    for _ in range(3):
        await until_holds(agent.rank("lease-1") / "stdout", "up")
        await agent.end(signal.SIGKILL)
        await agent.start()
    await coordinator.reported("lease-1", agent_pb2.ENDED)
    await coordinator.desire()
    await coordinator.forgotten("lease-1")
    lines = coordinator.lines("job_1", 0, agent_pb2.STDOUT)
    assert lines == ["up", *(f"line {n}" for n in range(3000))]


def _fork_servers(agent: Agent) -> list[int]:
    """The agent's fork server, and the spares that it has forked."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            if name.isdigit() and int(fields[1]) in (agent.process.pid, *found):
                environ = Path(f"/proc/{name}/environ").read_bytes()
                if b"MIND_EVENTS" not in environ and int(name) not in _supervisors(agent):
                    found.append(int(name))
    return found


def _supervisors(agent: Agent) -> list[int]:
    return [
        json.loads(path.read_text())["supervisor_pid"]
        for path in (agent.data_dir / "leases").glob("*/rank-*/started.json")
    ]
