"""Giving up what cannot be heard, and only where it provably does not run any more.

A node out of contact keeps its leases: silence proves nothing. Where the job says REPLACE its leases
carry a deadline that agent and supervisors hold by themselves, so a silence that outlasts it is a proof:
then the attempt ends, and the job may run elsewhere. The devices stay held until the agent tells that
nothing is left on them, or an admin removes the node.
"""

from __future__ import annotations

from coordinator.core.attempts import follow, forget, is_newest, settle
from coordinator.core.commands import RemoveNode
from coordinator.core.decision import Rejected, Reply
from coordinator.core.join import expel
from coordinator.core.reasons import Reason
from coordinator.core.records import Failure, Kind, Lease, LeaseAction, LeaseState, Node
from coordinator.core.requests import recall, remember
from coordinator.core.retry import NODE_LOST
from coordinator.core.settings import CoreSettings
from coordinator.core.tables import contact, duty
from coordinator.core.turn import Turn


def give_up(turn: Turn, node: Node, *, settings: CoreSettings) -> None:
    """Takes it that the node has stopped by itself what it had to; its jobs may run elsewhere."""
    turn.edit_node(node, Reason.NODE_FENCED, fenced_at_ms=turn.now_ms)
    text = f"node {node.node_id} was out of contact for {settings.replace_after_ms / 1000:g} s"
    for lease in turn.state.leases_on(node.node_id):
        if lease.is_over or not lease.fence_after_ms:
            continue
        turn.edit_lease(
            lease,
            Reason.NODE_FENCED,
            fenced_at_ms=turn.now_ms,
            action=LeaseAction.STOP,
            failure=Failure(category=NODE_LOST, message=text),
        )
        _follow(turn, lease, settings=settings)


def remove(turn: Turn, command: RemoveNode, *, settings: CoreSettings) -> Reply | Rejected:
    """Forgets a node that is drained or out of contact; what ran there is gone with it.

    A node in contact must be empty as well: the call may be an old one, that was late or repeated.
    """
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    node = turn.state.nodes.get(command.node_id)
    if node is None:
        if expel(turn, command.node_id):  # it joined, and was never heard
            return remember(turn, command.caller, reply=Reply(), settings=settings)
        text = f"no node {command.node_id}"
        return Rejected(reason=Reason.NODE_NOT_FOUND, message=text, field="node_id")
    holds = any(not lease.is_ended for lease in turn.state.leases_on(node.node_id))
    if not node.unreachable_since_ms and (node.drain is None or holds):
        first = "drain it first" if node.drain is None else "something runs there"
        return Rejected(
            reason=Reason.WRONG_STATUS,
            message=f"node {node.node_id} is {contact(node)} and {duty(node)}: {first}",
            field="node_id",
        )
    turn.retire(Kind.NODE, node.node_id)
    expel(turn, node.node_id)
    text = f"node {node.node_id} was removed"
    for lease in turn.state.leases_on(node.node_id):
        if not lease.is_ended:
            turn.edit_lease(
                lease,
                Reason.NODE_REMOVED,
                state=LeaseState.ENDED,
                failure=Failure(category=NODE_LOST, message=text),
                ended_at_ms=turn.now_ms,
            )
            _follow(turn, lease, settings=settings)
        if lease.lease_id in turn.state.leases:
            forget(turn, turn.state.leases[lease.lease_id])
    settle(turn)
    return remember(turn, command.caller, reply=Reply(node=node), settings=settings)


def _follow(turn: Turn, lease: Lease, *, settings: CoreSettings) -> None:
    """Brings the job up to date, unless its attempt went on without the lease before."""
    if not lease.fenced_at_ms and is_newest(turn.state.jobs[lease.job_id], lease):
        follow(turn, lease.job_id, checkpointing=None, backoff=settings.backoff)
