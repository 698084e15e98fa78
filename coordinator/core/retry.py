"""What becomes of a job whose attempt has ended: one pure question.

The order of the checks is the meaning:
1. Every lease ended well, and nobody asked for a stop or the training said that it is done: COMPLETED.
   Not so where its nodes had different images: what these come to together is nobody's result.
2. The job ran into its time limit: FAILED.
3. It was paused: PAUSED. It was preempted: PREEMPTED. The node was drained or lost the attempt, or its
   nodes had different images (image.py): QUEUED again. None of these costs a retry.
4. Its kind of failure is one of fail_on: FAILED.
5. The exit code is one of retry_on_exit_codes, or the kind one of retry_on; or it hung, is to be
   restarted then, and has proven a checkpoint of a higher step since it hung last: QUEUED again, which
   costs no retry.
6. It failed where nothing is placed any more, for the node or a device it held is out (care.py): QUEUED
   again, which costs no retry either.
7. It failed, and retries are left: QUEUED again. A job that cannot be started as it is configured, or
   that hung and is not to be restarted, is not tried again; `max_retries` 3 is 3 retries, so 4 attempts.
8. Else FAILED.

Where a user wishes that it be held, it is PAUSED wherever it would be QUEUED again or PREEMPTED.
Whatever failed waits before it is tried again, twice as long each time, so a crash loop does not spin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.core.reasons import Reason
from coordinator.core.records import Failure, Job, Lease, OnHang, Policy, StopCause
from coordinator.core.replacing import replace

HANG = "HANG"
IMAGE = "IMAGE"
CONFIG = "CONFIG"
NODE_LOST = "NODE_LOST"
NETWORK = "NETWORK"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a job waits after a failure; it doubles with each attempt."""

    first_ms: int = 1_000
    most_ms: int = 60_000

    def after(self, attempt: int) -> int:
        """The wait after the attempt of this number, 1 for the first."""
        return min(self.most_ms, self.first_ms << min(attempt - 1, 40))


