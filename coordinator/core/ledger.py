"""The ledger: what every leased device was used for, from its grant until it was free again.

Theory of operation. What a moment is of follows from the job: SCHEDULING and PREPARING are starting,
TRAINING is productive, and so on (`use_of`). Whenever that changes, the time since is added to the attempt's
`times`, in the record that changes anyway; so a dispatch and an end cost no record more, and what is
written is as durable as the change itself. A lease shares the times of its attempt up to its own end.

What was productive is at risk until a checkpoint is proven. Where an attempt ends otherwise than well, what
is at risk then is redone, with the cause of the stop: it was lost, whoever does it again. A cancelled
job loses nothing that anybody wanted.

When a lease has ended and its attempt is closed, both in whatever order, it is booked: an Entry for the
store, and the sum in the job's record. Leases that outlive their attempt (of a job that was
cancelled, on a node that was given up) are idle until their agent says that their devices are free.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.core.records import (
    FINAL,
    Attempt,
    Checkpoint,
    Entry,
    Job,
    JobStatus,
    Lease,
    LeaseState,
    StopCause,
)
from coordinator.core.replacing import replace
from coordinator.core.times import (
    MOST_LOSSES,
    Day,
    Loss,
    Spent,
    Times,
    Use,
    added,
    moved,
    summed,
    times_milli,
    used_ms,
)

_USE = {
    JobStatus.SCHEDULING: Use.STARTING,
    JobStatus.PREPARING: Use.STARTING,
    JobStatus.TRAINING: Use.PRODUCTIVE,
    JobStatus.CHECKPOINTING: Use.CHECKPOINTING,
}
SURVIVES = (JobStatus.COMPLETED, JobStatus.CANCELLED)
"""Statuses in which nothing of the newest attempt has to be done again."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What follows from the end of an attempt."""

    changes: dict[str, Any]  # of its job
    entries: tuple[Entry, ...]
    outliving: tuple[Lease, ...]  # changed: they are booked when they end


def use_of(job: Job) -> Use:
    """What the devices of the job's attempt are used for now."""
    return _use(job.status, job.attempt)


def is_open(job: Job) -> bool:
    """Whether the job's newest attempt may still get on."""
    return may_get_on(job.status, job.attempt)


def may_get_on(status: JobStatus, attempt: Attempt | None) -> bool:
    """Whether an attempt may, whose job has this status."""
    return attempt is not None and not attempt.ended_at_ms and status not in FINAL


def _use(status: JobStatus, attempt: Attempt | None) -> Use:
    if attempt is None or attempt.ended_at_ms or status in FINAL:
        return Use.IDLE
    if attempt.stop is not None:
        return Use.PAUSED if attempt.stop is StopCause.PAUSED else Use.IDLE
    return _USE.get(status, Use.IDLE)


def begun(now_ms: int) -> Times:
    """Of an attempt that is granted now."""
    return Times(until_ms=now_ms)


def followed(job: Job, changes: Mapping[str, Any], *, now_ms: int) -> Attempt | None:
    """The attempt of a job that is about to change, with its times up to now; None where they may wait."""
    attempt: Attempt | None = changes.get("attempt", job.attempt)
    assert attempt is not None
    checkpoints: tuple[Checkpoint, ...] | None = changes.get("checkpoints")
    if checkpoints is None and _use(changes.get("status", job.status), attempt) is use_of(job):
        return None
    times = times_of(job, now_ms=now_ms)
    if checkpoints is not None:
        newest_ms = max(
            (x.created_at_ms for x in checkpoints if x.attempt == attempt.number), default=0
        )
        at_risk_ms = min(times.at_risk_ms, max(0, times.worked_ms - newest_ms))
        times = times._replace(at_risk_ms=at_risk_ms)
    return replace(attempt, times=times)


def times_of(job: Job, *, now_ms: int) -> Times:
    """The times of the job's attempt up to now."""
    attempt = job.attempt
    assert attempt is not None
    times, use = attempt.times, use_of(job)
    # an attempt of a version that counted nothing begins with its grant
    from_ms = times.until_ms or attempt.granted_at_ms
    to_ms = max(now_ms, attempt.granted_at_ms)
    days = added(times.days, use, from_ms=from_ms, to_ms=to_ms)
    if use is not Use.PRODUCTIVE:
        return times._replace(until_ms=to_ms, days=days)
    at_risk_ms = max(0, times.at_risk_ms + to_ms - from_ms)
    return Times(until_ms=to_ms, at_risk_ms=at_risk_ms, worked_ms=to_ms, days=days)


def days_of(job: Job, lease: Lease, *, now_ms: int) -> tuple[Day, ...]:
    """What the lease's time was used for, up to now or its end."""
    if lease.is_ended:
        return lease.days
    if lease.fenced_at_ms:
        from_ms = max(lease.fenced_at_ms, lease.granted_at_ms)
        to_ms = max(now_ms, lease.granted_at_ms)
        return added(lease.days, Use.IDLE, from_ms=from_ms, to_ms=to_ms)
    return times_of(job, now_ms=now_ms).days


