"""What a caller's command begins and ends with: the job that it names, the answer that is remembered.

Requests that were answered are kept: the same one again gets the same answer.
"""

from __future__ import annotations

from coordinator.core.commands import Caller, CancelJob, PauseJob, ResumeJob, UpdateJob
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Kind, Node, Request
from coordinator.core.settings import CoreSettings
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn

Named = PauseJob | ResumeJob | CancelJob | UpdateJob
"""Commands that name a job."""


def asked(state: ClusterState, command: Named) -> Job | Reply | Rejected:
    """The live job that a command is about; instead of it the answer that was given before, or a refusal.

    Another tenant's job is as unknown as nobody's.
    """
    known = recall(state, command.caller)
    if known is not None:
        return known
    job = state.jobs.get(command.job_id)
    if job is None or job.tenant_id != command.caller.tenant_id:
        return no_job(command.job_id)
    return job


def no_job(job_id: str) -> Rejected:
    """The refusal for a job that is not known."""
    return Rejected(reason=Reason.JOB_NOT_FOUND, message=f"no job {job_id}", field="job_id")


def wrong_status(job: Job, what: str) -> Rejected:
    """The refusal for something that the job's status does not allow, such as "cancelled"."""
    return Rejected(
        reason=Reason.WRONG_STATUS,
        message=f"the job is {job.status} and cannot be {what}",
        facts=(("status", job.status.value),),
    )


def recall(state: ClusterState, caller: Caller) -> Reply | Rejected | None:
    """The remembered answer; None for a request that is new or need not be remembered."""
    if not caller.request_id:
        return None
    known = state.requests.get(f"{caller.tenant_id}/{caller.request_id}")
    if known is None:
        return None
    if known.digest != caller.digest:
        return Rejected(
            reason=Reason.REQUEST_ID_REUSED,
            message="the request id was used for another request",
            field="request_id",
        )
    return Reply(
        job=known.job,
        node=known.node,
        key=known.key,
        salt=known.salt,
        queue=known.queue,
        rolling=known.rolling,
        outcomes=known.outcomes,
        replayed=True,
    )


def remember(turn: Turn, caller: Caller, *, reply: Reply, settings: CoreSettings) -> Reply:
    """Keeps an answer, durably with what it did; the oldest one goes where too many are kept."""
    if not caller.request_id:
        return reply
    if len(turn.state.requests) >= settings.max_requests:
        turn.retire(Kind.REQUEST, next(iter(turn.state.requests)))
    job: Job | None = reply.job
    node: Node | None = reply.node
    request = Request(
        tenant_id=caller.tenant_id,
        request_id=caller.request_id,
        digest=caller.digest,
        expires_at_ms=turn.now_ms + settings.request_ttl_ms,
        job=job,
        node=node,
        queue=reply.queue,
        rolling=reply.rolling,
        outcomes=reply.outcomes,
        key=reply.key,
        salt=reply.salt,
    )
    turn.put(request, Reason.REMEMBERED)
    return reply
