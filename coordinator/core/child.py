"""Retry: a failed or preempted job runs again as a child with an id of its own.

The original stays as it is. The child belongs to the same lineage, so it finds the original's
checkpoints and goes on from one of them. It waits for nothing that the original waited for: what it
depended on, its start time and its wished end belonged to the original.
"""

from __future__ import annotations

from coordinator.core.commands import RetryJob
from coordinator.core.decision import Rejected, Reply
from coordinator.core.hold import unknown_checkpoint
from coordinator.core.invariants import ensure
from coordinator.core.queues import closed, quota_first
from coordinator.core.reasons import Reason
from coordinator.core.records import Documents, Job, JobStatus
from coordinator.core.replacing import replace
from coordinator.core.requests import no_job, recall, remember, wrong_status
from coordinator.core.settings import CoreSettings
from coordinator.core.submit import misplaced
from coordinator.core.turn import Turn

RETRYABLE = (JobStatus.FAILED, JobStatus.PREEMPTED)


def retry(turn: Turn, command: RetryJob, *, settings: CoreSettings) -> Reply | Rejected:
    """Accepts the child of a job that is FAILED or PREEMPTED, in memory or history."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    parent = turn.state.jobs.get(command.job_id) or command.parent
    if (
        parent is None
        or parent.job_id != command.job_id
        or parent.tenant_id != command.caller.tenant_id
    ):
        return no_job(command.job_id)
    if parent.status not in RETRYABLE:
        return wrong_status(parent, "retried")
    demand = command.demand or parent.demand
    refusal = (
        unknown_checkpoint(parent, command.checkpoint_id)
        or closed(turn.state, parent.queue_name)
        or misplaced(turn.state, demand, live_jobs=len(turn.state.jobs), settings=settings)
    )
    if refusal is not None:
        return refusal
    child = _child(turn, parent, command=command)
    if command.validate_only:
        return Reply(job=child)
    ensure(child.job_id not in turn.state.jobs, "a job id is given once", child.job_id)
    turn.put(child, Reason.ACCEPTED)
    turn.keep(Documents(bodies=((child.job_id, command.document),)), Reason.ACCEPTED)
    return remember(turn, command.caller, reply=Reply(job=child), settings=settings)


def _child(turn: Turn, parent: Job, *, command: RetryJob) -> Job:
    demand = command.demand or parent.demand
    policy = command.policy or parent.policy
    child = Job(
        job_id=command.new_job_id,
        sequence=turn.state.last_sequence + 1,
        lineage_id=parent.lineage_id,
        parent_job_id=parent.job_id,
        tenant_id=parent.tenant_id,
        user_id=command.caller.user_id,
        name=parent.name,
        labels=parent.labels,
        queue_name=parent.queue_name,
        priority=parent.priority,
        demand=turn.state.queue.same(demand),
        wants=parent.wants,
        image=parent.image if command.keeps_image else "",
        image_digest=parent.image_digest if command.keeps_image else "",
        policy=replace(policy, depends_on=(), start_after_ms=0, deadline_ms=0),
        status=JobStatus.QUEUED,
        reason=Reason.WAITING_FOR_CAPACITY.value,
        # attempt 0: of no attempt of this job
        checkpoints=tuple(replace(one, attempt=0) for one in parent.checkpoints),
        resume_checkpoint_id=command.checkpoint_id,
        created_at_ms=turn.now_ms,
        updated_at_ms=turn.now_ms,
    )
    return turn.born(quota_first(turn.state, child))
