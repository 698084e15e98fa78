"""What one decision costs, and how that grows with the cluster: `python -m bench.core_bench`.

Every world is full: all devices are held and thousands of jobs wait, which is where a scheduler that
scans anything slows down. The floor of each figure is the same figure in the smallest cluster.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

from bench.report import Figure, Row, Target, in_turn, text_table
from coordinator.core.commands import (
    Caller,
    CancelJob,
    Command,
    ObservedLease,
    Recover,
    SubmitJob,
    SyncNode,
)
from coordinator.core.core import Core
from coordinator.core.records import Demand, Device, Lease, LeaseState, Offer, Policy

SIZES = (100, 1_000, 10_000)
QUEUED = 10_000
MANY_QUEUED = 100_000
COMMANDS = 400  # of each kind in one measure
ROUNDS = 3
NOW_MS = 1_700_000_000_000
DEVICES = 8
MICRO = 1_000_000
TARGET = Target(reach=1_000, beyond=200, at_most=True, of_ratio=False, unit="µs")
SHAPES = tuple(
    Demand(device_count=devices, device_type="H100", node_count=nodes, memory_bytes=memory)
    for devices, nodes in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (16, 2), (64, 8), (512, 0))
    for memory in (0, 16_000_000_000)
)


class Cluster:
    """A full cluster with a queue, and the commands that come in."""

    def __init__(self, nodes: int, queued: int) -> None:
        self.core = Core()
        self.core.step(Recover(epoch=1), NOW_MS)
        self._sequence = count(1)
        self._jobs = count(1)
        self._offers = {f"n{number:05}": offer(f"n{number:05}") for number in range(nodes)}
        for node_id in self._offers:
            self.do(self.sync(node_id))
        for _ in range(nodes):
            self.do(self.submit(Demand(device_count=DEVICES)))
        for node_id in self._offers:
            self.do(self.sync(node_id, LeaseState.RUNNING))
        for number in range(queued):
            self.do(self.submit(SHAPES[number % len(SHAPES)]))
        self._nodes = list(self._offers)
        self._next = 0

    def do(self, command: Command) -> None:
        """A batch of one command: the dearest way to ask."""
        self.core.step(command, NOW_MS)
        self.core.schedule(NOW_MS)

    def submit(self, demand: Demand) -> SubmitJob:
        """A submit as a border makes it: nothing in it is shared with another."""
        number = next(self._jobs)
        caller = Caller(
            tenant_id="acme", user_id="ada", request_id=f"request-{number}", digest="d" * 64
        )
        return SubmitJob(
            caller=caller,
            job_id=f"job-{number:012}",
            name=f"training {number}",
            demand=Demand(
                device_count=demand.device_count,
                device_type=demand.device_type,
                node_count=demand.node_count,
                memory_bytes=demand.memory_bytes,
            ),
            policy=Policy(max_retries=3),
            document=b"",
            priority=1 + number % 10,
        )

    def sync(self, node_id: str, state: LeaseState | None = None) -> SyncNode:
        """A report; with `state` of every lease that the node holds."""
        leases = self.core.state.leases_on(node_id) if state is not None else []
        return SyncNode(
            node_id=node_id,
            incarnation="a",
            generation=1,
            sequence=next(self._sequence),
            offer=self._offers[node_id],
            leases=tuple(_observed(lease, state or lease.state) for lease in leases),
        )

    def submits(self) -> float:
        """Microseconds per submit of a job that must wait."""
        commands = [self.submit(SHAPES[number % len(SHAPES)]) for number in range(COMMANDS)]
        return self._measure(commands)

    def cancels(self) -> float:
        """Microseconds per cancel of a waiting job."""
        caller = Caller(tenant_id="acme", user_id="ada")
        waiting = list(self.core.state.queue.group_of)[-COMMANDS:]
        return self._measure([CancelJob(caller=caller, job_id=job_id) for job_id in waiting])

    def reports(self) -> float:
        """Microseconds per report in which nothing is new."""
        nodes = [self._node() for _ in range(COMMANDS)]
        for node_id in nodes:
            self.do(self.sync(node_id, LeaseState.RUNNING))
        return self._measure([self.sync(node_id, LeaseState.RUNNING) for node_id in nodes])

    def ends(self) -> float:
        """Microseconds per decision when jobs end: one for each that ended, one for each placed."""
        spent_s, decisions = 0.0, 0
        for _ in range(COMMANDS // 4):
            node_id = self._node()
            self.do(self.sync(node_id, LeaseState.RUNNING))
            ended = self.sync(node_id, LeaseState.ENDED)
            waiting = len(self.core.state.queue)
            began = time.process_time()
            self.do(ended)
            spent_s += time.process_time() - began
            decisions += len(ended.leases) + waiting - len(self.core.state.queue)
            self.do(self.sync(node_id))
        return spent_s / decisions * MICRO

    def _node(self) -> str:
        self._next = (self._next + 1) % len(self._nodes)
        return self._nodes[self._next]

    def _measure(self, commands: Sequence[Command]) -> float:
        began = time.process_time()
        for command in commands:
            self.do(command)
        return (time.process_time() - began) / max(1, len(commands)) * MICRO


def offer(node_id: str) -> Offer:
    """What a node with eight devices says that it has."""
    return Offer(
        devices=tuple(
            Device(
                device_id=f"GPU-{node_id}-{index}",
                index=index,
                type="H100",
                memory_bytes=80_000_000_000,
            )
            for index in range(DEVICES)
        ),
        labels=(("rack", node_id[:4]), ("zone", node_id[:2])),
        cpu_count=128,
        memory_bytes=2_000_000_000_000,
        disk_bytes=10_000_000_000_000,
    )


def _observed(lease: Lease, state: LeaseState) -> ObservedLease:
    return ObservedLease(
        lease_id=lease.lease_id, epoch=lease.epoch, state=state, started_at_ms=NOW_MS
    )


def rows() -> list[Row]:
    """Costs by size of the cluster, the largest case, and memory."""
    return [*_growth(), *_largest(), _memory()]


def _growth() -> Iterator[Row]:
    clusters = {nodes: Cluster(nodes, QUEUED) for nodes in SIZES}
    for name, measure in _KINDS.items():
        taken = in_turn([partial(measure, cluster) for cluster in clusters.values()], rounds=ROUNDS)
        for nodes, value in zip(SIZES, taken, strict=True):
            yield Row(
                f"Core, {nodes:,} nodes, {QUEUED:,} queued: {name}",
                Figure(MICRO / value, "/s"),
                Figure(MICRO / taken[0], "/s"),
                Target(reach=0.5, beyond=0.8) if nodes != SIZES[0] else None,
            )


def _largest() -> Iterator[Row]:
    cluster = Cluster(SIZES[-1], MANY_QUEUED)
    for name, measure in _KINDS.items():
        value = in_turn([partial(measure, cluster)], rounds=ROUNDS)[0]
        what = f"Core, {SIZES[-1]:,} nodes, {MANY_QUEUED:,} queued: {name}"
        yield Row(what, Figure(value, "µs"), target=TARGET)


def _memory() -> Row:
    cluster = Cluster(1, 0)
    gc.collect()
    tracemalloc.start()
    for number in range(QUEUED):
        cluster.do(cluster.submit(SHAPES[number % 4]))
    gc.collect()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 90 MiB for a coordinator with 10,000 queued, of which its program takes a half
    target = Target(reach=9_000, beyond=4_500, at_most=True, of_ratio=False, unit="bytes")
    return Row(
        "Core: memory of a queued job and its request",
        Figure(used / QUEUED, "bytes"),
        target=target,
    )


_KINDS: dict[str, Callable[[Cluster], float]] = {
    "submit that must wait": Cluster.submits,
    "cancel of a waiting job": Cluster.cancels,
    "report with nothing new": Cluster.reports,
    "end of a job, placing of the next": Cluster.ends,
}


if __name__ == "__main__":
    print(text_table(rows()))
