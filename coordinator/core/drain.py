"""Emptying nodes and letting them take jobs again."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.commands import DrainNode, EnableNode
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Drain, Node, Outcome, StopCause
from coordinator.core.requests import recall, remember
from coordinator.core.saving import save_and_stop
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn


def drain(turn: Turn, command: DrainNode, *, settings: CoreSettings) -> Reply | Rejected:
    """Places nothing more on a node; with force, stops what runs there. Answers with those jobs."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    node = turn.state.nodes.get(command.node_id)
    if node is None:
        return _unknown(command.node_id)
    wish = Drain(
        requested_at_ms=turn.now_ms,
        force=command.force,
        reason=command.reason,
        deadline_ms=command.deadline_ms,
        actor=command.caller.user_id,
    )
    held = {one.job_id for one in turn.state.leases_on(node.node_id) if not one.is_ended}
    there = tuple(Outcome(job_id=job_id) for job_id in sorted(held))
    if command.validate_only:
        return Reply(node=replace(node, drain=wish), outcomes=there)
    node = turn.edit_node(node, Reason.DRAIN_REQUESTED, drain=wish)
    if command.force:
        empty(turn, node)
    reply = Reply(node=node, outcomes=there)
    return remember(turn, command.caller, reply=reply, settings=settings)


def enable(turn: Turn, command: EnableNode, *, settings: CoreSettings) -> Reply | Rejected:
    """Ends a drain; a node that is not drained stays as it is."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    node = turn.state.nodes.get(command.node_id)
    if node is None:
        return _unknown(command.node_id)
    if node.drain is not None:
        node = turn.edit_node(node, Reason.NODE_ENABLED, drain=None)
    return remember(turn, command.caller, reply=Reply(node=node), settings=settings)


def empty(turn: Turn, node: Node) -> None:
    """Stops every attempt that holds devices of the node; its jobs will be queued again."""
    for lease in turn.state.leases_on(node.node_id):
        job = turn.state.jobs[lease.job_id]
        if not lease.is_over and not job.is_final:
            save_and_stop(turn, job, cause=StopCause.DRAINED)


def _unknown(node_id: str) -> Rejected:
    return Rejected(reason=Reason.NODE_NOT_FOUND, message=f"no node {node_id}", field="node_id")
