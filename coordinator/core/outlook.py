"""What lies ahead, as it is and with changes: what Simulate compares.

A change is a command of the core, or nodes that do not exist. It is acted on in a forecast, so a change
that would be refused is refused here, with the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coordinator.core.commands import Command, SyncNode
from coordinator.core.core import Core
from coordinator.core.decision import Rejected, Reply
from coordinator.core.forecast import Forecast, Limits
from coordinator.core.reasons import Reason
from coordinator.core.records import FINAL, WHOLE, JobStatus, Node, StopCause
from coordinator.core.whatif import Course

STEPS = 3_000
AT_REST = FINAL | {JobStatus.PAUSED, JobStatus.PREEMPTED}  # until somebody wants it otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNodes:
    """Nodes that do not exist, like one that does."""

    like: str
    count: int


Change = Command | NewNodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What becomes of everything, as far as was looked. Costs in device-milliseconds."""

    starts_ms: dict[str, int]  # when each waiting job starts
    devices: dict[str, float]  # that each of these asks for
    ended_count: int
    preempted_count: int
    drained_count: int
    lost_ms: int
    restart_ms: int
    empty_ms: int | None  # when nothing waits or runs any more; None where that was not reached
    refused: tuple[tuple[int, Rejected], ...] = ()  # by place among the changes


def outlook(core: Core, now_ms: int, *, changes: Sequence[Change], horizon_ms: int) -> Outlook:
    """What lies ahead with some changes, made now and in order; uses the core up."""
    course = Course()
    forecast = Forecast(core, now_ms, note=course.note)
    refused = []
    made = 0
    for index, change in enumerate(changes):
        if isinstance(change, NewNodes):
            reply: Reply | Rejected | None = _add(forecast, change, first=made)
            made += change.count
        else:
            reply = forecast.act(change)
        if isinstance(reply, Rejected):
            refused.append((index, reply))
    waiting = dict(core.state.jobs)
    forecast.run(limits=Limits(steps=STEPS, horizon_ms=horizon_ms))
    causes = [one.cause for one in course.leavings]
    over = all(job.status in AT_REST for job in core.state.jobs.values())
    starts_ms = {job_id: starts[0].at_ms for job_id, starts in course.starts.items()}
    return Outlook(
        starts_ms=starts_ms,
        devices={
            job_id: waiting[job_id].demand.size / WHOLE for job_id in starts_ms if job_id in waiting
        },
        ended_count=len(course.ends_ms),
        preempted_count=causes.count(StopCause.PREEMPTED),
        drained_count=causes.count(StopCause.DRAINED),
        lost_ms=sum(one.lost_ms for one in course.leavings),
        restart_ms=sum(one.restart_ms for one in course.leavings),
        empty_ms=forecast.now_ms if over else None,
        refused=tuple(refused),
    )


def _add(forecast: Forecast, new: NewNodes, *, first: int) -> Rejected | None:
    like = forecast.core.state.nodes.get(new.like)
    if like is None:
        text = f"no node {new.like}"
        return Rejected(reason=Reason.NODE_NOT_FOUND, message=text, field="add_nodes.like_node_id")
    for number in range(first, first + new.count):
        forecast.act(_report(like, f"simulated-{number + 1}"))
    return None


def _report(like: Node, node_id: str) -> SyncNode:
    devices = tuple(
        replace(one, device_id=f"{node_id}-{one.device_id}", healthy=True)
        for one in like.offer.devices
    )
    return SyncNode(
        node_id=node_id,
        incarnation=node_id,
        generation=1,
        sequence=1,
        offer=replace(like.offer, devices=devices),
    )
