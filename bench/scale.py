"""What a decision costs in a large cluster with many queues: `python -m bench scale`.

A hundred queues in a tree, in each order, with users, guarantees, limits and preemption; every device is
held, by trainings of all sizes that have run for hours; a hundred thousand jobs wait. That is where a
scheduler that scans nodes, jobs or queues slows down. The same is measured with a tenth of the nodes.
All of it is processor time of the core: a command, what is due by then, and the placement pass after it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

from bench.core_bench import MICRO, NOW_MS, offer
from bench.report import Figure, Row, Target, in_turn, text_table
from coordinator.core.commands import (
    Caller,
    Command,
    ObservedLease,
    PutQueue,
    Recover,
    SubmitJob,
    SyncNode,
    Tick,
)
from coordinator.core.core import Core
from coordinator.core.decision import Decision, Rejected
from coordinator.core.records import (
    Checkpoint,
    Demand,
    Lease,
    LeaseAction,
    LeaseState,
    Order,
    Policy,
    Queue,
)
from coordinator.core.settings import CoreSettings

NODES, FEWER_NODES = 10_000, 1_000
QUEUED, QUEUES, USERS = 100_000, 100, 10  # users of each queue
COMMANDS = 400  # of each kind in one measure
ROUNDS = 3
HOUR_MS = 3_600_000
STEP_MS = 5  # between two commands
ADMIN = Caller(tenant_id="acme", user_id="root")
QUIET = CoreSettings(unreachable_after_ms=1 << 50, replace_after_ms=1 << 51)  # reports are sparse
RUNNING = tuple(
    Demand(device_count=devices, device_type="H100", node_count=nodes)
    for devices, nodes in ((8, 0), (4, 0), (4, 0), (2, 0), (2, 0), (2, 0), (1, 0), (1, 0), (32, 4))
)
WAITING = tuple(
    Demand(device_count=devices, device_type="H100", node_count=nodes, memory_bytes=memory)
    for devices, nodes in ((1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (16, 2), (64, 8), (512, 0))
    for memory in (0, 16_000_000_000)
)
MINUTES = (30, 90, 300, 1_200, 4_000)  # that trainings take


class Crowd:
    """A full cluster with queues, and the commands that come in."""

    def __init__(self, nodes: int, queued: int, *, queues: int = QUEUES) -> None:
        self.core = Core(QUIET)
        self.now_ms = NOW_MS
        self._woken: dict[str, None] = {}
        self._sequence, self._jobs, self._turns = count(1), count(1), count()
        self._offers = {f"n{number:05}": offer(f"n{number:05}") for number in range(nodes)}
        self._nodes = [*self._offers]
        self._queues = [f"q{number:03}" for number in range(queues)]
        self.do(Recover(epoch=1))
        for queue in _tree(self._queues, devices=8 * nodes):
            self.do(PutQueue(caller=ADMIN, queue=queue))
        for node_id in self._offers:
            self.core.step(self.sync(node_id), self.now_ms)
        self._fill()
        self.now_ms += 3 * HOUR_MS  # all may be preempted by now
        for _ in range(queued):
            self.core.step(self.submit(), self.now_ms)
        self.rest()
        self.follow()

    def do(self, command: Command) -> Decision:
        """A batch of one command: the dearest way to ask."""
        self.now_ms += STEP_MS
        decision = self._note(self.core.step(command, self.now_ms))
        assert not isinstance(decision.reply, Rejected), decision.reply
        due_ms = self.core.state.deadlines.next_ms()
        if due_ms is not None and due_ms <= self.now_ms:
            self._note(self.core.step(Tick(), self.now_ms))
        self._note(self.core.schedule(self.now_ms))
        return decision

    def rest(self) -> None:
        """Passes until there is nothing to look at."""
        while self.core.next_deadline_ms() == 0:
            self._note(self.core.schedule(self.now_ms))

    def follow(self) -> None:
        """Lets the agents do what is desired of them, until nothing is."""
        while self._woken:
            for node_id in [*self._woken]:
                self._woken.pop(node_id, None)
                self.do(self.sync(node_id, LeaseState.RUNNING))

    def _note(self, decision: Decision) -> Decision:
        self._woken.update(dict.fromkeys(effect.node_id for effect in decision.effects))
        return decision

    def submit(self, demand: Demand | None = None) -> SubmitJob:
        """A submit as a border makes it: nothing in it is shared with another."""
        number = next(self._jobs)
        queue_name = self._queues[number % len(self._queues)]
        user = f"user-{queue_name}-{number // len(self._queues) % USERS}"
        caller = Caller(
            tenant_id="acme", user_id=user, request_id=f"request-{number}", digest="d" * 64
        )
        minutes = MINUTES[number // 7 % len(MINUTES)]
        shape = demand or WAITING[number // 3 % len(WAITING)]
        return SubmitJob(
            caller=caller,
            job_id=f"job-{number:012}",
            name=f"training {number % 50}",
            demand=replace(shape),
            policy=Policy(expected_duration_ms=minutes * 60_000 if number % 2 else 0),
            document=b"",
            priority=1 + number % 10,
            queue_name=queue_name,
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

    def _fill(self) -> None:
        """Trainings of all sizes, until nothing is free."""
        free = self.core.state.free
        while free.devices_by_type.get("H100", 0):
            left = free.devices_by_type["H100"]
            demand = RUNNING[next(self._turns) % len(RUNNING)]
            if left < demand.device_count * 2:
                demand = RUNNING[-2]
            self.do(self.submit(demand))
            self.rest()
        for node_id in self._nodes:
            self.core.step(self.sync(node_id, LeaseState.RUNNING), self.now_ms)
        self.follow()

    # what is measured, in microseconds of processor time

    def report(self) -> Decision:
        """A report in which nothing is new."""
        return self.do(self.sync(self._node(), LeaseState.RUNNING))

    def submits(self) -> float:
        """Per submit of a job."""
        self.follow()
        return self._measure([self.submit() for _ in range(COMMANDS)])

    def reports(self) -> float:
        """Per report in which nothing is new."""
        nodes = [self._node() for _ in range(COMMANDS)]
        self.follow()
        return self._measure([self.sync(node_id, LeaseState.RUNNING) for node_id in nodes])

    def ends(self) -> float:
        """Per decision when jobs end: one for each that ended, one for each that is placed."""
        spent_s, decisions = 0.0, 0
        for _ in range(COMMANDS // 4):
            node_id = self._node()
            self.follow()
            ended = self.sync(node_id, LeaseState.ENDED)
            waiting = len(self.core.state.queue)
            began = time.process_time()
            self.do(ended)
            spent_s += time.process_time() - began
            decisions += len(ended.leases) + max(0, waiting - len(self.core.state.queue))
        return spent_s / max(1, decisions) * MICRO

    def full_pass(self) -> float:
        """Looking at every group of jobs that wait, and finding no room."""
        self.follow()
        state = self.core.state
        state.queue.try_again([*state.queue.blocked()])
        began = time.process_time()
        self.rest()
        return (time.process_time() - began) * MICRO

    def _node(self) -> str:
        return self._nodes[next(self._turns) % len(self._nodes)]

    def _measure(self, commands: Sequence[Command]) -> float:
        began = time.process_time()
        for command in commands:
            self.do(command)
        return (time.process_time() - began) / max(1, len(commands)) * MICRO


def _observed(lease: Lease, state: LeaseState) -> ObservedLease:
    """What an agent that is as quick as can be says of a lease."""
    stopped = lease.action is LeaseAction.STOP
    saved = Checkpoint(
        checkpoint_id=f"{lease.lease_id}-{lease.save}",
        step=lease.save,
        uri="",
        size_bytes=0,
        digest="",
        created_at_ms=NOW_MS,
        attempt=lease.attempt,
    )
    return ObservedLease(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        state=LeaseState.ENDED if stopped else state,
        stopped=stopped,
        done=state is LeaseState.ENDED and not stopped,
        started_at_ms=NOW_MS,
        saved=lease.save,
        checkpoints=(saved,) if lease.save and not lease.node_rank else (),
    )


def _tree(names: Sequence[str], *, devices: int) -> Iterator[Queue]:
    """Ten groups of queues in every order; some are guaranteed something, some limited."""
    orders = (Order.PRIORITY_FIFO, Order.FAIR, Order.SHORTEST)
    part = devices // max(1, len(names))
    for number in range(min(10, len(names))):
        guaranteed = 4 * part if number % 3 == 0 else 0
        yield Queue(name=f"g{number}", order=orders[number % 2], guaranteed_devices=guaranteed)
    for number, name in enumerate(names):
        order = orders[number % 3]
        yield Queue(
            name=name,
            parent=f"g{number % 10}",
            weight=1 + number % 4,
            order=order,
            preempts=order is Order.SHORTEST,
            max_devices=part * 3 if number % 7 == 0 else 0,
        )


def rows() -> list[Row]:
    """Costs in the large cluster, and beside those in the small one."""
    gc.disable()
    small, large = Crowd(FEWER_NODES, QUEUED), Crowd(NODES, QUEUED)
    found = []
    for name, measure in _KINDS.items():
        fewer, many = in_turn([partial(measure, one) for one in (small, large)], rounds=ROUNDS)
        what = f"Core, {NODES:,} nodes × 8, {QUEUED:,} queued in {QUEUES} queues"
        most = 1_000_000 if name == _PASS else 1_000
        target = Target(reach=most, beyond=most / 5, at_most=True, of_ratio=False, unit="µs")
        found.append(Row(f"{what}: {name}", Figure(many, "µs"), target=target))
        found.append(
            Row(
                f"{what}: {name}; with {FEWER_NODES:,} nodes",
                Figure(many, "µs"),
                Figure(fewer, "µs"),
                Target(reach=2, beyond=1.2, at_most=True),
            )
        )
    return found


_PASS = "a full pass over all that wait"
_KINDS: dict[str, Callable[[Crowd], float]] = {
    "submit": Crowd.submits,
    "report with nothing new": Crowd.reports,
    "end of a job, placing of the next": Crowd.ends,
    _PASS: Crowd.full_pass,
}


if __name__ == "__main__":
    print(text_table(rows()))
