"""Methods that empty nodes, and that tell what it comes to."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.commands import Caller, DrainNode
from coordinator.core.reasons import Reason
from coordinator.rpc.border import Call
from coordinator.rpc.convert import milliseconds
from coordinator.rpc.drain_plans import Plans, Strategy, put_time
from coordinator.rpc.jobs import JobReader, caller_of, note_replay
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.forecaster import Forecaster, Unforeseen
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import node_pb2

FARTHEST_MS = 366 * 86_400_000
TEXTS = {
    Strategy.WAIT: "what runs there will run to the end; nothing new is placed here",
    Strategy.CHECKPOINT_AND_MOVE: "what runs there leaves once it has saved; nothing new is placed here",
    Strategy.FORCE: "what runs there will be stopped and queued again",
}


class DrainMethods:
    """DrainNode, GetDrain."""

    def __init__(
        self, driver: Driver, forecaster: Forecaster, reader: JobReader, *, clock: Clock
    ) -> None:
        self._driver = driver
        self._view = driver.view
        self._forecaster = forecaster
        self._plans = Plans(forecaster, reader, clock)
        self._clock = clock

    async def DrainNode(self, request: api.DrainNodeRequest, call: Call) -> api.DrainNodeResponse:
        """Stops placing on a node; what runs there goes by the strategy."""
        strategy = _strategy(request)
        caller = caller_of(call, request)
        command = drain_command(request, caller=caller, now_ms=self._clock.now_ms())
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        there = [one.job_id for one in reply.outcomes]
        answer = api.DrainNodeResponse(
            node_id=request.node_id,
            status=node_pb2.Node.DRAINING if there else node_pb2.Node.DRAINED,
            running_job_ids=[job_id for job_id in there if await self._plans.tells(job_id, call)],
            message=TEXTS[strategy] if there else "nothing runs on the node",
        )
        if command.from_ms:
            answer.status = node_pb2.Node.READY
            answer.message = (
                "until the drain begins the node takes jobs that are over by then or can move"
            )
        if request.validate_only:
            try:
                wish = replace(command, validate_only=False)
                found = await self._forecaster.empty([request.node_id], wish)
            except Unforeseen:
                answer.message += "; what it would come to cannot be told just now"
            else:
                await self._plans.put(answer.plan, found, call=call)
                answer.plan.strategy = strategy
                put_time(answer.plan.deadline, command.deadline_ms)
        return answer

    async def GetDrain(self, request: api.GetDrainRequest, call: Call) -> api.DrainPlan:
        """How the drain of a node goes."""
        node = self._view.nodes.get(request.node_id)
        if node is None:
            text = f"there is no node {request.node_id}"
            raise Refusal(Reason.NODE_NOT_FOUND, text, facts=(("node_id", request.node_id),))
        if node.drain is None:
            raise Refusal(Reason.WRONG_STATUS, f"{request.node_id} is not drained")
        [answer] = await self._plans.of([node], call)
        return answer


def drain_command(request: api.DrainNodeRequest, *, caller: Caller, now_ms: int) -> DrainNode:
    """The command of a request. Raises Refusal."""
    strategy = _strategy(request)
    from_ms, until_ms = _window(request, now_ms=now_ms)
    after_ms = request.deadline_seconds * 1000
    return DrainNode(
        caller=caller,
        node_id=request.node_id,
        force=strategy == Strategy.FORCE,
        move=strategy == Strategy.CHECKPOINT_AND_MOVE,
        reason=request.reason,
        deadline_ms=max(now_ms, from_ms) + after_ms if after_ms else 0,
        from_ms=from_ms,
        until_ms=until_ms,
        validate_only=request.validate_only,
    )


def _bad(field: str, what: str) -> Refusal:
    text = f"{field} {what}"
    return Refusal(Reason.INVALID_ARGUMENT, text, violations=((field, text),))


def _window(request: api.DrainNodeRequest, *, now_ms: int) -> tuple[int, int]:
    """(when the drain begins, when the node is enabled again), 0 for now and never."""
    from_ms, until_ms = milliseconds(request.starts_at), milliseconds(request.ends_at)
    if from_ms > now_ms + FARTHEST_MS:
        raise _bad("starts_at", "is more than a year ahead")
    if request.HasField("ends_at") and until_ms <= max(now_ms, from_ms):
        raise _bad("ends_at", "is over, or not after starts_at")
    return from_ms if from_ms > now_ms else 0, until_ms


def _strategy(request: api.DrainNodeRequest) -> api.DrainNodeRequest.Strategy.ValueType:
    strategy = request.strategy or (Strategy.FORCE if request.force else Strategy.WAIT)
    if request.force and strategy != Strategy.FORCE:
        text = "must be FORCE, or not given, with force"
        raise Refusal(Reason.INVALID_ARGUMENT, f"strategy {text}", violations=(("strategy", text),))
    return strategy
