"""Changing a live job: its priority, its queue, its time limit, how long it is expected to run.

A job that waits stands in line anew at once. One that runs is not moved for it; a time limit that has
passed by then acts at the next tick. What was submitted stays readable as it was.
"""

from __future__ import annotations

from coordinator.core.commands import UpdateJob
from coordinator.core.decision import Rejected, Reply
from coordinator.core.known import is_in_line
from coordinator.core.queues import closed
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, StopCause
from coordinator.core.replacing import replace
from coordinator.core.requests import asked, remember, wrong_status
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn


def update(turn: Turn, command: UpdateJob, *, settings: CoreSettings) -> Reply | Rejected:
    """Changes what is given; a change to what it is already is none."""
    job = asked(turn.state, command)
    if not isinstance(job, Job):
        return job
    if job.is_final:
        return wrong_status(job, "changed")
    changes = _changes(job, command)
    if "policy" in changes and _is_being_ended(job):
        return wrong_status(job, "changed: its time limit has come")
    refused = closed(turn.state, command.queue_name) if "queue_name" in changes else None
    if refused is not None:
        return replace(refused, field="queue_name")
    if command.validate_only:
        return Reply(job=replace(job, **changes))  # type: ignore[arg-type]
    if "policy" in changes and is_in_line(job):
        after = replace(job, **changes)  # type: ignore[arg-type]
        changes["work_ms"] = turn.state.work_ms(after, now_ms=turn.now_ms)
    if changes:
        job = turn.edit(job, Reason.CHANGED_BY_USER, **changes)
    return remember(turn, command.caller, reply=Reply(job=job), settings=settings)


def _changes(job: Job, command: UpdateJob) -> dict[str, object]:
    """The fields that become different."""
    changes: dict[str, object] = {}
    if command.priority is not None and command.priority != job.priority:
        changes |= {"priority": command.priority, "aged": 0}
    if command.queue_name is not None and command.queue_name != job.queue_name:
        changes["queue_name"] = command.queue_name
    policy = job.policy
    if command.max_runtime_ms is not None:
        policy = replace(policy, max_runtime_ms=command.max_runtime_ms)
    if command.expected_duration_ms is not None:
        policy = replace(policy, expected_duration_ms=command.expected_duration_ms)
    if policy != job.policy:
        changes["policy"] = policy
    return changes


def _is_being_ended(job: Job) -> bool:
    attempt = job.attempt
    if attempt is None or attempt.ended_at_ms:
        return False
    asked = attempt.ask.cause if attempt.ask else None
    return StopCause.TIME_LIMIT in (attempt.stop, asked)
