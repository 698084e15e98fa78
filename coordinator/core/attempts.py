"""The life of an attempt: granted, followed, stopped, concluded.

A job's status follows from the leases of its newest attempt; every edge between is taken and recorded,
even when one report jumps over several. Devices are free only once their agent has reported that nothing
of the lease is left: capacity is freed by evidence, never by a wish.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.core.care import testify
from coordinator.core.estimate import kins_of, learn
from coordinator.core.invariants import ensure
from coordinator.core.ledger import begun, blamed
from coordinator.core.placement import Placement, node_share
from coordinator.core.queues import awaits_quota
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    FINAL,
    Attempt,
    Failure,
    Job,
    JobStatus,
    Kind,
    Lease,
    LeaseAction,
    LeaseState,
    StopCause,
)
from coordinator.core.replacing import replace
from coordinator.core.retry import (
    HANG,
    NODE_LOST,
    Backoff,
    ended_well,
    excuse,
    first_failure,
    judge,
    step_of,
)
from coordinator.core.ruling import keep_drain
from coordinator.core.tables import next_status
from coordinator.core.turn import Turn

DEPENDENCY_FAILURE = "CONFIG"


def let_in(turn: Turn, job: Job) -> Job:
    """Lets a job wait for devices, or be given some, that no limit keeps back."""
    pending = job.status is JobStatus.PENDING
    return turn.move(job, Reason.WAITING_FOR_CAPACITY) if pending else job


def grant(turn: Turn, job: Job, *, placement: Placement, lent_by: str = "") -> Job:
    """Gives a waiting job its devices: a new attempt, one lease per node."""
    job = let_in(turn, job)
    number = job.attempt.number + 1 if job.attempt else 1
    shares = tuple(spot.share() for spot in placement)
    attempt = Attempt(
        number=number,
        shares=shares,
        granted_at_ms=turn.now_ms,
        lent_by=lent_by,
        times=begun(turn.now_ms),
    )
    job = turn.move(job, Reason.PLACED, attempt=attempt)
    first_rank = 0
    for node_rank, spot in enumerate(placement):
        node = turn.state.nodes[spot.node_id]
        ensure(node.drain is None and not node.unreachable_since_ms, "the node takes jobs", node)
        ensure(not node.health.bars(spot.device_ids), "what is out takes nothing new", node)
        part = node_share(job.demand, spot.rank_count)
        lease = Lease(
            lease_id=f"{job.job_id}.{number}.{node_rank}",
            epoch=turn.epoch,
            job_id=job.job_id,
            attempt=number,
            node_id=spot.node_id,
            device_ids=spot.device_ids,
            thousandths=spot.thousandths,
            exclusive=job.demand.exclusive,
            cpu_count=part.cpu_count,
            memory_bytes=part.memory_bytes,
            disk_bytes=part.disk_bytes,
            node_rank=node_rank,
            first_rank=first_rank,
            local_world_size=spot.rank_count,
            granted_at_ms=turn.now_ms,
            fence_after_ms=turn.state.fence_after_ms(job),
        )
        first_rank += spot.rank_count
        turn.put(lease, Reason.LEASE_GRANTED)
        turn.wake(spot.node_id)
    return job


def stop(turn: Turn, job: Job, *, cause: StopCause, failure: Failure | None = None) -> Job:
    """Asks for the end of a job's attempt. The first cause stays; only the job is told why."""
    ensure(job.attempt is not None, "an attempt is stopped", job.job_id)
    assert job.attempt is not None
    if job.attempt.stop is None:
        leases = turn.state.attempt_leases(job)
        drained = [x.node_id for x in leases if (n := turn.state.nodes.get(x.node_id)) and n.drain]
        if cause is StopCause.DRAINED:
            keep_drain(turn, job, leases=leases)
        by = blamed(job, leases, cause=cause, drained=drained)
        changes: dict[str, object] = {
            "attempt": replace(job.attempt, stop=cause, ask=None, stopped_by=by),
            "message": f"its ranks are being stopped: {cause}",
        }
        if failure is not None:
            changes["failure"] = failure
        job = turn.edit(job, _REASON_OF_STOP[cause], **changes)
    stop_leases(turn, job)
    return job


def stop_leases(turn: Turn, job: Job) -> None:
    """Desires the end of every lease of the attempt that has not ended."""
    for lease in turn.state.attempt_leases(job):
        if not lease.is_ended and lease.action is LeaseAction.RUN:
            turn.edit_lease(
                lease,
                Reason.LEASE_STOP_ASKED,
                action=LeaseAction.STOP,
                grace_ms=job.policy.grace_ms,
            )
            turn.wake(lease.node_id)


