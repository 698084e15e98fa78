"""Worlds full of gaps, and who is moved there so that others fit: only once it has saved, and it goes on where
that was set aside for it. Few worlds are such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from coordinator.core.decision import Changed, Event
from coordinator.core.known import is_moving
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    Ask,
    Demand,
    Job,
    JobStatus,
    Lease,
    OnTimeout,
    Order,
    Queue,
    StopCause,
)
from coordinator.core.tables import RUNNING
from tests.sim.clock import SECOND
from tests.sim.kept import RecordsKept
from tests.sim.plans import Plan
from tests.sim.swarm import Swarm
from tests.sim.truth import JobChecker, SimFailure

if TYPE_CHECKING:
    from tests.sim.world import World

WORLDS = 12  # one in so many
NODES = 3
DEVICES = 4
FAULTS_KEPT = 0.4


def with_equal_nodes(swarm: Swarm, rng: Random) -> Swarm:
    """The same with nodes that are alike, and few of its faults."""
    few = {name: rate for name, rate in swarm.faults.items() if rng.random() < FAULTS_KEPT}
    clocks = (*swarm.node_clocks, *swarm.node_clocks * NODES)[:NODES]
    return replace(swarm, faults=few, node_devices=(("H100", DEVICES),) * NODES, node_clocks=clocks)


def with_gaps(plans: Mapping[str, Plan], rng: Random) -> dict[str, Plan]:
    """The same jobs, each on one node, some on all of it; most of them can be moved, and some never save."""
    found = {}
    for name, plan in plans.items():
        count = rng.choice((1, 1, 2, 2, 3, DEVICES))
        policy = replace(
            plan.policy,
            preemptible=rng.random() < 0.9,
            requeue_on_preemption=rng.random() < 0.9,
            grace_ms=rng.choice((1, 5, 10)) * SECOND,
            max_runtime_ms=0,
            expected_duration_ms=rng.choice((0, 60, 90)) * SECOND,
        )
        found[name] = replace(
            plan,
            demand=Demand(device_count=count, node_count=1),
            policy=policy,
            priority=5,
            duration_ms=rng.choice((20, 60, 60, 90)) * SECOND,
            checkpoints=rng.random() < 0.7,
            fails=min(plan.fails, 1),
        )
    return found


def let_preempt(world: World, rng: Random) -> None:
    """An operator lets the jobs of a queue be moved."""
    order = rng.choice((Order.PRIORITY_FIFO, Order.SHORTEST))
    queue = Queue(name="default", order=order, preempts=True)
    world.loop.after(SECOND, partial(world.people.put_queue, queue))


class MovedSafely(JobChecker):
    """Who is moved is stopped only with a checkpoint proven, and goes on where that was set aside for it."""

    facts = (Job, Lease)

    def __init__(self, seen: Callable[[str, str], None]) -> None:
        super().__init__()
        self._seen = seen
        self._leases: dict[str, Lease] = {}
        self._moved: dict[str, Job] = {}  # as they were when they stood aside

    def rewound(self, store: RecordsKept) -> None:
        super().rewound(store)
        self._leases = {x.lease_id: x for x in store.live.values() if isinstance(x, Lease)}
        self._moved.clear()

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed) and isinstance(event.record, Lease):
            self._leases[event.record.lease_id] = event.record
        super().committed(event, number)

    def changed(self, event: Changed, job: Job, *, before: Job | None) -> None:
        if before is None or before.attempt is None or job.attempt is None:
            return
        if is_moving(job) and not is_moving(before):
            self._check_mates(job)
            self._seen("moved", "is asked")
        ask = job.attempt.ask if before.attempt.ask is None and is_moving(job) else None
        if ask is not None and not is_move(ask):
            raise SimFailure(f"{job.job_id} is moved, saved or not", job.job_id)
        if event.cause is Reason.MOVE_GIVEN_UP:
            self._check_stays(job)
            self._seen("moved", "stays")
        was = before.attempt.ask
        if was is not None and is_move(was) and job.attempt.stop is StopCause.PREEMPTED:
            first = self._leases[f"{job.job_id}.{job.attempt.number}.0"]
            if first.saved < first.save:
                raise SimFailure(f"{job.job_id} is moved and has saved nothing", job.job_id)
        moved = self._moved.pop(job.job_id, None)
        if job.status is JobStatus.PREEMPTED and job.room:
            self._moved[job.job_id] = job
        elif moved is not None and job.status is JobStatus.QUEUED and job.room == moved.room:
            self._moved[job.job_id] = moved  # it waits for the last to leave
        elif moved is not None and event.cause is Reason.REQUEUED:
            raise SimFailure(f"{job.job_id} was moved and has no place", job.job_id)
        elif moved is not None and event.cause is Reason.PLACED:
            if job.attempt.shares != moved.room:
                text = f"{job.job_id} goes on elsewhere than where it was to"
                raise SimFailure(text, job.job_id)
            self._seen("moved", "goes on")

    def _check_mates(self, job: Job) -> None:
        assert job.attempt is not None
        rival = self._jobs[job.attempt.makes_room_for]
        if (rival.queue_name, rival.standing) != (job.queue_name, job.standing):
            raise SimFailure(f"{job.job_id} is moved for {rival.job_id}", job.job_id)

    def _check_stays(self, job: Job) -> None:
        assert job.attempt is not None
        if job.room or job.status not in RUNNING or job.attempt.makes_room_for:
            raise SimFailure(f"{job.job_id} stays and is moved all the same", job.job_id)
        held = {device for share in job.attempt.shares for device in share.device_ids}
        for one in self._jobs.values():
            kept = {device for share in one.room for device in share.device_ids}
            if one.job_id != job.job_id and not held.isdisjoint(kept):
                text = f"{one.job_id} waits for what {job.job_id} keeps"
                raise SimFailure(text, one.job_id, job.job_id)


def is_move(ask: Ask) -> bool:
    """Whether an attempt was asked to save so that it goes on elsewhere, and to stay if it does not."""
    return ask.cause is StopCause.PREEMPTED and ask.on_timeout is OnTimeout.KEEP_RUNNING
