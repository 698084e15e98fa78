"""One placement pass: who waits, in turn, takes what is free.

Whose turn it is, line.py says. A job that a limit keeps back is passed by those behind it, and its whole
group is set aside until less is held below the limit; those of it that no limit has let in stay PENDING. One
that finds no room is QUEUED, with all like it, as no limit keeps them back. It may take that of others
(see preempt.py); else it is passed as well, and its group is set aside until it is worth a look again
(see worth.py). So a pass looks at each group once at most, and at each job that it places.
"""

from __future__ import annotations

from itertools import islice

from coordinator.core.attempts import failed_on, grant, let_in
from coordinator.core.claims import claim, drop, has_idle, lend, pass_by, take
from coordinator.core.delay import nearer
from coordinator.core.line import Line
from coordinator.core.placement import Placement, place
from coordinator.core.preempt import make_room, take_room
from coordinator.core.queue import Group
from coordinator.core.records import Job, JobStatus
from coordinator.core.settings import CoreSettings
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn
from coordinator.core.worth import Worth

MOST_LET_IN = 1_000  # jobs, by one look


def schedule(turn: Turn, settings: CoreSettings) -> None:
    """Places what fits, within a limit of looks; what is left stays ready for the next pass."""
    turn.state.advance(turn.now_ms)
    for job_id in turn.state.queue.opened.take_touched():
        job = turn.state.jobs.get(job_id)
        if job is not None and job.reserved:
            if job.status is JobStatus.QUEUED:
                take_room(turn, job)
        elif job is not None and job.claim:
            take(turn, job)
    opened = turn.state.queue.opened.take()
    line = Line(turn.state, Worth(turn.state, opened), now_ms=turn.now_ms)
    for _ in range(settings.max_placements_per_pass):
        group = line.first()
        if group is None:
            return
        line.renew(placed=_look(turn, group, settings=settings))
    turn.state.queue.opened.leave(opened)


def settle_down(state: ClusterState) -> None:
    """Sets everything aside, as a pass that finds nothing to do would."""
    for group in [*state.queue.ready.values()]:
        state.set_aside(group, state.shares.limit_of(state.jobs[group.first()[-1]]))
    state.queue.opened.take()
    state.queue.opened.take_touched()


def _look(turn: Turn, group: Group, *, settings: CoreSettings) -> bool:
    """Places the first job of a group, or sets the group aside; whether it found room or makes some."""
    state = turn.state
    job = state.jobs[group.first()[-1]]
    limit = state.shares.limit_of(job)
    if limit is not None:
        if job.claim is not None:
            drop(turn, job)
        state.set_aside(group, limit)
        return False
    near = state.near.of(job.wants) if job.wants else ()
    placement = place(state.free, job.demand, avoid=failed_on(job), near=near)
    if placement is not None:
        placement = nearer(turn, job, placement=placement, holders=near)
        if placement is None:
            return True
    placement = placement or _of_claims(turn, job)
    if placement is not None:
        grant(turn, job, placement=placement)
        return True
    if lend(turn, group, settings=settings):
        return True
    job = let_in(turn, job)
    if make_room(turn, job, settings=settings):
        return True
    claim(turn, job, again=group.is_blocked)
    for job_id in [*islice(group.pending, MOST_LET_IN)]:
        let_in(turn, state.jobs[job_id])
    if not group.pending:  # the others are let in by the next pass
        state.set_aside(group)
    return False


def _of_claims(turn: Turn, job: Job) -> Placement | None:
    """Where the job fits with what it has claimed, or with what those behind it have."""
    placement = None
    if job.claim is not None and has_idle(turn.state, job, claimant=job):
        placement = turn.state.place_without(job, unkept=job.job_id)
    return placement or pass_by(turn, job)
