"""Jobs that run go on elsewhere so that others fit, exactly where that is enough."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from coordinator.core.commands import CancelJob, ObservedLease, PutQueue, SubmitJob, Tick
from coordinator.core.records import (
    Demand,
    Job,
    JobStatus,
    LeaseState,
    Order,
    Policy,
    Queue,
)
from tests.unit.core.agents import CALLER, report, unwatched

DEVICES = 4


class Nodes:
    """Equal nodes whose jobs have run for long; one queue that preempts."""

    def __init__(self, count: int, order: Order) -> None:
        self.now_ms = 1_000
        self.core = unwatched()
        queue = Queue(name="default", preempts=True, order=order)
        self.core.step(PutQueue(caller=CALLER, queue=queue), self.now_ms)
        self.count, self._sequence = count, 0
        for number in range(count):
            self.report(f"n{number}")

    def submit(self, name: str, count: int, *, expected_ms: int = 1_000_000) -> Job:
        """A job that wants so many devices of one node, and what became of it at once."""
        self.core.step(
            SubmitJob(
                caller=CALLER,
                job_id=name,
                name="",
                demand=Demand(device_count=count, node_count=1),
                policy=Policy(expected_duration_ms=expected_ms),
                document=b"",
            ),
            self.now_ms,
        )
        self.core.schedule(self.now_ms)
        return self.core.state.jobs[name]

    def report(self, node_id: str, *, over: str = "") -> None:
        """All that is granted runs; one may have ended."""
        self._sequence += 1
        leases = [
            ObservedLease(
                lease_id=lease.lease_id,
                epoch=lease.epoch,
                state=LeaseState.ENDED if lease.job_id == over else LeaseState.RUNNING,
                done=lease.job_id == over,
                started_at_ms=self.now_ms,
            )
            for lease in self.core.state.leases_on(node_id)
            if not lease.is_ended
        ]
        command = report(node_id, leases, sequence=self._sequence, devices=DEVICES)
        self.core.step(command, self.now_ms)

    def settle(self, *, over: str = "") -> None:
        """All agents are heard, and one pass."""
        for number in range(self.count):
            self.report(f"n{number}", over=over)
        self.core.schedule(self.now_ms)

    def held(self) -> dict[str, list[int]]:
        """How many devices each job holds, by node."""
        found: dict[str, list[int]] = {f"n{number}": [] for number in range(self.count)}
        for lease in self.core.state.leases.values():
            if not lease.is_ended:
                found[lease.node_id].append(len(lease.device_ids))
        return found


def fits(held: list[int], *, nodes: int, count: int) -> bool:
    """Whether all of them and one more have a place, somehow."""
    for places in product(range(nodes), repeat=len(held)):
        left = [DEVICES] * nodes
        for size, node in zip(held, places, strict=True):
            left[node] -= size
        if min(left) >= 0 and max(left) >= count:
            return True
    return False


@pytest.mark.parametrize("order", [Order.PRIORITY_FIFO, Order.SHORTEST])
@pytest.mark.parametrize("seed", range(40))
def test_who_fits_once_others_are_closer_together_fits(seed: int, order: Order) -> None:
    """With nobody who could lose its turn to it: wherever one node can be emptied far enough by moves."""
    rng = Random(seed)
    nodes = Nodes(rng.randint(2, 4), order)
    for number in range(12):
        nodes.submit(f"j{number}", rng.choice((1, 1, 2, 3)), expected_ms=100_000)
    nodes.settle()
    running = [x.job_id for x in nodes.core.state.jobs.values() if x.status is JobStatus.TRAINING]
    for name in sorted({*nodes.core.state.jobs}.difference(running)):
        nodes.core.step(CancelJob(caller=CALLER, job_id=name), nodes.now_ms)
    over = rng.sample(running, len(running) // 2)
    for name in over:
        nodes.settle(over=name)
    nodes.now_ms += 10_000_000
    nodes.core.step(Tick(), nodes.now_ms)
    before = nodes.held()
    wants = rng.randint(2, DEVICES)
    found = nodes.submit("wants", wants, expected_ms=90_000_000)
    there = max(DEVICES - sum(sizes) for sizes in before.values()) >= wants
    assert (found.status is JobStatus.SCHEDULING) is there
    sizes = [size for sizes in before.values() for size in sizes]
    if found.room:
        assert fits(sizes, nodes=nodes.count, count=wants)
        moved = [x for x in nodes.core.state.jobs.values() if x.room and x.job_id != "wants"]
        assert moved, "somebody goes on elsewhere"
        assert all(x.attempt and x.attempt.makes_room_for == "wants" for x in moved)
    elif not there:
        assert not can_be_emptied(before, wants)
    nodes.core.check_invariants()


def can_be_emptied(held: dict[str, list[int]], wants: int) -> bool:
    """Whether from some node so few can go that all of them find what is free elsewhere, by brute force."""
    for node_id, sizes in held.items():
        left = [DEVICES - sum(x) for name, x in held.items() if name != node_id]
        for chosen in product((False, True), repeat=len(sizes)):
            go = [size for size, goes in zip(sizes, chosen, strict=True) if goes]
            if DEVICES - sum(sizes) + sum(go) >= wants and _find_places(go, left):
                return True
    return False


def _find_places(go: list[int], left: list[int]) -> bool:
    if not go:
        return True
    return any(
        _find_places(go[1:], [*left[:n], room - go[0], *left[n + 1 :]])
        for n, room in enumerate(left)
        if room >= go[0]
    )
