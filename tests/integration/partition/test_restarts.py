"""Agents and coordinators that are killed, upgraded and started again: they restart no rank."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from scaimind.v1 import job_pb2
from tests.support.parted import Beating, Machine, Parted
from tests.support.several import Program
from tests.support.waiting import until


@pytest.fixture
def jobs(parted: Parted, tmp_path: Path) -> Iterator[list[Beating]]:
    """One on each node."""
    started: list[Beating] = []
    for machine in parted.machines:
        started.append(Beating(parted, tmp_path / machine.node_id))
    yield started
    for job in started:
        job.close()


def start_again(parted: Parted, program: Program, number: signal.Signals) -> None:
    """Ends a program, and starts it once more."""
    program.send(number)
    program.process.wait()
    program.start()
    until(
        lambda: "in_contact" in program.story(since_start=True) or program is parted.coordinator,
        lambda: f"it is back\n{program.story()}",
    )


def has_adopted(machine: Machine) -> bool:
    """Whether its agent, started last, has found a lease."""
    return "lease_adopted" in machine.agent.story(since_start=True)


def test_no_rank_is_restarted_by_restarts_of_agents_and_coordinators(
    parted: Parted, jobs: list[Beating]
) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        for program in (*(machine.agent for machine in parted.machines), parted.coordinator):
            start_again(parted, program, number)
    parted.wait_until_all_are_ready()
    for job in jobs:
        job.end()
    processes = [len(job.proofs()) for job in jobs]
    assert sum(processes) - len(jobs) == 0, "ranks that were restarted"


def test_an_agent_that_lost_its_state_ends_what_ran_before_the_job_runs_again(
    parted: Parted, jobs: list[Beating]
) -> None:
    job, other = jobs
    before, neighbour = job.beats(1), other.beats(1)
    machine = parted.machine_of(job.job_id)
    machine.agent.kill()
    shutil.rmtree(machine.data_dir)
    machine.agent.start()
    # It has lost who it was, too: an admin vouches that the one of before is gone.
    parted.wait_until_unreachable(machine)
    parted.client.remove_node(machine.node_id)
    job.beats(2)
    assert not before.lives
    assert other.beats(1).pid == neighbour.pid
    job.end(attempts=2)
    other.end()


def test_an_agent_that_starts_in_the_dark_keeps_what_runs_and_what_has_ended(
    parted: Parted, jobs: list[Beating]
) -> None:
    ends, goes_on = jobs
    for job in jobs:
        machine = parted.machine_of(job.job_id)
        machine.network.unplug()
        machine.agent.kill()
    before = goes_on.beats(1)
    ends.tell_end()
    until(lambda: not ends.proofs()[-1].lives, "one has ended, and nobody knows")
    for machine in parted.machines:
        machine.agent.start()
        until(partial(has_adopted, machine), "it has adopted its lease")
        machine.network.heal()
    assert ends.end().status == job_pb2.Job.COMPLETED
    assert goes_on.beats(1).pid == before.pid
    goes_on.end()