_BY_STOP = {
    StopCause.DRAINED: Reason.NODE_DRAINED,
    StopCause.PAUSED: Reason.PAUSED_BY_USER,
    StopCause.PREEMPTED: Reason.PREEMPTED,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The edge to take, and what goes with it."""

    cause: Reason
    failure: Failure | None = None
    counts: bool = False  # against max_retries
    delay_ms: int = 0


def ended_well(job: Job, leases: Sequence[Lease]) -> bool:
    """Whether the attempt did what the job asked for.

    After a stop only the training can say so, and only where every rank had started, of one image.
    """
    assert job.attempt is not None
    if any(lease.failure for lease in leases) or _had_other_images(job):
        return False
    said_so = leases[0].done and all(lease.started_at_ms for lease in leases)
    return job.attempt.stop is None or said_so


def _had_other_images(job: Job) -> bool:
    """Whether the attempt was stopped because its nodes had different images."""
    assert job.attempt is not None
    is_of_image = job.failure is not None and job.failure.category == IMAGE
    return is_of_image and job.attempt.stop is StopCause.NODE_LOST


AGAIN = frozenset({Reason.RETRYING, Reason.NODE_LOST, Reason.NODE_DRAINED, Reason.PREEMPTED})
"""Causes by which a job would run again by itself, or be put aside for another one."""


def judge(job: Job, leases: Sequence[Lease], *, backoff: Backoff) -> Verdict:
    """Judges an attempt of which every lease has ended; `leases` by node rank."""
    verdict = _judge(job, leases, backoff=backoff)
    if job.attempt is not None and job.attempt.hold and verdict.cause in AGAIN:
        return replace(verdict, cause=Reason.PAUSED_BY_USER, delay_ms=0)
    return verdict


def excuse(job: Job, verdict: Verdict, *, backoff: Backoff) -> Verdict:
    """The same where the failure was the node's fault: the job is tried again, and it costs no retry.

    Kinds of failures that the job names in fail_on are not tried again even so.
    """
    assert job.attempt is not None
    if verdict.failure is not None and verdict.failure.category in job.policy.fail_on:
        return verdict
    cause = Reason.PAUSED_BY_USER if job.attempt.hold else Reason.RETRYING
    delay_ms = 0 if job.attempt.hold else backoff.after(job.attempt.number)
    return replace(verdict, cause=cause, counts=False, delay_ms=delay_ms)


def _judge(job: Job, leases: Sequence[Lease], *, backoff: Backoff) -> Verdict:
    attempt = job.attempt
    assert attempt is not None
    if ended_well(job, leases):
        return Verdict(Reason.FINISHED)
    wait_ms = backoff.after(attempt.number)
    failure = job.failure
    if attempt.stop is StopCause.TIME_LIMIT:
        text = f"max_runtime_seconds passed ({job.policy.max_runtime_ms // 1000} s)"
        return Verdict(Reason.TIME_LIMIT, Failure(category="TIME_LIMIT", message=text))
    if attempt.stop in _BY_STOP:
        return Verdict(_BY_STOP[attempt.stop])
    lost = next((x.failure for x in leases if x.failure and x.failure.category == NODE_LOST), None)
    if lost is not None:
        # what never ran may never run: that must not spin either
        return Verdict(Reason.NODE_LOST, lost, delay_ms=0 if attempt.started_at_ms else wait_ms)
    if _had_other_images(job):
        return Verdict(Reason.RETRYING, failure, delay_ms=wait_ms)
    if failure is not None and failure.category == NETWORK:
        failure = first_failure(leases) or failure  # by now all have told what they saw
    if failure is not None:
        failure = _as_told_last(failure, leases)
    else:
        failure = Failure(category="USER_CODE", message="it was stopped before it was done")
    if failure.category in job.policy.fail_on:
        return Verdict(Reason.RANK_FAILED, failure, counts=True)
    if _is_free(job, failure):
        return Verdict(Reason.RETRYING, failure, delay_ms=wait_ms)
    if _is_hopeless(job.policy, failure) or job.failures_count >= job.policy.max_retries:
        return Verdict(Reason.RANK_FAILED, failure, counts=True)
    return Verdict(Reason.RETRYING, failure, counts=True, delay_ms=wait_ms)


def first_failure(leases: Sequence[Lease]) -> Failure | None:
    """Why an attempt fails; None while it does not.

    Ranks of several nodes see the end of another one as a fault of the network, and may tell it
    first: it is only named where there is nothing else.
    """
    found = [lease.failure for lease in leases if lease.failure]
    own = next((failure for failure in found if failure.category != NETWORK), None)
    return own or next(iter(found), None)


def _as_told_last(failure: Failure, leases: Sequence[Lease]) -> Failure:
    """The same failure as its node tells it now: it was told at once, before all was known of it."""
    told = (lease.failure for lease in leases if lease.failure and lease.node_id == failure.node_id)
    same = (x for x in told if (x.rank, x.category) == (failure.rank, failure.category))
    return next(same, failure)


def step_of(job: Job) -> int:
    """How far a job has come for good: the highest step of its checkpoints; 0 without any."""
    return max((checkpoint.step for checkpoint in job.checkpoints), default=0)


def _is_hopeless(policy: Policy, failure: Failure) -> bool:
    hangs = failure.category == HANG and policy.on_hang is not OnHang.RESTART
    return hangs or failure.category == CONFIG


def _is_free(job: Job, failure: Failure) -> bool:
    """Whether trying again costs no retry: its user says so, and it does not stand still."""
    policy = job.policy
    if failure.exit_code is not None and failure.exit_code in policy.retry_on_exit_codes:
        return True
    if failure.category == HANG:
        return policy.on_hang is OnHang.RESTART and step_of(job) > job.hung_step
    return failure.category in policy.retry_on
