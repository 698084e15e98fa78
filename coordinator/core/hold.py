"""Pause, resume, preempt: what people and the scheduler do to a job that is to go on later.

A job that waits is held at once. One that runs is asked for a checkpoint, stopped, and PAUSED or
PREEMPTED only when nothing of its attempt is left on any node. `Attempt.hold` is the user's wish that
it be PAUSED then, whatever has ended it, unless it is final.
"""

from __future__ import annotations

from coordinator.core.attempts import blocker, stop
from coordinator.core.commands import PauseJob, PreemptJob, ResumeJob
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, JobStatus, StopCause
from coordinator.core.replacing import replace
from coordinator.core.requests import asked, recall, remember, wrong_status
from coordinator.core.ruling import keep_request
from coordinator.core.saving import go_on, is_to_leave, leave, let_stay, save_and_stop
from coordinator.core.settings import CoreSettings
from coordinator.core.tables import BORN, RUNNING
from coordinator.core.turn import Turn


def pause(turn: Turn, command: PauseJob, *, settings: CoreSettings) -> Reply | Rejected:
    """Holds a job that waits; stops one that runs, after a checkpoint where one is wanted."""
    job = asked(turn.state, command)
    if not isinstance(job, Job):
        return job
    if job.status not in (*BORN, *RUNNING):
        return wrong_status(job, "paused")
    if job.status in RUNNING and _time_is_over(job):
        return wrong_status(job, "paused: its time limit has come")
    if job.status in BORN:
        before, job = job, turn.move(job, Reason.PAUSED_BY_USER, not_before_ms=0)
        let_stay(turn, before)
    else:
        job = _pause_running(turn, job, command=command)
    return remember(turn, command.caller, reply=Reply(job=job), settings=settings)


def resume(turn: Turn, command: ResumeJob, *, settings: CoreSettings) -> Reply | Rejected:
    """Lets a paused job wait for devices again; withdraws a pause that has stopped nothing yet."""
    job = asked(turn.state, command)
    if not isinstance(job, Job):
        return job
    if job.status is JobStatus.PAUSED:
        unknown = unknown_checkpoint(job, command.checkpoint_id)
        if unknown is not None:
            return unknown
        job = _resume_paused(turn, job, checkpoint_id=command.checkpoint_id)
    elif _can_withdraw(job) and not command.checkpoint_id:
        job = _withdraw(turn, job)
    else:
        return wrong_status(job, "resumed")
    return remember(turn, command.caller, reply=Reply(job=job), settings=settings)


def preempt(turn: Turn, command: PreemptJob, *, settings: CoreSettings) -> Reply | Rejected:
    """Stops a preemptible job after a checkpoint; it is QUEUED again where it wants to be."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    job = turn.state.jobs.get(command.job_id)
    if job is None:
        text = f"no job {command.job_id}"
        return Rejected(reason=Reason.JOB_NOT_FOUND, message=text, field="job_id")
    if job.status not in RUNNING or not job.policy.preemptible:
        return wrong_status(job, "preempted")
    before = _ends_as(job)
    job = save_and_stop(turn, job, cause=StopCause.PREEMPTED)
    if _ends_as(job) is StopCause.PREEMPTED is not before:
        keep_request(turn, job, reason=command.reason)
    return remember(turn, command.caller, reply=Reply(job=job), settings=settings)


def unknown_checkpoint(job: Job, checkpoint_id: str) -> Rejected | None:
    """A refusal where the job has no checkpoint of that name; "" names the newest."""
    if not checkpoint_id or any(x.checkpoint_id == checkpoint_id for x in job.checkpoints):
        return None
    return Rejected(
        reason=Reason.INVALID_ARGUMENT,
        message=f"{job.job_id} has no checkpoint {checkpoint_id}",
        field="checkpoint_id",
    )


def _pause_running(turn: Turn, job: Job, *, command: PauseJob) -> Job:
    attempt = job.attempt
    assert attempt is not None
    if not attempt.hold:
        job = turn.edit(job, Reason.PAUSED_BY_USER, attempt=replace(attempt, hold=True))
    if attempt.stop is not None:
        return job
    if not command.save_checkpoint:
        return stop(turn, job, cause=StopCause.PAUSED)
    return save_and_stop(
        turn,
        job,
        cause=StopCause.PAUSED,
        timeout_ms=command.timeout_ms,
        on_timeout=command.on_timeout,
    )


def _resume_paused(turn: Turn, job: Job, *, checkpoint_id: str) -> Job:
    cause = blocker(turn, job)
    if cause is Reason.WAITING_FOR_CAPACITY:
        cause = Reason.RESUMED
    return turn.move(job, cause, resume_checkpoint_id=checkpoint_id)


def _ends_as(job: Job) -> StopCause | None:
    """Why its attempt is to end, as far as anybody has asked for that."""
    attempt = job.attempt
    assert attempt is not None
    return attempt.stop or (attempt.ask.cause if attempt.ask else None)


def _time_is_over(job: Job) -> bool:
    assert job.attempt is not None
    asked = job.attempt.ask.cause if job.attempt.ask else None
    return StopCause.TIME_LIMIT in (job.attempt.stop, asked)


def _can_withdraw(job: Job) -> bool:
    attempt = job.attempt
    return (
        job.status in RUNNING
        and attempt is not None
        and attempt.hold
        and attempt.stop is not StopCause.PAUSED
    )


def _withdraw(turn: Turn, job: Job) -> Job:
    """Takes the wish to hold it back; a stop or an Ask of somebody else stays as it is."""
    attempt = job.attempt
    assert attempt is not None
    cause = Reason.PAUSE_WITHDRAWN
    if attempt.ask is not None and attempt.ask.cause is StopCause.PAUSED:
        job = go_on(turn, job, cause=cause, message="")
        return leave(turn, job) if is_to_leave(turn.state, job) else job
    return turn.edit(job, cause, attempt=replace(attempt, hold=False))
