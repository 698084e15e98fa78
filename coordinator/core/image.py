"""A job's image stays what it was when it ran first, wherever and however often it runs.

A tag may stand for something else a day later, or on another node. Only nodes can ask registries: the first
that knows what the name stands for tells it, and the job keeps that. Every lease that is delivered later asks
for it. Nodes that start a gang at the same moment each find out by themselves: where one has found something
else, the attempt is over, and the next one has the image of the first; that costs no retry.
"""

from __future__ import annotations

from coordinator.core.attempts import is_newest, stop
from coordinator.core.commands import ObservedLease
from coordinator.core.reasons import Reason
from coordinator.core.records import Failure, Lease, StopCause
from coordinator.core.retry import IMAGE
from coordinator.core.turn import Turn


def pin(turn: Turn, lease: Lease, *, one: ObservedLease | None) -> Lease:
    """Takes over what a job's image is, or ends an attempt in which it is not the same everywhere.

    Returns the lease as it is then.
    """
    job = turn.state.jobs[lease.job_id]
    if one is None or not one.image_digest or one.image_digest == job.image_digest:
        return lease
    if one.epoch != lease.epoch or lease.fenced_at_ms or job.is_final or not is_newest(job, lease):
        return lease
    attempt = job.attempt
    if not job.image_digest:
        turn.edit(job, Reason.IMAGE_PINNED, image_digest=one.image_digest)
    elif attempt is not None and attempt.stop is None and not attempt.ended_at_ms:
        text = f"node {lease.node_id} has {one.image_digest} under its name, not {job.image_digest}"
        failure = Failure(category=IMAGE, message=f"image: {text}", node_id=lease.node_id)
        stop(turn, job, cause=StopCause.NODE_LOST, failure=failure)
    return turn.state.leases[lease.lease_id]
