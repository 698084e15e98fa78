"""A node that is cut off, or frozen, keeps its jobs; what they print in the dark comes later, once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scaimind.v1 import job_pb2
from tests.integration.partition.conftest import StartBeating
from tests.support import jobs
from tests.support.networks import Delay, Network
from tests.support.parted import SHORT, Beating, Parted
from tests.support.waiting import until

SHORT_S = 0.3
DELAY_S = 0.25
BACK_S = 90.0
SILENT = [
    pytest.param(Network.unplug, id="unplugged"),
    pytest.param(lambda network: network.drop("output"), id="is not heard"),
]
CUTS = [*SILENT, pytest.param(lambda network: network.drop("input"), id="hears nothing")]


def over(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed since now."""
    over_s = time.monotonic() + seconds
    return lambda: time.monotonic() >= over_s


def lines_arrive(parted: Parted, job: Beating) -> None:
    """Waits until the coordinator has lines that were printed after now."""
    printed = len(job.proofs()[-1].beats)

    def look() -> bool:
        shown = list(parted.client.logs(job.job_id, tail=1, follow=False))
        numbers = [int(one.log.message) for one in shown if one.log.message.isdigit()]
        return bool(numbers) and numbers[-1] >= printed

    until(look, lambda: f"lines arrive\n{parted.story()}", within_s=BACK_S)


def test_a_short_cut_is_not_even_noticed(parted: Parted, beating: StartBeating) -> None:
    job = beating()
    machine = parted.machine_of(job.job_id)
    before = job.beats(1)
    # not unplugged: a link takes a second to come back, and TCP then asks again only after three
    machine.network.drop("input", "output")
    until(over(SHORT_S), "it was cut off for a while")
    machine.network.heal()
    missed = over(SHORT.unreachable_s)
    until(lambda: parted.is_unreachable(machine) or missed(), "the bound has passed")
    assert not parted.is_unreachable(machine)
    assert job.beats(1).pid == before.pid
    job.end()


@pytest.mark.parametrize("cut", CUTS)
def test_a_long_cut_is_told_and_costs_nothing(
    parted: Parted, beating: StartBeating, cut: Callable[[Network], None]
) -> None:
    job = beating()
    machine = parted.machine_of(job.job_id)
    before = job.beats(1)
    cut(machine.network)
    parted.wait_until_unreachable(machine)
    until(over(SHORT.unreachable_s), "and longer")
    assert job.record.status == job_pb2.Job.TRAINING
    assert job.beats(1).pid == before.pid
    machine.network.heal()
    parted.wait_until_all_are_ready()
    lines_arrive(parted, job)
    assert job.beats(1).pid == before.pid
    job.end()


def test_a_slow_and_lossy_line_delivers_everything(parted: Parted, beating: StartBeating) -> None:
    job = beating()
    machine = parted.machine_of(job.job_id)
    machine.network.drop("input", "output", percent=20)
    machine.network.slow_down(512)
    for _ in range(10):
        lines_arrive(parted, job)
    parted.wait_until_all_are_ready()  # though it may be missed for a moment
    assert job.record.status == job_pb2.Job.TRAINING
    job.end()


def test_a_long_way_to_the_coordinator_delivers_everything(
    parted: Parted, beating: StartBeating
) -> None:
    host, _, port = parted.address.partition(":")
    job = beating()
    machine = parted.machine_of(job.job_id)
    before = job.beats(1)
    with Delay(host, (host, int(port)), delay_s=DELAY_S) as far:
        machine.agent.kill()
        machine.talks_to(far.address)
        machine.agent.start()
        for _ in range(3):
            lines_arrive(parted, job)
        parted.wait_until_all_are_ready()
        machine.agent.kill()
    machine.talks_to(parted.address)
    machine.agent.start()
    assert job.beats(1).pid == before.pid
    job.end()


def test_a_job_that_ends_in_the_dark_is_told_with_all_its_lines(
    parted: Parted, beating: StartBeating
) -> None:
    job = beating()
    machine = parted.machine_of(job.job_id)
    machine.network.unplug()
    parted.wait_until_unreachable(machine)
    job.tell_end()
    until(lambda: not job.proofs()[-1].lives, "it has ended")
    assert job.record.status == job_pb2.Job.TRAINING
    machine.network.heal()
    job.end()


def test_a_frozen_agent_costs_nothing(parted: Parted, beating: StartBeating) -> None:
    job = beating()
    machine = parted.machine_of(job.job_id)
    machine.agent.send(signal.SIGSTOP)
    parted.wait_until_unreachable(machine)
    job.beats(1)
    machine.agent.send(signal.SIGCONT)
    parted.wait_until_all_are_ready()
    job.end()


def test_a_frozen_agent_and_a_frozen_rank_go_on_where_they_were(
    parted: Parted, beating: StartBeating
) -> None:
    job = beating()
    machine = parted.machine_of(job.job_id)
    rank = job.beats(1)
    rank.send(signal.SIGSTOP)
    machine.agent.send(signal.SIGSTOP)
    parted.wait_until_unreachable(machine)
    rank.send(signal.SIGCONT)
    machine.agent.send(signal.SIGCONT)
    parted.wait_until_all_are_ready()
    assert job.beats(1).pid == rank.pid
    job.end()


def test_a_coordinator_that_was_frozen_takes_nobody_to_be_lost(
    parted: Parted, beating: StartBeating
) -> None:
    job = beating()
    parted.coordinator.send(signal.SIGSTOP)
    until(over(2 * SHORT.unreachable_s), "it stood still for longer than any silence may last")
    parted.coordinator.send(signal.SIGCONT)
    looked = over(SHORT.unreachable_s / 2)
    until(lambda: any(map(parted.is_unreachable, parted.machines)) or looked(), "it goes on")
    assert not any(map(parted.is_unreachable, parted.machines))
    job.beats(1)
    job.end()


def test_a_training_that_stands_still_while_it_lives_goes_on_in_another_attempt(
    parted: Parted, tmp_path: Path
) -> None:
    program = jobs.script(
        tmp_path,
        "stands_still.py",
        """
        import json, os, time
        with open(os.environ["MIND_EVENTS"], "a", buffering=1) as events:
            told = {"event": "metrics", "step": 1, "values": {"loss": 1.0}}
            events.write(json.dumps(told) + "\\n")
        while os.environ["MIND_ATTEMPT"] == "1":
            time.sleep(0.05)
        """,
    )
    wishes = {"on_hang": "RESTART", "hang_after_seconds": 1, "checkpoint_grace_seconds": 1}
    given = jobs.body(program, gpu_type="H100", scheduling=wishes)
    job_id = parted.client.submit(given).job_id
    # a coordinator that was held up meanwhile counts its sight of the nodes anew
    job = jobs.final(parted.client, job_id, within_s=3 * BACK_S)
    assert job.status == job_pb2.Job.COMPLETED, f"{job}\n{parted.story()}"
    assert job.attempt.number == 2
