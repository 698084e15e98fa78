"""The real core over a recorded workload, in virtual time.

The core decides as it does live: commands go in, decisions come out, one placement pass for each batch
of what happens at the same moment. What the recording stands in for are the agents: a lease that is
desired runs at once, an attempt ends when its job has run for as long as it was recorded to, a save that
is asked for is proven after `checkpoint_ms` in which the training stands still, and an attempt after the
first gets nowhere for `restart_ms`. Agents report when something happens to them and not every second.
"""

from __future__ import annotations

import heapq
import sys
import time
from dataclasses import dataclass, field

from bench.traces.workload import TraceJob, Workload
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
from coordinator.core.records import Checkpoint, Lease, LeaseAction, LeaseState, Policy, Queue
from coordinator.core.settings import CoreSettings

ZERO_MS = 1_600_000_000_000  # the trace's zero on the core's clock
AGES_MS = 1_000 * 365 * 86_400_000  # nobody is out of contact here
ENOUGH = 100_000_000  # live jobs
CALLER = "trace"
TELL_EVERY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What it costs to preempt: devices are held and nothing is learnt meanwhile."""

    checkpoint_ms: int
    restart_ms: int


@dataclass(slots=True)
class Work:
    """A job as the world sees it."""

    row: TraceJob
    left_ms: int
    attempt: int = 0  # that runs now or ran last
    productive_from_ms: int = 0  # of the attempt; from then on `left_ms` shrinks
    standing: bool = False  # it saves: nothing shrinks until it is stopped
    saved: int = 0  # the highest save that is proven
    asked: int = 0  # the highest save that was heard of
    stops: int = 0
    nodes: tuple[str, ...] = ()
    done_at_ms: int = 0
    ended: bool = False  # the attempt ran to its end


@dataclass(slots=True)
class Tally:
    """What a replay came to."""

    work: dict[str, Work] = field(default_factory=dict)
    refused: int = 0
    preemptions: int = 0
    lost_device_ms: int = 0
    held_device_ms: int = 0
    decisions: int = 0
    wall_s: float = 0.0


class Replay:
    """One workload, one core, one pass through time."""

    def __init__(self, workload: Workload, *, queue: Queue, costs: Costs, given: bool) -> None:
        settings = CoreSettings(
            unreachable_after_ms=AGES_MS, replace_after_ms=2 * AGES_MS, max_live_jobs=ENOUGH
        )
        self.core = Core(settings)
        self._queue = queue
        self.tally = Tally()
        self._workload = workload
        self._costs = costs
        self._given = given
        self._now_ms = ZERO_MS
        self._sequences = dict.fromkeys(workload.nodes, 0)
        self._heap: list[tuple[int, int, str, int]] = []  # (when, serial, job, attempt)
        self._serial = 0
        self._woken: dict[str, None] = {}

    def run(self) -> Tally:
        """Plays everything to its end, and says on the error stream now and then how far it is."""
        began = told = time.perf_counter()
        self._step(Recover(epoch=1))
        self._step(PutQueue(caller=Caller(tenant_id=CALLER, user_id=CALLER), queue=self._queue))
        for node_id in self._workload.nodes:
            self._report(node_id)
        coming = iter(self._workload.jobs)
        row = next(coming, None)
        while True:
            at_ms = self._next_ms(row)
            if at_ms is None:
                break
            self._now_ms = max(self._now_ms, at_ms)
            while row is not None and row.submit_ms + ZERO_MS <= self._now_ms:
                self._submit(row)
                row = next(coming, None)
            self._happen()
            self._settle()
            if time.perf_counter() > told + TELL_EVERY_S:
                told = time.perf_counter()
                _tell(self.tally, of=len(self._workload.jobs), at_ms=self._now_ms - ZERO_MS)
        self.tally.wall_s = time.perf_counter() - began
        return self.tally

    def _next_ms(self, row: TraceJob | None) -> int | None:
        found = [self._heap[0][0]] if self._heap else []
        if row is not None:
            found.append(row.submit_ms + ZERO_MS)
        due_ms = self.core.next_deadline_ms()
        if due_ms is not None and due_ms < ZERO_MS + AGES_MS:
            found.append(due_ms)
        return min(found, default=None)

    def _submit(self, row: TraceJob) -> None:
        reply = self._step(
            SubmitJob(
                caller=Caller(tenant_id=CALLER, user_id=row.user),
                job_id=row.job_id,
                name="training",
                demand=row.demand,
                policy=Policy(expected_duration_ms=row.duration_ms if self._given else 0),
                document=b"",
            )
        ).reply
        if isinstance(reply, Rejected):
            self.tally.refused += 1
        else:
            self.tally.work[row.job_id] = Work(row, row.duration_ms)

    def _happen(self) -> None:
        """What comes due now: deadlines of the core, ends of trainings, proofs of checkpoints."""
        due_ms = self.core.state.deadlines.next_ms()
        if due_ms is not None and due_ms <= self._now_ms:
            self._step(Tick())
        while self._heap and self._heap[0][0] <= self._now_ms:
            _, _, job_id, attempt = heapq.heappop(self._heap)
            work = self.tally.work[job_id]
            if work.attempt != attempt or work.done_at_ms:
                continue
            if work.standing:
                if work.saved < work.asked:
                    work.saved = work.asked
                    self._report(work.nodes[0])
            elif not work.ended and self._progress(work) >= work.left_ms:
                work.ended = True
                for node_id in work.nodes:
                    self._report(node_id)

    def _settle(self) -> None:
        """Passes and reports until nobody has anything to say any more."""
        self._note(self.core.schedule(self._now_ms))
        while self._woken:
            for node_id in [*self._woken]:
                self._woken.pop(node_id, None)
                self._report(node_id)
            self._note(self.core.schedule(self._now_ms))

    def _report(self, node_id: str) -> None:
        self._sequences[node_id] += 1
        leases = [x for x in self.core.state.leases_on(node_id) if not x.is_ended]
        self._step(
            SyncNode(
                node_id=node_id,
                incarnation="a",
                generation=1,
                sequence=self._sequences[node_id],
                offer=self._workload.nodes[node_id],
                leases=tuple([self._observe(lease) for lease in leases]),
            )
        )

    def _observe(self, lease: Lease) -> ObservedLease:
        """What the agent of a lease would tell of it now."""
        work = self.tally.work[lease.job_id]
        if lease.attempt != work.attempt:
            self._begin(work, lease.attempt)
        state = LeaseState.RUNNING
        stopped = lease.action is LeaseAction.STOP
        if work.ended or stopped:
            state = LeaseState.ENDED
            if lease.node_rank == 0:
                self._end(work, stopped=stopped and not work.ended)
        elif lease.save > work.asked:
            self._save(work, lease.save)
        return ObservedLease(
            lease_id=lease.lease_id,
            epoch=lease.epoch,
            state=state,
            done=work.ended,
            stopped=stopped,
            checkpoints=_checkpoints(work, self._now_ms) if lease.node_rank == 0 else (),
            saved=work.saved,
            started_at_ms=self._now_ms,
        )

    def _begin(self, work: Work, attempt: int) -> None:
        job = self.core.state.jobs[work.row.job_id]
        assert job.attempt is not None
        work.attempt = attempt
        work.nodes = tuple(share.node_id for share in job.attempt.shares)
        work.standing = work.ended = False
        work.saved = work.asked = 0
        wait_ms = self._costs.restart_ms if work.stops else 0
        self.tally.lost_device_ms += wait_ms * job.demand.device_count
        work.productive_from_ms = self._now_ms + wait_ms
        self._at(work.productive_from_ms + work.left_ms, work)

    def _save(self, work: Work, save: int) -> None:
        """The training stands still until the checkpoint is proven; what it reached is kept."""
        work.asked = save
        if not work.standing:
            work.left_ms -= self._progress(work)
            work.standing = True
        lost_ms = self._costs.checkpoint_ms
        self.tally.lost_device_ms += lost_ms * work.row.demand.device_count
        self._at(self._now_ms + lost_ms, work)

    def _end(self, work: Work, *, stopped: bool) -> None:
        job = self.core.state.jobs[work.row.job_id]
        assert job.attempt is not None
        count = job.demand.device_count
        self.tally.held_device_ms += (self._now_ms - job.attempt.granted_at_ms) * count
        if not stopped:
            work.done_at_ms = self._now_ms
            return
        work.stops += 1
        self.tally.preemptions += 1
        if not work.standing:  # nothing was saved
            self.tally.lost_device_ms += self._progress(work) * count

    def _progress(self, work: Work) -> int:
        return max(0, self._now_ms - work.productive_from_ms)

    def _at(self, at_ms: int, work: Work) -> None:
        self._serial += 1
        heapq.heappush(self._heap, (at_ms, self._serial, work.row.job_id, work.attempt))

    def _step(self, command: Command) -> Decision:
        self.tally.decisions += 1
        decision = self.core.step(command, self._now_ms)
        for effect in decision.effects:
            self._woken[effect.node_id] = None
        return decision

    def _note(self, decision: Decision) -> None:
        self.tally.decisions += bool(decision.events)
        for effect in decision.effects:
            self._woken[effect.node_id] = None


def _tell(tally: Tally, *, of: int, at_ms: int) -> None:
    ended = sum(bool(work.done_at_ms) for work in tally.work.values())
    what = f"day {at_ms / 86_400_000:.1f}: {len(tally.work)} of {of} jobs have come, {ended} ended"
    print(what, file=sys.stderr, flush=True)


def _checkpoints(work: Work, now_ms: int) -> tuple[Checkpoint, ...]:
    if not work.saved:
        return ()
    name = f"{work.row.job_id}-{work.attempt}"
    one = Checkpoint(
        checkpoint_id=name,
        step=work.attempt,
        uri=name,
        size_bytes=0,
        digest="",
        created_at_ms=now_ms,
        attempt=work.attempt,
    )
    return (one,)
