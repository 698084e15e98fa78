"""One placement pass: who waits, in turn, takes what is free.

Whose turn it is, line.py says. A job that a limit keeps back is passed by those behind it, and its whole
group is set aside until less is held below the limit. One that finds no room may take that of others
(see preempt.py); else it is passed as well, and its group is set aside until devices appear for it. So a
pass looks at each group once, and at each job that it places.
"""

from __future__ import annotations

from coordinator.core.attempts import grant
from coordinator.core.line import Line
from coordinator.core.placement import place
from coordinator.core.preempt import make_room, take_room
from coordinator.core.queue import Group
from coordinator.core.records import Job
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn


def schedule(turn: Turn, settings: CoreSettings) -> None:
    """Places what fits, within a limit of looks; what is left stays ready for the next pass."""
    turn.state.advance(turn.now_ms)
    for job_id in turn.state.queue.take_touched():
        if job_id in turn.state.jobs:
            take_room(turn, turn.state.jobs[job_id])
    line = Line(turn.state, turn.state.queue.ready.values(), now_ms=turn.now_ms)
    for _ in range(settings.max_placements_per_pass):
        group = line.first()
        if group is None:
            return
        _look(turn, group, settings=settings)
        line.renew()


def _look(turn: Turn, group: Group, *, settings: CoreSettings) -> None:
    """Places the first job of a group, or sets the group aside."""
    state = turn.state
    job = state.jobs[group.first()[-1]]
    limit = state.shares.limit_of(job)
    if limit is not None:
        state.set_aside(group, limit)
        return
    placement = place(state.free, job.demand, avoid=failed_on(job))
    if placement is not None:
        grant(turn, job, placement=placement)
    elif not make_room(turn, job, settings=settings):
        state.set_aside(group)


def failed_on(job: Job) -> str:
    """The node on which the newest attempt failed; "" where that is not known."""
    if job.attempt is None or job.failure is None:
        return ""
    shares = job.attempt.shares
    if len(shares) == 1:
        return shares[0].node_id
    if job.failure.rank is None:
        return ""
    left = job.failure.rank
    for share in shares:
        left -= len(share.device_ids) // job.demand.devices_per_rank
        if left < 0:
            return share.node_id
    return ""
