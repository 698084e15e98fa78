"""Who is PENDING until a limit lets it, over random stories of limits, jobs and ends."""

from __future__ import annotations

from random import Random

import pytest

from coordinator.core.commands import CancelJob, ObservedLease, PutQueue, SubmitJob, SubmitJobs
from coordinator.core.core import Core
from coordinator.core.decision import Changed, Decision
from coordinator.core.reasons import Reason
from coordinator.core.records import Demand, Job, JobStatus, LeaseState, Policy, Queue
from coordinator.core.schedule import MOST_LET_IN
from tests.unit.core.agents import CALLER, report, unwatched

DEVICES = 6
CLAIMS = {Reason.ROOM_CLAIMED, Reason.CLAIM_LOST}


class Limited:
    """One node, and a queue with a limit."""

    def __init__(self, most: int) -> None:
        self.core, self.now_ms = unwatched(), 1_000
        self._sequence = self._jobs = 0
        self.report()
        self.limit(most)

    def jobs(self, *statuses: JobStatus) -> list[Job]:
        return [x for x in self.core.state.jobs.values() if x.status in statuses or not statuses]

    def limit(self, most: int) -> None:
        queue = Queue(name="small", max_devices=most)
        self.core.step(PutQueue(caller=CALLER, queue=queue), self.now_ms)
        self.settle()

    def submit(self, number: int, *, count: int = 1, queue: str = "small") -> None:
        made = []
        for _ in range(number):
            self._jobs += 1
            made.append(
                SubmitJob(
                    caller=CALLER,
                    job_id=f"j{self._jobs}",
                    name="",
                    queue_name=queue,
                    demand=Demand(device_count=count),
                    policy=Policy(),
                    document=b"",
                )
            )
        self.core.step(SubmitJobs(caller=CALLER, jobs=tuple(made)), self.now_ms)
        self.settle()

    def cancel(self, job_id: str) -> None:
        self.core.step(CancelJob(caller=CALLER, job_id=job_id), self.now_ms)
        self.settle()

    def report(self, *, over: str = "") -> None:
        """All that is granted runs; one may have ended, and what is to stop has."""
        self._sequence += 1
        leases = []
        for lease in self.core.state.leases_on("n1"):
            ends = lease.job_id == over or self.core.state.jobs[lease.job_id].is_final
            state = LeaseState.ENDED if ends else LeaseState.RUNNING
            leases.append(
                ObservedLease(
                    lease_id=lease.lease_id,
                    epoch=lease.epoch,
                    state=state,
                    done=ends,
                    started_at_ms=self.now_ms,
                )
            )
        command = report("n1", leases, sequence=self._sequence, devices=DEVICES)
        self.core.step(command, self.now_ms)

    def settle(self) -> None:
        """Passes, until there is nothing more to do."""
        while self.core.next_deadline_ms() == 0:
            self.core.schedule(self.now_ms)


@pytest.mark.parametrize("seed", range(20))
def test_at_rest_who_is_pending_is_kept_back_by_a_limit(seed: int) -> None:
    rng = Random(seed)
    cluster = Limited(rng.randint(1, 8))
    for _ in range(40):
        act = rng.randrange(5)
        waiting = cluster.jobs(JobStatus.PENDING, JobStatus.QUEUED)
        running = cluster.jobs(JobStatus.TRAINING)
        if act < 2:
            queue = rng.choice(("small", "small", "default"))
            cluster.submit(rng.randint(1, 4), count=rng.randint(1, 3), queue=queue)
        elif act == 2 and waiting:
            cluster.cancel(rng.choice(waiting).job_id)
        elif act == 3 and running:
            cluster.report(over=rng.choice(running).job_id)
        elif act == 4:
            cluster.limit(rng.choice((1, 2, 4, 8)))
        cluster.settle()
        cluster.report()
        state = cluster.core.state
        for job in cluster.jobs(JobStatus.PENDING):
            assert job.reason == Reason.WAITING_FOR_QUOTA
            assert job.queue_name == "small"
            assert state.shares.limit_of(job) is not None, job.job_id
        cluster.core.check_invariants()
        other = Core(cluster.core.settings)
        other.load(state.records())
        while other.next_deadline_ms() == 0:
            causes = {one.cause for one in changes(other.schedule(cluster.now_ms))}
            assert causes <= CLAIMS, "who looks at all of them anew lets nobody in"


def changes(decision: Decision) -> list[Changed]:
    return [event for event in decision.events if isinstance(event, Changed)]


def test_of_very_many_who_are_alike_a_pass_lets_some_in_and_the_next_the_others() -> None:
    cluster = Limited(1)
    cluster.submit(1, count=DEVICES, queue="default")
    cluster.submit(MOST_LET_IN + 7, count=2)
    assert len(cluster.jobs(JobStatus.PENDING)) == MOST_LET_IN + 7
    queue = Queue(name="small", max_devices=DEVICES)
    cluster.core.step(PutQueue(caller=CALLER, queue=queue), cluster.now_ms)
    cluster.core.schedule(cluster.now_ms)
    assert len(cluster.jobs(JobStatus.PENDING)) == 6  # and the first, whose turn it was
    assert cluster.core.next_deadline_ms() == 0
    cluster.settle()
    assert not cluster.jobs(JobStatus.PENDING)
