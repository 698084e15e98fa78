"""Deadlines that have come."""

from __future__ import annotations

from coordinator.core.aging import raise_waiting
from coordinator.core.attempts import reconsider, settle
from coordinator.core.care import pass_time
from coordinator.core.claims import fall_due
from coordinator.core.deadlines import Due
from coordinator.core.drain import empty, pass_window
from coordinator.core.loss import give_up
from coordinator.core.preempt import lose_room
from coordinator.core.reasons import Reason
from coordinator.core.records import Kind, StopCause
from coordinator.core.replacing import replace
from coordinator.core.saving import expire, save_and_stop
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn


def tick(turn: Turn, settings: CoreSettings) -> None:
    """Acts on what is due, at most so much at once; the rest stays due."""
    deadlines = turn.state.deadlines
    for due, id in deadlines.due(turn.now_ms, limit=settings.max_deadlines_per_tick):
        at_ms = deadlines.wanted.get((due, id))
        if at_ms is not None and at_ms <= turn.now_ms:
            _act(turn, due, id=id, settings=settings)
    settle(turn)


def _act(turn: Turn, due: Due, *, id: str, settings: CoreSettings) -> None:
    state = turn.state
    match due:
        case Due.START:
            reconsider(turn, state.jobs[id])
        case Due.BACKOFF:
            reason = Reason.WAITING_FOR_CAPACITY
            turn.edit(state.jobs[id], reason, reason=reason.value, not_before_ms=0)
        case Due.TIME_LIMIT:
            save_and_stop(turn, state.jobs[id], cause=StopCause.TIME_LIMIT)
        case Due.ASK:
            expire(turn, state.jobs[id])
        case Due.CLAIM:
            if state.jobs[id].claim is not None:
                fall_due(turn, state.jobs[id], settings=settings)
            else:
                lose_room(turn, state.jobs[id])
        case Due.DRAIN:
            node = state.nodes[id]
            assert node.drain is not None
            node = turn.edit_node(
                node, Reason.DRAIN_REQUESTED, drain=replace(node.drain, force=True, move=False)
            )
            empty(turn, node)
        case Due.WINDOW:
            pass_window(turn, state.nodes[id])
        case Due.HEALTH:
            pass_time(turn, state.nodes[id])
        case Due.SILENCE:
            # out of contact is all that is known: what runs there is taken to go on
            turn.edit_node(
                state.nodes[id], Reason.NODE_UNREACHABLE, unreachable_since_ms=turn.now_ms
            )
        case Due.FENCED:
            give_up(turn, state.nodes[id], settings=settings)
        case Due.AGE:
            raise_waiting(turn, settings=settings)
        case Due.FORGET:
            turn.retire(Kind.REQUEST, id)
