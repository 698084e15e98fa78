"""Raising those who have waited for long, so that no priority starves.

Theory of operation. Priority stands before every order, so who has a low one is passed for as long as jobs
of a higher one come. Who has waited for `aging_ms` while there was somebody above it, waiting or running,
is raised by one; after twice that time once more, and so on, never above all others. Where all have the
same priority nothing is raised, and the order of the queue alone says whose turn it is.

What a job was raised by it keeps while it runs: those it was raised to may not take its devices then. A
user who sets its priority anew begins anew.

One deadline is kept for all that wait. They stand in the order in which they began to wait, but for those
that were filed anew since, so a look ends at the first one that has not waited for long.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from coordinator.core.order import waits_since_ms
from coordinator.core.reasons import Reason
from coordinator.core.records import ROOT, Order
from coordinator.core.settings import CoreSettings
from coordinator.core.state import ClusterState
from coordinator.core.turn import Turn

MOST_RAISED = 1_000  # by one look; the next one comes at once
LOOKS = 28  # in the time for which one waits: where nobody may be raised now, somebody may be later


def raise_waiting(turn: Turn, *, settings: CoreSettings) -> None:
    """Raises who has waited for long behind others, and says when to look again."""
    state, aging_ms = turn.state, settings.aging_ms
    left_ms, raised = 0, 0
    tops: dict[str, int] | None = None
    for job_id in [*state.queue.group_of]:
        job = state.jobs[job_id]
        waited_ms = turn.now_ms - waits_since_ms(job)
        if waited_ms < aging_ms:
            left_ms = left_ms or aging_ms - waited_ms
            break
        left_ms = max(1, aging_ms // LOOKS)
        if waited_ms < aging_ms * (job.aged + 1):
            continue
        if tops is None:
            tops = _tops(state)
        top = tops[_reach(state, job.queue_name)]
        if job.standing < top:
            standing = min(top, job.priority + waited_ms // aging_ms)
            text = f"it has waited for long, and stands with those of priority {standing}"
            turn.edit(job, Reason.AGED, aged=standing - job.priority, message=text)
            raised += 1
            if raised == MOST_RAISED:
                left_ms = 1
                break
    state.look_at_ages(turn.now_ms + left_ms if left_ms else 0)


def _tops(state: ClusterState) -> dict[str, int]:
    """The highest standing of those that compete, by the queue that is above all of them."""
    most: dict[str, int] = {}
    for name, standing in _standings(state):
        most[name] = max(standing, most.get(name, 0))
    tops: dict[str, int] = {}
    for name, standing in most.items():
        reach = _reach(state, name)
        tops[reach] = max(standing, tops.get(reach, 0))
    return tops


def _standings(state: ClusterState) -> Iterator[tuple[str, int]]:
    """Queue and standing of those that run, and of the first of those that wait."""
    for job_id in state.ends.filed:
        job = state.jobs[job_id]
        yield job.queue_name, job.standing
    for group in state.queue.groups.values():
        yield group.queue_name, -group.first()[0]


def _reach(state: ClusterState, name: str) -> str:
    """How far up the turns of a queue's jobs are compared with those of others: to where it is by use."""
    path = state.shares.path(name)
    for below, above in pairwise(path):
        queue = state.queues.get(above)
        if queue is not None and queue.order is Order.FAIR:
            return below
    return ROOT
