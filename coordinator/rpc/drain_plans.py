"""What drains come to, as messages."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core.reasons import Reason
from coordinator.core.records import Drain, Node, RollingDrain
from coordinator.core.whatif import Emptying, Fate
from coordinator.forecast.terms import Emptied
from coordinator.rpc.border import Call
from coordinator.rpc.jobs import JobReader
from coordinator.runtime.clock import Clock
from coordinator.runtime.forecaster import Forecaster, Unforeseen
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import mind_coordinator_pb2 as api

RETRY_AFTER_S = 2.0
Strategy = api.DrainNodeRequest.Strategy


class Plans:
    """Tells how nodes are emptied, of jobs that the caller may see."""

    def __init__(self, forecaster: Forecaster, reader: JobReader, clock: Clock) -> None:
        self._forecaster = forecaster
        self._reader = reader
        self._clock = clock

    async def of(self, nodes: Sequence[Node], call: Call) -> list[api.DrainPlan]:
        """How drained nodes are emptied. Raises Refusal where it cannot be told just now."""
        try:
            found = await self._forecaster.empty([node.node_id for node in nodes])
        except Unforeseen:
            text = "what it comes to cannot be told just now; ask again"
            raise Refusal(Reason.OVERLOADED, text, retry_after_s=RETRY_AFTER_S) from None
        plans = []
        for node, likely, late in zip(nodes, found.likely, found.late, strict=True):
            plan = api.DrainPlan()
            await self._put(plan, likely, late=late, call=call)
            if node.drain is not None:
                plan.strategy = strategy_of(node.drain)
                put_time(plan.requested_at, node.drain.requested_at_ms)
                put_time(plan.deadline, node.drain.deadline_ms)
            plans.append(plan)
        return plans

    async def put(self, plan: api.DrainPlan, found: Emptied, *, call: Call) -> None:
        """Writes what became of one node."""
        await self._put(plan, found.likely[0], late=found.late[0], call=call)

    async def tells(self, job_id: str, call: Call) -> bool:
        """Whether the caller may see a job, also one that has ended since."""
        if call.identity.is_operator:
            return True
        try:
            await self._reader.find(job_id, call.identity.tenant_id)
        except Refusal:
            return False
        return True

    async def _put(
        self, plan: api.DrainPlan, likely: Emptying, *, late: Emptying, call: Call
    ) -> None:
        now_ms = self._clock.now_ms()
        plan.node_id = likely.node_id
        plan.jobs_count = len(likely.fates)
        for fate, at_worst in zip(likely.fates, late.fates, strict=True):
            plan.lost_device_seconds += fate.lost_ms / 1000
            plan.restart_device_seconds += fate.restart_ms / 1000
            if await self.tells(fate.job_id, call):
                plan.jobs.append(_job(fate, at_worst, now_ms=now_ms))
        plan.left_device_seconds = likely.left_ms / 1000
        if likely.empty_ms is not None:
            plan.empty_p50_seconds = _until_s(likely.empty_ms, now_ms)
        if late.empty_ms is not None:
            plan.empty_p90_seconds = _until_s(late.empty_ms, now_ms)


def strategy_of(drain: Drain | RollingDrain) -> api.DrainNodeRequest.Strategy.ValueType:
    """The strategy of a drain, as it is now."""
    if drain.force:
        return Strategy.FORCE
    return Strategy.CHECKPOINT_AND_MOVE if drain.move else Strategy.WAIT


def put_time(field: Timestamp, at_ms: int) -> None:
    """Sets a time; 0 stays unset."""
    if at_ms:
        field.FromMilliseconds(at_ms)


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
