"""Emptying nodes and letting them take jobs again.

A drained node is given nothing. What becomes of what runs there is the drain's strategy: it runs to its
end (to wait), leaves once a checkpoint is proven (to move), or is stopped after a checkpoint or its grace
(by force). Whatever the strategy was, past the deadline it is by force.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.commands import DrainNode, EnableNode
from coordinator.core.decision import Rejected, Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Drain, Job, Node, Outcome, StopCause
from coordinator.core.replacing import replace
from coordinator.core.requests import recall, remember
from coordinator.core.saving import leave, save_and_stop, stay
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn
from coordinator.core.window import Window


def drain(turn: Turn, command: DrainNode, *, settings: CoreSettings) -> Reply | Rejected:
    """Places nothing more on a node, and has what runs there go by its strategy. Answers with those jobs."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    node = turn.state.nodes.get(command.node_id)
    if node is None:
        return _unknown(command.node_id)
    wish = Drain(
        requested_at_ms=turn.now_ms,
        force=command.force,
        move=command.move and not command.force,
        reason=command.reason,
        deadline_ms=command.deadline_ms,
        actor=command.caller.user_id,
        rolling=node.drain.rolling if node.drain else "",
    )
    later = command.from_ms > turn.now_ms
    window = _window(command, now_ms=turn.now_ms) if later or command.until_ms else None
    held = {one.job_id for one in turn.state.leases_on(node.node_id) if not one.is_ended}
    there = tuple(Outcome(job_id=job_id) for job_id in sorted(held))
    if command.validate_only:
        drain = node.drain if later else wish
        return Reply(node=replace(node, drain=drain, window=window), outcomes=there)
    if later:
        node = turn.edit_node(node, Reason.WINDOW_PLANNED, window=window)
        reply = Reply(node=node, outcomes=there)
        return remember(turn, command.caller, reply=reply, settings=settings)
    node = turn.edit_node(node, Reason.DRAIN_REQUESTED, drain=wish, window=window)
    _go_by(turn, node, drain=wish)
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
    if node.drain is not None or node.window is not None:
        node = turn.edit_node(node, Reason.NODE_ENABLED, drain=None, window=None)
        _keep(turn, node)
    return remember(turn, command.caller, reply=Reply(node=node), settings=settings)


def pass_window(turn: Turn, node: Node) -> None:
    """Begins the maintenance of a node, or ends it."""
    window = node.window
    assert window is not None
    if window.is_on(node.drain.requested_at_ms if node.drain else 0):
        node = turn.edit_node(node, Reason.NODE_ENABLED, drain=None, window=None)
        _keep(turn, node)
        return
    drain = Drain(
        requested_at_ms=turn.now_ms,
        force=window.force,
        move=window.move,
        reason=window.reason,
        deadline_ms=turn.now_ms + window.force_after_ms if window.force_after_ms else 0,
        actor=window.actor,
        rolling=node.drain.rolling if node.drain else "",
    )
    kept = window if window.until_ms else None
    node = turn.edit_node(node, Reason.DRAIN_REQUESTED, drain=drain, window=kept)
    _go_by(turn, node, drain=drain)


def _window(command: DrainNode, *, now_ms: int) -> Window:
    from_ms = max(now_ms, command.from_ms)
    return Window(
        from_ms=from_ms,
        until_ms=command.until_ms,
        force=command.force,
        move=command.move and not command.force,
        reason=command.reason,
        force_after_ms=max(1, command.deadline_ms - from_ms) if command.deadline_ms else 0,
        actor=command.caller.user_id,
    )


def _go_by(turn: Turn, node: Node, *, drain: Drain) -> None:
    """Has what runs on a node go or stay, as its drain is now; another one may have been before."""
    if not drain.force:
        _keep(turn, node)
    if drain.force or drain.move:
        empty(turn, node)


def empty(turn: Turn, node: Node) -> None:
    """Has every attempt that holds devices of the node end; its jobs will be queued again."""
    assert node.drain is not None
    for job in _jobs_on(turn, node):
        if node.drain.force:
            save_and_stop(turn, job, cause=StopCause.DRAINED)
        else:
            leave(turn, job)


def _keep(turn: Turn, node: Node) -> None:
    """Lets what was to leave the node stay; also where nothing of it runs there any more."""
    for lease in turn.state.leases_on(node.node_id):
        job = turn.state.jobs[lease.job_id]
        if not job.is_final:
            stay(turn, job)


def _jobs_on(turn: Turn, node: Node) -> Iterator[Job]:
    """The jobs whose attempts hold devices of the node, each as it is when its turn comes."""
    for lease in turn.state.leases_on(node.node_id):
        job = turn.state.jobs[lease.job_id]
        if not lease.is_over and not job.is_final:
            yield job


def _unknown(node_id: str) -> Rejected:
    return Rejected(reason=Reason.NODE_NOT_FOUND, message=f"no node {node_id}", field="node_id")