def leaves(lease: Lease, changes: Mapping[str, Any]) -> bool:
    """Whether the lease ends, or is given up, by what is about to change."""
    ends = changes.get("state") is LeaseState.ENDED and not lease.is_ended
    return ends or bool(changes.get("fenced_at_ms") and not lease.is_over)


def closed(
    job: Job,
    leases: Sequence[Lease],
    *,
    to: JobStatus,
    attempt: Attempt,
    is_foreign: bool,
    now_ms: int,
) -> Closed:
    """Closes an attempt that ends, or whose job becomes final; it has its times up to now."""
    at_risk_ms = 0 if to in SURVIVES else attempt.times.at_risk_ms
    worked_ms = used_ms(attempt.times.days, Use.PRODUCTIVE) if at_risk_ms else 0
    over, outliving, redone_us = [], [], 0
    for lease in leases:
        lost_ms = 0
        if at_risk_ms:
            own_ms = used_ms(lease.days, Use.PRODUCTIVE)
            lost_ms = min(own_ms, max(0, at_risk_ms - max(0, worked_ms - own_ms)))
        if lost_ms:
            days = moved(lease.days, before=Use.PRODUCTIVE, after=Use.REDONE, ms=lost_ms)
            lease = replace(lease, days=days)
            redone_us += lost_ms * milli_of(lease)
            if not lease.is_ended:
                outliving.append(lease)
        if lease.is_ended and lease.days:
            over.append(lease)
    losses = job.losses
    if redone_us:
        cause = attempt.stop.value if attempt.stop else ""
        loss = Loss(attempt.number, cause, attempt.stopped_by, is_foreign, redone_us)
        losses = (*losses, loss)[-MOST_LOSSES:]
    if attempt.ended_at_ms:  # what was counted is with the leases now
        attempt = replace(attempt, times=Times())
    entries = tuple(entry(job, lease, losses=losses, now_ms=now_ms) for lease in over)
    changes = {"attempt": attempt, "losses": losses, "spent": with_entries(job.spent, entries)}
    return Closed(changes, entries, tuple(outliving))


def is_booked(job: Job, lease: Lease) -> bool:
    """Whether the lease is in the job's sum: it has ended, and what it was used for is settled."""
    attempt = job.attempt
    newest = attempt is not None and attempt.number == lease.attempt
    return lease.is_ended and not (newest and is_open(job))


def entry(job: Job, lease: Lease, *, losses: tuple[Loss, ...], now_ms: int) -> Entry:
    """What is written of a lease that has ended."""
    cause, cause_id, is_foreign = "", "", False
    if used_ms(lease.days, Use.REDONE):
        # a node that was given up may be back after more attempts than are known apart
        cause, cause_id = StopCause.NODE_LOST.value, lease.node_id
        for loss in losses:
            if loss.attempt == lease.attempt:
                cause, cause_id, is_foreign = loss.cause, loss.cause_id, loss.is_foreign
    return Entry(
        lease_id=lease.lease_id,
        job_id=job.job_id,
        tenant_id=job.tenant_id,
        user_id=job.user_id,
        queue_name=job.queue_name,
        node_id=lease.node_id,
        milli=milli_of(lease),
        days=lease.days,
        cause=cause,
        cause_id=cause_id,
        is_foreign=is_foreign,
        booked_at_ms=now_ms,
    )


def with_entries(spent: Spent, entries: Iterable[Entry]) -> Spent:
    """A job's sum with what some of its leases were used for."""
    sums = [times_milli(day.spent, one.milli) for one in entries for day in one.days]
    return summed((spent, *sums)) if sums else spent


def spent(job: Job, leases: Iterable[Lease], *, now_ms: int) -> Spent:
    """Device-microseconds of the job up to now, with the leases that are not booked yet."""
    found = [job.spent]
    for lease in leases:
        if not is_booked(job, lease):
            days = days_of(job, lease, now_ms=now_ms)
            found += [times_milli(day.spent, milli_of(lease)) for day in days]
    return summed(found)


def milli_of(lease: Lease) -> int:
    """Thousandths of devices that a lease holds."""
    return lease.thousandths * len(lease.device_ids)


def blamed(job: Job, leases: Iterable[Lease], *, cause: StopCause, drained: Container[str]) -> str:
    """The job for which the attempt is stopped, or the node because of which; "" for neither."""
    if cause is StopCause.PREEMPTED:
        return job.attempt.makes_room_for if job.attempt else ""
    for lease in leases:
        if cause is StopCause.DRAINED and lease.node_id in drained:
            return lease.node_id
        if cause in (StopCause.NODE_LOST, StopCause.RANK_FAILED) and lease.failure:
            return lease.node_id
    return ""
