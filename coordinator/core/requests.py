"""Requests that were answered: the same one again gets the same answer."""

from __future__ import annotations

from coordinator.core.commands import Caller
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Kind, Node, Request
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn


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
    return Reply(job=known.job, node=known.node, replayed=True)


def remember(turn: Turn, caller: Caller, *, reply: Reply, ttl_ms: int, most: int) -> Reply:
    """Keeps an answer, durably with what it did; the oldest one goes where too many are kept."""
    if not caller.request_id:
        return reply
    if len(turn.state.requests) >= most:
        turn.retire(Kind.REQUEST, next(iter(turn.state.requests)))
    job: Job | None = reply.job
    node: Node | None = reply.node
    request = Request(
        tenant_id=caller.tenant_id,
        request_id=caller.request_id,
        digest=caller.digest,
        expires_at_ms=turn.now_ms + ttl_ms,
        job=job,
        node=node,
    )
    turn.put(request, Reason.REMEMBERED)
    return reply
