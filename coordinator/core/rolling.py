"""Draining many nodes, a few at a time.

Theory of operation. A rolling drain is a record. It has those nodes out that carry its id in their Drain:
until they are empty, or, where an admin wants to work on them, until they are enabled again. While fewer
are out than may be, the next by name is drained. One cursor says how far it came, so all of it is in the
records, and whoever leads goes on with it. A node that somebody else has drained is passed by.

It is looked at in each pass after something has changed for it: a node of it was emptied, enabled or
removed, or the record itself was put.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.commands import CancelRollingDrain, StartRollingDrain
from coordinator.core.decision import Rejected, Reply
from coordinator.core.drain import empty
from coordinator.core.reasons import Reason
from coordinator.core.records import Drain, Kind, Node, Pairs, RollingDrain
from coordinator.core.replacing import replace
from coordinator.core.requests import recall, remember
from coordinator.core.settings import CoreSettings
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn

MOST_AT_ONCE = 100  # nodes that one pass takes


def start(turn: Turn, command: StartRollingDrain, *, settings: CoreSettings) -> Reply | Rejected:
    """Begins a rolling drain; the first nodes are taken in the pass that follows."""
    state = turn.state
    known = recall(state, command.caller)
    if known is not None:
        return known
    drain = replace(
        command.drain, actor=command.caller.user_id, requested_at_ms=turn.now_ms, version=1
    )
    if not any(carries(node, drain.selector) for node in state.nodes.values()):
        text = "no node carries these labels"
        return Rejected(reason=Reason.INVALID_ARGUMENT, message=text, field="label")
    over = next((x for x in state.rolls.drains.values() if x.ended_at_ms), None)
    full = len(state.rolls.drains) >= settings.max_rolling_drains
    if full and over is None:
        text = f"{len(state.rolls.drains)} rolling drains go on, as many as may: cancel one"
        return Rejected(reason=Reason.WRONG_STATUS, message=text)
    if command.validate_only:
        return Reply(rolling=drain)
    if full and over is not None:
        turn.retire(Kind.ROLLING_DRAIN, over.drain_id)
    turn.put(drain, Reason.DRAIN_REQUESTED)
    return remember(turn, command.caller, reply=Reply(rolling=drain), settings=settings)


def cancel(turn: Turn, command: CancelRollingDrain, *, settings: CoreSettings) -> Reply | Rejected:
    """Has a rolling drain take no more nodes; those that it has out stay drained."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    drain = turn.state.rolls.drains.get(command.drain_id)
    if drain is None:
        text = f"no rolling drain {command.drain_id}"
        return Rejected(reason=Reason.DRAIN_NOT_FOUND, message=text, field="drain_id")
    if not drain.ended_at_ms:
        drain = _put(turn, drain, cause=Reason.DRAIN_ENDED, ended_at_ms=turn.now_ms, cancelled=True)
    return remember(turn, command.caller, reply=Reply(rolling=drain), settings=settings)


def roll(turn: Turn) -> None:
    """Takes the next nodes of every rolling drain for which something has changed."""
    for drain_id in turn.state.rolls.take_touched():
        drain = turn.state.rolls.drains.get(drain_id)
        if drain is not None:
            _roll(turn, drain)


def carries(node: Node, selector: Pairs) -> bool:
    """Whether a node carries all of some labels."""
    return set(selector).issubset(node.offer.labels)


def waiting_nodes(nodes: Iterable[Node], drain: RollingDrain) -> list[str]:
    """The nodes that a rolling drain has still to take, in its order."""
    return sorted(
        node.node_id
        for node in nodes
        if node.node_id > drain.cursor
        and node.drain is None
        and node.joined_at_ms <= drain.requested_at_ms
        and carries(node, drain.selector)
    )


def _roll(turn: Turn, drain: RollingDrain) -> None:
    rolls = turn.state.rolls
    for node_id in [*rolls.out.get(drain.drain_id, ())]:
        if not drain.until_enabled and _is_empty(turn.state, node_id):
            _let_go(turn, turn.state.nodes[node_id])
    if drain.ended_at_ms:
        return
    may = min(drain.max_unavailable - len(rolls.out.get(drain.drain_id, ())), MOST_AT_ONCE)
    if may <= 0:
        return
    taken = waiting_nodes(turn.state.nodes.values(), drain)[:may]
    for node_id in taken:
        _take(turn, turn.state.nodes[node_id], drain=drain)
    if taken:
        count = drain.taken_count + len(taken)
        _put(turn, drain, cause=Reason.DRAIN_REQUESTED, cursor=taken[-1], taken_count=count)
    elif not rolls.out.get(drain.drain_id):
        _put(turn, drain, cause=Reason.DRAIN_ENDED, ended_at_ms=turn.now_ms)


def _take(turn: Turn, node: Node, *, drain: RollingDrain) -> None:
    after_ms = drain.node_deadline_ms
    wish = Drain(
        requested_at_ms=turn.now_ms,
        force=drain.force,
        move=drain.move,
        reason=drain.reason,
        deadline_ms=turn.now_ms + after_ms if after_ms else 0,
        actor=drain.actor,
        rolling=drain.drain_id,
    )
    node = turn.edit_node(node, Reason.DRAIN_REQUESTED, drain=wish)
    if drain.force or drain.move:
        empty(turn, node)


def _let_go(turn: Turn, node: Node) -> None:
    """It stays drained, and is not counted any more."""
    assert node.drain is not None
    turn.edit_node(node, Reason.DRAIN_REQUESTED, drain=replace(node.drain, rolling=""))


def _is_empty(state: ClusterState, node_id: str) -> bool:
    """Whether nothing runs there, as far as anybody knows."""
    ended = all(lease.is_ended for lease in state.leases_on(node_id))
    return ended and not state.doubt.bars(node_id)


def _put(turn: Turn, drain: RollingDrain, *, cause: Reason, **changes: object) -> RollingDrain:
    after = replace(drain, version=drain.version + 1, **changes)  # type: ignore[arg-type]
    turn.put(after, cause)
    return after
