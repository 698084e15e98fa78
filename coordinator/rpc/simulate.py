"""What changes would come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from coordinator.core.commands import (
    Caller,
    EnableNode,
    PutQueue,
    RemoveQueue,
    StartRollingDrain,
)
from coordinator.core.outlook import Change, NewNodes, Outlook
from coordinator.core.reasons import Reason
from coordinator.forecast.terms import Simulated
from coordinator.rpc.admit import submit_command
from coordinator.rpc.border import Call
from coordinator.rpc.drains import drain_command
from coordinator.rpc.queues import queue_of
from coordinator.rpc.rolling import rolling_of
from coordinator.runtime.clock import Clock
from coordinator.runtime.forecaster import Forecaster, Unforeseen
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import mind_coordinator_pb2 as api

HORIZON_S = 7 * 86_400
RETRY_AFTER_S = 5.0
MOST_STARTS = 200
LEAST_S = 1.0  # a start that moves by less does not change
MOST_JOBS = 10_000  # of all changes together
KINDS = ", ".join(one.name for one in api.SimulatedChange.DESCRIPTOR.fields)


class SimulateMethods:
    """Simulate."""

    def __init__(self, forecaster: Forecaster, *, clock: Clock) -> None:
        self._forecaster = forecaster
        self._clock = clock

    async def Simulate(self, request: api.SimulateRequest, call: Call) -> api.SimulateResponse:
        """Runs the scheduler ahead on a copy, with changes and without."""
        now_ms = self._clock.now_ms()
        identity = call.identity
        caller = Caller(tenant_id=identity.tenant_id, user_id=identity.user_id)
        changes: list[Change] = []
        places: list[int] = []  # of the request, by place among the core's changes
        for index, change in enumerate(request.changes):
            made = list(_changes(change, caller=caller, now_ms=now_ms, after=len(changes)))
            if not made:
                raise _refused(f"changes[{index}]", f"must be one of {KINDS}")
            changes += made
            places += [index] * len(made)
            if len(changes) > MOST_JOBS:
                raise _refused("changes", f"come to more than {MOST_JOBS} jobs")
        horizon_ms = (request.horizon_seconds or HORIZON_S) * 1000
        try:
            found = await self._forecaster.simulate(changes, horizon_ms)
        except Unforeseen:
            text = "it cannot be told just now; ask for less, or again"
            raise Refusal(Reason.OVERLOADED, text, retry_after_s=RETRY_AFTER_S) from None
        answer = answer_of(found, now_ms=now_ms)
        for place, refused in found.after.refused:
            error = api.BatchError(code=refused.reason.value, message=refused.message)
            answer.refused.add(index=places[place], error=error)
        return answer


def _refused(field: str, text: str) -> Refusal:
    return Refusal(Reason.INVALID_ARGUMENT, f"{field} {text}", violations=((field, text),))


def _changes(
    change: api.SimulatedChange, *, caller: Caller, now_ms: int, after: int
) -> Iterator[Change]:
    match change.WhichOneof("change"):
        case "set_queue":
            yield PutQueue(caller=caller, queue=queue_of(change.set_queue))
        case "remove_queue":
            yield RemoveQueue(caller=caller, name=change.remove_queue.name)
        case "drain":
            asked = api.DrainNodeRequest()
            asked.CopyFrom(change.drain)
            asked.validate_only = False
            yield drain_command(asked, caller=caller, now_ms=now_ms)
        case "rolling_drain":
            drain = rolling_of(change.rolling_drain, drain_id=f"simulated-{after}")
            yield StartRollingDrain(caller=caller, drain=drain)
        case "enable":
            yield EnableNode(caller=caller, node_id=change.enable.node_id)
        case "add_nodes":
            count = change.add_nodes.count if change.add_nodes.HasField("count") else 1
            yield NewNodes(like=change.add_nodes.like_node_id, count=count)
        case "submit":
            job = api.SubmitJobRequest()
            job.CopyFrom(change.submit.job)
            job.validate_only = False
            count = change.submit.count if change.submit.HasField("count") else 1
            one = submit_command(job, caller=caller, job_id="")
            for number in range(after + 1, after + 1 + count):
                yield replace(one, job_id=f"simulated-{number}", document=b"")
        case None:
            return


def answer_of(found: Simulated, *, now_ms: int) -> api.SimulateResponse:
    """The difference that changes make; which of them are refused is not in it yet."""
    before, after = found.before, found.after
    all_starts = (
        _start(job_id, before, after=after, now_ms=now_ms)
        for job_id in {**before.starts_ms, **after.starts_ms}
    )
    starts = [one for one in all_starts if _moved_s(one) >= LEAST_S]
    starts.sort(key=lambda one: (-_moved_s(one), one.job_id))
    sooner = sum(_is_sooner(one) for one in starts)
    return api.SimulateResponse(
        before=_outlook(before, now_ms=now_ms),
        after=_outlook(after, now_ms=now_ms),
        sooner_count=sooner,
        later_count=len(starts) - sooner,
        starts=starts[:MOST_STARTS],
    )


def _start(job_id: str, before: Outlook, *, after: Outlook, now_ms: int) -> api.SimulatedStart:
    devices = after.devices.get(job_id) or before.devices.get(job_id) or 0.0
    start = api.SimulatedStart(job_id=job_id, devices=devices)
    if job_id in before.starts_ms:
        start.before_seconds = _until_s(before.starts_ms[job_id], now_ms)
    if job_id in after.starts_ms:
        start.after_seconds = _until_s(after.starts_ms[job_id], now_ms)
    return start


def _is_sooner(start: api.SimulatedStart) -> bool:
    if not start.HasField("after_seconds"):
        return False
    return not start.HasField("before_seconds") or start.after_seconds < start.before_seconds


def _moved_s(start: api.SimulatedStart) -> float:
    """By how much a start moves; one that is or is not moves most."""
    if not start.HasField("before_seconds") or not start.HasField("after_seconds"):
        return float("inf")
    return abs(start.after_seconds - start.before_seconds)


def _outlook(outlook: Outlook, *, now_ms: int) -> api.Outlook:
    waits_s = [_until_s(at_ms, now_ms) for at_ms in outlook.starts_ms.values()]
    message = api.Outlook(
        started_count=len(waits_s),
        ended_count=outlook.ended_count,
        preempted_count=outlook.preempted_count,
        drained_count=outlook.drained_count,
        lost_device_seconds=outlook.lost_ms / 1000,
        restart_device_seconds=outlook.restart_ms / 1000,
    )
    if waits_s:
        message.mean_wait_seconds = sum(waits_s) / len(waits_s)
    if outlook.empty_ms is not None:
        message.empty_seconds = _until_s(outlook.empty_ms, now_ms)
    return message


def _until_s(at_ms: int, now_ms: int) -> float:
    return max(0, at_ms - now_ms) / 1000