def follow(turn: Turn, job_id: str, *, checkpointing: bool | None, backoff: Backoff) -> None:
    """Brings a job up to what its leases say. `checkpointing` is None where nobody said."""
    job = turn.state.jobs[job_id]
    if job.is_final or job.attempt is None:
        return
    leases = turn.state.attempt_leases(job)
    if job.attempt.stop is None:
        job = _walk(turn, job, leases=leases, checkpointing=checkpointing)
        failure = first_failure(leases)
        if failure is not None:
            lost = failure.category == NODE_LOST
            cause = StopCause.NODE_LOST if lost else StopCause.RANK_FAILED
            job = stop(turn, job, cause=cause, failure=failure)
            leases = turn.state.attempt_leases(job)
    if leases and all(lease.is_over for lease in leases):
        _conclude(turn, job, leases=leases, backoff=backoff)


def settle(turn: Turn) -> None:
    """Follows up on jobs that became final: who depended on them, and their leaving memory."""
    while turn.finished:
        job_id = turn.finished.popleft()
        for waiting_id in list(turn.state.dependents.get(job_id, ())):
            reconsider(turn, turn.state.jobs[waiting_id])
        if job_id in turn.state.jobs and job_id not in turn.state.leases_of_job:
            turn.retire(Kind.JOB, job_id)  # no agent holds anything of it


def is_newest(job: Job, lease: Lease) -> bool:
    """Whether the lease is of the job's newest attempt."""
    return job.attempt is not None and job.attempt.number == lease.attempt


def forget(turn: Turn, lease: Lease) -> None:
    """Lets an ended lease go, unless its attempt still needs it to be judged."""
    job = turn.state.jobs[lease.job_id]
    judged = job.attempt is not None and bool(job.attempt.ended_at_ms)
    if job.is_final or judged or not is_newest(job, lease):
        turn.retire(Kind.LEASE, lease.lease_id)
        if job.is_final:
            turn.finished.append(job.job_id)


def failed_on(job: Job) -> str:
    """The node on which the newest attempt failed; "" where that is not known."""
    if job.attempt is None or job.failure is None:
        return ""
    shares = job.attempt.shares
    if len(shares) == 1:
        return shares[0].node_id
    if job.failure.rank is None:
        return ""
    left = job.failure.rank
    for share in shares:
        left -= len(share.device_ids) // job.demand.devices_per_rank
        if left < 0:
            return share.node_id
    return ""


def reconsider(turn: Turn, job: Job) -> Job:
    """Looks again at what a PENDING job waits for; one that is held only at whether it is in vain."""
    for needed_id in job.policy.depends_on:
        needed = turn.state.jobs.get(needed_id)
        if needed is not None and needed.is_final and needed.status is not JobStatus.COMPLETED:
            return fail_dependency(turn, job, needed_id=needed_id, status=needed.status.value)
    reason = blocker(turn, job)
    if reason is Reason.WAITING_FOR_CAPACITY and awaits_quota(turn.state, job):
        reason = Reason.WAITING_FOR_QUOTA
    if job.status is not JobStatus.PENDING or job.reason == reason:
        return job
    if reason is Reason.WAITING_FOR_CAPACITY:
        return turn.move(job, reason)
    return turn.edit(job, reason, reason=reason.value)


def blocker(turn: Turn, job: Job) -> Reason:
    """What a job would wait for now: dependencies first, then its start time, then devices."""
    if job.attempt is not None:
        return Reason.WAITING_FOR_CAPACITY  # it has run before
    for needed_id in job.policy.depends_on:
        needed = turn.state.jobs.get(needed_id)
        # what is not live any more was COMPLETED, or this job would have been told
        if needed is not None and needed.status is not JobStatus.COMPLETED:
            return Reason.WAITING_FOR_DEPENDENCIES
    if job.policy.start_after_ms > turn.now_ms:
        return Reason.WAITING_FOR_START_TIME
    return Reason.WAITING_FOR_CAPACITY


def fail_dependency(turn: Turn, job: Job, *, needed_id: str, status: str) -> Job:
    """Ends a job because one that it depends on did not complete."""
    text = f"{needed_id}, on which it depends, is {status}"
    failure = Failure(category=DEPENDENCY_FAILURE, message=text)
    return turn.move(job, Reason.DEPENDENCY_FAILED, message=text, failure=failure)


def kept_ms(job: Job, now_ms: int) -> int:
    """How far the job has come, by what is proven: the end of an attempt may throw it back."""
    attempt = job.attempt
    if attempt is None or not attempt.started_at_ms:
        return job.served_ms
    newest_ms = max(
        (x.created_at_ms for x in job.checkpoints if x.attempt == attempt.number), default=0
    )
    return job.served_ms + max(0, min(newest_ms, now_ms) - attempt.started_at_ms)


