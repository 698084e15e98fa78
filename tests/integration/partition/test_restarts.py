"""Agents and coordinators that are killed, upgraded and started again: they restart no rank."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parted import Beating, Parted
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
