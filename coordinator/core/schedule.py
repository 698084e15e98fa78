"""One placement pass: who waits, in turn, takes what is free.

The turn is priority, then the order of the queue. A job that finds no room may take that of others
(see preempt.py); else it is passed by those behind it, and its whole group is set aside until devices
appear for it. So a pass looks at each group once, and at each job that it places.
"""

from __future__ import annotations

import heapq

from coordinator.core.attempts import grant
from coordinator.core.placement import place
from coordinator.core.preempt import make_room, take_room
from coordinator.core.records import Job
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn


def schedule(turn: Turn, settings: CoreSettings) -> None:
    """Places what fits, within a limit of looks; what is left stays ready for the next pass."""
    turn.state.advance(turn.now_ms)
    for job_id in turn.state.queue.take_touched():
        job = turn.state.jobs.get(job_id)
        if job is not None:  # else it has been cancelled meanwhile
            take_room(turn, job)
    queue = turn.state.queue
    limit = settings.max_placements_per_pass
    heads = [(group.first(), serial) for serial, group in queue.ready.items()]
    heapq.heapify(heads)
    while heads and limit:
        limit -= 1
        (*_, job_id), serial = heads[0]
        group = queue.ready[serial]
        job = turn.state.jobs[job_id]
        placement = place(turn.state.free, job.demand, avoid=failed_on(job))
        if placement is not None:
            grant(turn, job, placement=placement)
        elif not make_room(turn, job, settings=settings):
            turn.state.set_aside(group)
            heapq.heappop(heads)
            continue
        if serial in queue.ready:
            heapq.heapreplace(heads, (group.first(), serial))
        else:
            heapq.heappop(heads)


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
