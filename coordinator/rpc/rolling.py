"""Methods that drain many nodes, a few at a time."""

from __future__ import annotations

import uuid

from coordinator.core.commands import CancelRollingDrain, StartRollingDrain
from coordinator.core.reasons import Reason
from coordinator.core.records import Kind, RollingDrain
from coordinator.core.rolling import waiting_nodes
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.drain_plans import Plans, Strategy, strategy_of
from coordinator.rpc.jobs import caller_of, note_replay
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from scaimind.v1 import mind_coordinator_pb2 as api

MOST_NAMED, MOST_PLANS = 100, 20


class RollingMethods:
    """StartRollingDrain, ListRollingDrains, GetRollingDrain, CancelRollingDrain."""

    def __init__(self, driver: Driver, plans: Plans) -> None:
        self._driver = driver
        self._view = driver.view
        self._plans = plans

    async def StartRollingDrain(
        self, request: api.StartRollingDrainRequest, call: Call
    ) -> api.RollingDrain:
        """Begins to drain the nodes that carry some labels."""
        drain = rolling_of(request, drain_id=f"drain_{uuid.uuid4().hex}")
        command = StartRollingDrain(
            caller=caller_of(call, request), drain=drain, validate_only=request.validate_only
        )
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        assert reply.rolling is not None
        answer = _message(reply.rolling)
        if request.validate_only:
            answer.drain_id = ""
            _put_waiting(answer, reply.rolling, self._view)
        return answer

    async def ListRollingDrains(
        self, request: api.ListRollingDrainsRequest, call: Call
    ) -> api.ListRollingDrainsResponse:
        """Those that go on, and those that ended lately."""
        drains = sorted(
            (one for one in self._view.rules.values() if isinstance(one, RollingDrain)),
            key=lambda one: (one.requested_at_ms, one.drain_id),
        )
        answer = api.ListRollingDrainsResponse(drains=map(_message, drains))
        for one, drain in zip(answer.drains, drains, strict=True):
            _put_waiting(one, drain, self._view)
        by_id = {one.drain_id: one for one in answer.drains}
        for node in self._view.nodes.values():
            drain_id = node.drain.rolling if node.drain is not None else ""
            if drain_id in by_id and len(by_id[drain_id].out_node_ids) < MOST_NAMED:
                by_id[drain_id].out_node_ids.append(node.node_id)
        return answer

    async def GetRollingDrain(
        self, request: api.GetRollingDrainRequest, call: Call
    ) -> api.RollingDrain:
        """How far one came, and how the nodes that it has out are emptied."""
        drain = self._view.rules.get((Kind.ROLLING_DRAIN, request.drain_id))
        if not isinstance(drain, RollingDrain):
            raise Refusal(
                Reason.DRAIN_NOT_FOUND,
                f"there is no rolling drain {request.drain_id}",
                facts=(("drain_id", request.drain_id),),
            )
        answer = _message(drain)
        _put_waiting(answer, drain, self._view)
        out = [
            node
            for _, node in sorted(self._view.nodes.items())
            if node.drain is not None and node.drain.rolling == drain.drain_id
        ]
        answer.out_node_ids.extend(node.node_id for node in out[:MOST_NAMED])
        if out:
            answer.nodes.extend(await self._plans.of(out[:MOST_PLANS], call))
        return answer

    async def CancelRollingDrain(
        self, request: api.CancelRollingDrainRequest, call: Call
    ) -> api.RollingDrain:
        """Has one take no more nodes."""
        command = CancelRollingDrain(caller=caller_of(call, request), drain_id=request.drain_id)
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        assert reply.rolling is not None
        return _message(reply.rolling)


def rolling_of(request: api.StartRollingDrainRequest, *, drain_id: str) -> RollingDrain:
    """The rolling drain that a request begins."""
    return RollingDrain(
        drain_id=drain_id,
        selector=tuple(sorted(_pair(text) for text in request.label)),
        max_unavailable=request.max_unavailable if request.HasField("max_unavailable") else 1,
        until_enabled=request.until_enabled,
        node_deadline_ms=request.deadline_seconds * 1000,
        reason=request.reason,
        force=request.strategy == Strategy.FORCE,
        move=request.strategy == Strategy.CHECKPOINT_AND_MOVE,
    )


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value


def _put_waiting(answer: api.RollingDrain, drain: RollingDrain, view: View) -> None:
    waiting = [] if drain.ended_at_ms else waiting_nodes(view.nodes.values(), drain)
    answer.waiting_count = len(waiting)
    answer.waiting_node_ids.extend(waiting[:MOST_NAMED])


def _message(drain: RollingDrain) -> api.RollingDrain:
    status = api.RollingDrain.RUNNING
    if drain.ended_at_ms:
        status = api.RollingDrain.CANCELLED if drain.cancelled else api.RollingDrain.DONE
    return api.RollingDrain(
        drain_id=drain.drain_id,
        status=status,
        label=[f"{key}={value}" for key, value in drain.selector],
        max_unavailable=drain.max_unavailable,
        strategy=strategy_of(drain),
        until_enabled=drain.until_enabled,
        deadline_seconds=drain.node_deadline_ms // 1000,
        reason=drain.reason,
        taken_count=drain.taken_count,
        requested_at=convert.timestamp(drain.requested_at_ms),
        ended_at=convert.timestamp(drain.ended_at_ms),
    )
