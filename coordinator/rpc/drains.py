"""Methods that empty nodes, and that tell what it comes to."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core.commands import DrainNode
from coordinator.core.reasons import Reason
from coordinator.core.records import Drain
from coordinator.core.whatif import Fate
from coordinator.forecast.terms import Emptied
from coordinator.rpc.border import Call
from coordinator.rpc.jobs import JobReader, caller_of, note_replay
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.forecaster import Forecaster, Unforeseen
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import node_pb2

RETRY_AFTER_S = 2.0
Strategy = api.DrainNodeRequest.Strategy
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
        self._reader = reader
        self._clock = clock

    async def DrainNode(self, request: api.DrainNodeRequest, call: Call) -> api.DrainNodeResponse:
        """Stops placing on a node; what runs there goes by the strategy."""
        strategy = _strategy(request)
        deadline_ms = 0
        if request.deadline_seconds:
            deadline_ms = self._clock.now_ms() + request.deadline_seconds * 1000
        command = DrainNode(
            caller=caller_of(call, request),
            node_id=request.node_id,
            force=strategy == Strategy.FORCE,
            move=strategy == Strategy.CHECKPOINT_AND_MOVE,
            reason=request.reason,
            deadline_ms=deadline_ms,
            validate_only=request.validate_only,
        )
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        there = [one.job_id for one in reply.outcomes]
        answer = api.DrainNodeResponse(
            node_id=request.node_id,
            status=node_pb2.Node.DRAINING if there else node_pb2.Node.DRAINED,
            running_job_ids=[job_id for job_id in there if await self._tells(job_id, call)],
            message=TEXTS[strategy] if there else "nothing runs on the node",
        )
        if request.validate_only:
            try:
                found = await self._forecaster.empty(request.node_id, command)
            except Unforeseen:
                answer.message += "; what it would come to cannot be told just now"
            else:
                await self._put(answer.plan, found, call=call)
                answer.plan.strategy = strategy
                _put_time(answer.plan.deadline, deadline_ms)
        return answer

    async def GetDrain(self, request: api.GetDrainRequest, call: Call) -> api.DrainPlan:
        """How the drain of a node goes."""
        node = self._view.nodes.get(request.node_id)
        if node is None:
            text = f"there is no node {request.node_id}"
            raise Refusal(Reason.NODE_NOT_FOUND, text, facts=(("node_id", request.node_id),))
        if node.drain is None:
            raise Refusal(Reason.WRONG_STATUS, f"{request.node_id} is not drained")
        answer = api.DrainPlan()
        try:
            found = await self._forecaster.empty(request.node_id, None)
        except Unforeseen:
            text = "what it comes to cannot be told just now; ask again"
            raise Refusal(Reason.OVERLOADED, text, retry_after_s=RETRY_AFTER_S) from None
        await self._put(answer, found, call=call)
        answer.strategy = strategy_of(node.drain)
        _put_time(answer.requested_at, node.drain.requested_at_ms)
        _put_time(answer.deadline, node.drain.deadline_ms)
        return answer

    async def _put(self, answer: api.DrainPlan, found: Emptied, *, call: Call) -> None:
        now_ms = self._clock.now_ms()
        likely, late = found.likely, found.late
        answer.node_id = likely.node_id
        answer.jobs_count = len(likely.fates)
        for fate, at_worst in zip(likely.fates, late.fates, strict=True):
            answer.lost_device_seconds += fate.lost_ms / 1000
            answer.restart_device_seconds += fate.restart_ms / 1000
            if await self._tells(fate.job_id, call):
                answer.jobs.append(_job(fate, at_worst, now_ms=now_ms))
        answer.left_device_seconds = likely.left_ms / 1000
        if likely.empty_ms is not None:
            answer.empty_p50_seconds = _until_s(likely.empty_ms, now_ms)
        if late.empty_ms is not None:
            answer.empty_p90_seconds = _until_s(late.empty_ms, now_ms)

    async def _tells(self, job_id: str, call: Call) -> bool:
        """Whether the caller may see a job, also one that has ended since."""
        if call.identity.is_operator:
            return True
        try:
            await self._reader.find(job_id, call.identity.tenant_id)
        except Refusal:
            return False
        return True


def strategy_of(drain: Drain) -> api.DrainNodeRequest.Strategy.ValueType:
    """The strategy of a drain, as it is now."""
    if drain.force:
        return Strategy.FORCE
    return Strategy.CHECKPOINT_AND_MOVE if drain.move else Strategy.WAIT


def _strategy(request: api.DrainNodeRequest) -> api.DrainNodeRequest.Strategy.ValueType:
    strategy = request.strategy or (Strategy.FORCE if request.force else Strategy.WAIT)
    if request.force and strategy != Strategy.FORCE:
        text = "must be FORCE, or not given, with force"
        raise Refusal(Reason.INVALID_ARGUMENT, f"strategy {text}", violations=(("strategy", text),))
    return strategy


def _job(fate: Fate, late: Fate, *, now_ms: int) -> api.DrainedJob:
    job = api.DrainedJob(
        job_id=fate.job_id,
        outcome=api.DrainedJob.Outcome.Value(fate.outcome.value),
        devices=fate.devices,
        lost_device_seconds=fate.lost_ms / 1000,
        restart_device_seconds=fate.restart_ms / 1000,
    )
    if fate.leaves_ms is not None:
        job.leaves_p50_seconds = _until_s(fate.leaves_ms, now_ms)
    if late.leaves_ms is not None:
        job.leaves_p90_seconds = _until_s(late.leaves_ms, now_ms)
    if fate.start is not None:
        job.restart_seconds = _until_s(fate.start.at_ms, now_ms)
        job.restart_node_ids.extend(fate.start.node_ids)
    return job


def _until_s(at_ms: int, now_ms: int) -> float:
    return max(0, at_ms - now_ms) / 1000


def _put_time(field: Timestamp, at_ms: int) -> None:
    if at_ms:
        field.FromMilliseconds(at_ms)
