"""Where the job says REPLACE it runs elsewhere after a while, and never in two places."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from scaimind.v1 import job_pb2
from tests.integration.partition.conftest import StartBeating
from tests.integration.partition.test_keep import SHORT_S, SILENT, over
from tests.support.networks import Network
from tests.support.parted import SHORT, Beating, Machine, Parted, Proof
from tests.support.waiting import until

ELSEWHERE_S = 90.0


def holds_devices(parted: Parted, machine: Machine) -> bool:
    """Whether the coordinator takes the node's only device to be in use."""
    return parted.client.node(machine.node_id).free_device_count == 0


def moves(parted: Parted, job: Beating, cut: Callable[[Network], None]) -> Machine:
    """Cuts off the node of a job, which then runs on another one; returns the first."""
    machine = parted.machine_of(job.job_id)
    pid = job.beats(1).pid
    cut(machine.network)
    after = job.beats(2, within_s=ELSEWHERE_S)
    (before,) = [proof for proof in job.proofs() if proof.pid == pid]
    assert not before.lives
    assert before.last_s < after.first_s
    assert parted.machine_of(job.job_id) is not machine
    return machine


@pytest.mark.parametrize("cut", SILENT)
def test_a_job_runs_elsewhere_only_once_it_provably_has_ended_where_it_was(
    parted: Parted, beating: StartBeating, cut: Callable[[Network], None]
) -> None:
    job = beating(on_unreachable="REPLACE")
    machine = moves(parted, job, cut)
    assert holds_devices(parted, machine)
    after = job.beats(2)
    machine.network.heal()
    parted.wait_until_all_are_ready()
    until(lambda: not holds_devices(parted, machine), "what it reports sets its devices free")
    assert job.beats(2).pid == after.pid
    job.end(attempts=2)


def test_a_node_that_hears_nothing_stops_its_job_which_may_be_told_at_once(
    parted: Parted, beating: StartBeating
) -> None:
    job = beating(on_unreachable="REPLACE")
    machine = moves(parted, job, lambda network: network.drop("input"))
    machine.network.heal()
    job.end(attempts=2)


def test_a_short_cut_changes_nothing(parted: Parted, beating: StartBeating) -> None:
    job = beating(on_unreachable="REPLACE")
    machine = parted.machine_of(job.job_id)
    before = job.beats(1)
    # not unplugged: a link takes a second to come back, and TCP then asks again only after three
    machine.network.drop("input", "output")
    until(over(SHORT_S), "it was cut off for a while")
    machine.network.heal()
    until(over(SHORT.replace_s), "it would have been given up")
    assert job.beats(1).pid == before.pid
    job.end()


def test_back_after_it_has_fenced_itself_and_before_it_is_given_up_it_is_told_as_it_is(
    parted: Parted, beating: StartBeating
) -> None:
    job = beating(on_unreachable="REPLACE")
    machine = parted.machine_of(job.job_id)
    before = job.beats(1)
    machine.network.unplug()
    until(lambda: not before.lives, "it has fenced itself")
    machine.network.heal()
    job.beats(2, within_s=ELSEWHERE_S)
    ended = job.end(attempts=2)
    assert ended.error.category == job_pb2.JobError.CATEGORY_UNSPECIFIED


@pytest.mark.parametrize("rank_too", [False, True], ids=["agent", "agent and rank"])
def test_a_frozen_agent_does_not_keep_its_ranks_from_ending(
    parted: Parted, beating: StartBeating, rank_too: bool
) -> None:
    job = beating(on_unreachable="REPLACE")
    machine = parted.machine_of(job.job_id)
    before = job.beats(1)
    machine.agent.send(signal.SIGSTOP)
    if rank_too:
        before.send(signal.SIGSTOP)
    after = job.beats(2, within_s=ELSEWHERE_S)
    assert not before.lives
    assert parted.machine_of(job.job_id) is not machine
    machine.agent.send(signal.SIGCONT)
    parted.wait_until_all_are_ready()
    assert job.beats(2).pid == after.pid
    job.end(attempts=2)


def test_a_frozen_coordinator_gives_nobody_up(parted: Parted, beating: StartBeating) -> None:
    job = beating(on_unreachable="REPLACE")
    parted.coordinator.send(signal.SIGSTOP)
    before = job.proofs()[-1]
    until(lambda: not before.lives, "nobody answers, and so it has stopped", within_s=ELSEWHERE_S)
    until(over(SHORT.replace_s), "and longer than any silence may last")
    parted.coordinator.send(signal.SIGCONT)

    def goes_on() -> Proof | None:
        return next((proof for proof in reversed(job.proofs()) if proof.lives), None)

    newest = until(goes_on, lambda: f"it goes on\n{parted.story()}", within_s=ELSEWHERE_S)
    assert newest.attempt > 1
    assert not any(map(parted.is_unreachable, parted.machines))
    # A grant in the answer to a call of before has no time left, and is not started.
    begun = {proof.attempt for proof in job.proofs()}
    job.end(attempts=newest.attempt, unstarted={*range(2, newest.attempt)} - begun)