def remember_run(turn: Turn, job: Job, *, to_ms: int, over: bool) -> None:
    """Adds to what is known of the job's kin that it went on until the age `to_ms`, and ended or not."""
    if job.attempt is None or not job.attempt.started_at_ms:
        return
    estimates = turn.state.estimates
    for kin in kins_of(job):
        if kin not in estimates.known and len(estimates.known) >= turn.state.settings.max_histories:
            turn.retire(Kind.HISTORY, estimates.stalest())
        known = estimates.history(kin)
        history = learn(known, from_ms=job.served_ms, to_ms=to_ms, ended=over, now_ms=turn.now_ms)
        turn.put(history, Reason.LEARNT)


_REASON_OF_STOP = {
    StopCause.DRAINED: Reason.NODE_DRAINED,
    StopCause.PAUSED: Reason.PAUSED_BY_USER,
    StopCause.PREEMPTED: Reason.PREEMPTED,
    StopCause.TIME_LIMIT: Reason.TIME_LIMIT,
    StopCause.RANK_FAILED: Reason.RANK_FAILED,
    StopCause.NODE_LOST: Reason.NODE_LOST,
}


def _walk(turn: Turn, job: Job, *, leases: Sequence[Lease], checkpointing: bool | None) -> Job:
    """Takes every edge up to where the slowest lease is; an Ask keeps it CHECKPOINTING."""
    reached = min((_reached(lease) for lease in leases), default=LeaseState.GRANTED)
    if job.status is JobStatus.SCHEDULING and reached >= LeaseState.ACCEPTED:
        job = turn.move(job, Reason.AGENTS_ACCEPTED)
    if job.status is JobStatus.PREPARING and reached >= LeaseState.RUNNING:
        assert job.attempt is not None
        job = turn.move(
            job,
            Reason.RANKS_STARTED,
            attempt=replace(job.attempt, started_at_ms=turn.now_ms),
            started_at_ms=job.started_at_ms or turn.now_ms,
        )
    is_asked = job.attempt is not None and job.attempt.ask is not None
    if checkpointing and job.status is JobStatus.TRAINING:
        job = turn.move(job, Reason.CHECKPOINT_BEGUN)
    elif checkpointing is False and job.status is JobStatus.CHECKPOINTING and not is_asked:
        job = turn.move(job, Reason.CHECKPOINT_ENDED)
    return job


def _reached(lease: Lease) -> LeaseState:
    """How far a lease came on its way up; one that has ended well has been all the way."""
    if lease.state <= LeaseState.RUNNING:
        return lease.state
    ran = lease.started_at_ms or (lease.is_ended and lease.failure is None)
    return LeaseState.RUNNING if ran else LeaseState.ACCEPTED


def _conclude(turn: Turn, job: Job, *, leases: Sequence[Lease], backoff: Backoff) -> None:
    attempt = job.attempt
    assert attempt is not None
    if ended_well(job, leases):
        if attempt.ask is not None:  # the end has come before what was asked for
            attempt = replace(attempt, ask=None)
            job = turn.edit(job, Reason.CHECKPOINT_ENDED, attempt=attempt)
        job = _walk(turn, job, leases=leases, checkpointing=False)
    verdict = judge(job, leases, backoff=backoff)
    blame = testify(turn, job, leases=leases, counts=verdict.counts)
    if blame.excused:
        verdict = excuse(job, verdict, backoff=backoff)
    assert job.attempt is not None
    changes: dict[str, object] = {
        "attempt": replace(job.attempt, ended_at_ms=turn.now_ms, ask=None, hold=False),
        "failure": verdict.failure,
        "failures_count": max(0, job.failures_count + verdict.counts - blame.refunded_count),
        "message": verdict.failure.message if verdict.failure else "",
    }
    changes["served_ms"] = served_ms = kept_ms(job, turn.now_ms)
    over = next_status(job.status, verdict.cause) in FINAL
    remember_run(
        turn, job, to_ms=turn.state.age_ms(job, turn.now_ms) if over else served_ms, over=over
    )
    if verdict.failure is not None and verdict.failure.category == HANG:
        changes["hung_step"] = step_of(job)
    if verdict.delay_ms:
        changes["not_before_ms"] = turn.now_ms + verdict.delay_ms
    if verdict.cause is Reason.FINISHED:
        changes["output_model_uri"] = leases[0].output_model_uri
    job = turn.move(job, verdict.cause, **changes)
    if job.status is JobStatus.PREEMPTED and job.policy.requeue_on_preemption:
        turn.move(job, Reason.REQUEUED)
    for lease in leases:
        if lease.node_id not in turn.state.nodes:
            forget(turn, lease)  # no agent will come to let it go
