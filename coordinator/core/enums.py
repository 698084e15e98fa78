"""What jobs, leases and queues can be in: the closed sets of words that records are written in."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class JobStatus(StrEnum):
    """Where a job is in its life; the names of the public API."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    SCHEDULING = "SCHEDULING"
    PREPARING = "PREPARING"
    TRAINING = "TRAINING"
    CHECKPOINTING = "CHECKPOINTING"
    PAUSED = "PAUSED"
    EVALUATING = "EVALUATING"
    EXPORTING = "EXPORTING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    PREEMPTED = "PREEMPTED"


FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
WAITING = frozenset({JobStatus.PENDING, JobStatus.QUEUED})


class StopCause(StrEnum):
    """Why an attempt is being stopped; decides what becomes of the job when it has ended."""

    CANCELLED = "CANCELLED"
    DRAINED = "DRAINED"
    PREEMPTED = "PREEMPTED"
    PAUSED = "PAUSED"
    TIME_LIMIT = "TIME_LIMIT"
    RANK_FAILED = "RANK_FAILED"
    NODE_LOST = "NODE_LOST"


class OnTimeout(StrEnum):
    """What to do when the checkpoint that was asked for is not proven in time."""

    KEEP_RUNNING = "KEEP_RUNNING"
    USE_LATEST = "USE_LATEST"  # stop, if there is any proven checkpoint; else keep running
    STOP = "STOP"


class LeaseAction(StrEnum):
    """What the coordinator desires of a lease."""

    RUN = "RUN"
    STOP = "STOP"


class LeaseState(IntEnum):
    """What an agent last observed of a lease, in the order of its life; it never goes back."""

    GRANTED = 0  # not yet reported by the agent
    ACCEPTED = 1
    PREPARING = 2
    RUNNING = 3
    STOPPING = 4
    ENDED = 5  # nothing of it is left; its devices are free


class OnUnreachable(StrEnum):
    """What to do with an attempt whose node is out of contact."""

    KEEP = "KEEP"
    REPLACE = "REPLACE"


class OnHang(StrEnum):
    """What to do with an attempt that has not come further for too long."""

    REPORT = "REPORT"
    RESTART = "RESTART"
    STOP = "STOP"


class Order(StrEnum):
    """Whose turn it is among the jobs of a queue that have the same priority, and among its queues."""

    PRIORITY_FIFO = "PRIORITY_FIFO"  # the oldest
    FAIR = "FAIR"  # the oldest of the user, or the first of the queue, that used least of its part
    SHORTEST = "SHORTEST"  # the one with the fewest device-seconds left, as expected
