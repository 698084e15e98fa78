"""Trainings that come no further: told by the agent that sees them, judged by the job's policy.

Theory of operation. The agent of rank 0 knows how often a training reports progress, and tells when it has
been silent for too long (`silent_since_ms`), again with each of its calls, until it comes on. So whatever is
done is done because of something that was seen now, and never because time has passed here: who is out of
contact is not known to hang. Nor is a training judged while a node of its gang is out of contact, or has
only just come back: its ranks wait for each other, and that may be all.
"""

from __future__ import annotations

from coordinator.core.attempts import is_newest, stop
from coordinator.core.commands import ObservedLease
from coordinator.core.reasons import Reason
from coordinator.core.records import Attempt, Failure, Job, LeaseState, OnHang, StopCause
from coordinator.core.replacing import replace
from coordinator.core.retry import HANG
from coordinator.core.saving import PATIENT, save_and_stop
from coordinator.core.turn import Turn


def watch(turn: Turn, lease_id: str, *, one: ObservedLease) -> None:
    """Takes over what the agent of rank 0 says of the silence of a training, and acts on it."""
    lease = turn.state.leases.get(lease_id)
    if lease is None or lease.node_rank or lease.epoch != one.epoch or lease.fenced_at_ms:
        return
    job = turn.state.jobs[lease.job_id]
    attempt = job.attempt
    if job.is_final or attempt is None or not is_newest(job, lease) or attempt.stop is not None:
        return
    if lease.state is not LeaseState.RUNNING or not attempt.started_at_ms:
        return
    if not one.silent_since_ms:
        _comes_on(turn, job)
    elif _is_in_sight(turn, attempt):
        _hangs(turn, job, one=one)


def _is_in_sight(turn: Turn, attempt: Attempt) -> bool:
    sight_ms = turn.state.settings.sight_ms
    for share in attempt.shares:
        since_ms = turn.state.contacts.since_ms(share.node_id)
        if since_ms is None or turn.now_ms - max(since_ms, attempt.started_at_ms) < sight_ms:
            return False
    return True


def _comes_on(turn: Turn, job: Job) -> None:
    attempt = job.attempt
    if attempt is not None and attempt.silent_since_ms:
        attempt = replace(attempt, silent_since_ms=0)
        reason = job.reason if job.reason != Reason.HANGS.value else Reason.COMES_ON.value
        turn.edit(job, Reason.COMES_ON, attempt=attempt, reason=reason, message="")


def _hangs(turn: Turn, job: Job, *, one: ObservedLease) -> None:
    attempt = job.attempt
    assert attempt is not None
    text = f"it has reported no progress for {(turn.now_ms - one.silent_since_ms) // 1000} s"
    if not attempt.silent_since_ms:
        attempt = replace(attempt, silent_since_ms=one.silent_since_ms)
        job = turn.edit(job, Reason.HANGS, attempt=attempt, reason=Reason.HANGS.value, message=text)
    if job.policy.on_hang is OnHang.REPORT or attempt.ask not in (None, PATIENT):
        return
    failure = Failure(category=HANG, message=text, telemetry=one.telemetry)
    if job.policy.on_hang is OnHang.STOP:
        stop(turn, job, cause=StopCause.RANK_FAILED, failure=failure)
        return
    job = turn.edit(job, Reason.HANGS, failure=failure)
    save_and_stop(turn, job, cause=StopCause.RANK_FAILED)
