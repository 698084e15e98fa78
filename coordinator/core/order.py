"""Whose turn it is: the key of a waiting job, and when it may take devices from a running one.

A key does not change while a job waits; the least comes first. Priority stands before everything (what a
job was raised by counts with it, see aging.py), the order of acceptance breaks ties. SHORTEST adds the time
of submission to what is left to do, so that a job is passed only by jobs which came within a time in
proportion to its size: nothing starves. Otherwise the key is by when the job is wanted: its deadline, but
no later than a day from its acceptance, which is also what counts where it names none. So a job is passed
only by jobs which came within that day.
"""

from __future__ import annotations

from math import log

from coordinator.core.records import Job, Order, Queue

Turn = tuple[int, int, int, str]  # (-standing, key, sequence, job id): the order of placement

HIGHEST_PRIORITY = 10
LEVEL_RATIO = 1.25
WANTED_WITHIN_MS = 24 * 3600 * 1000
BY_A_FACTOR = 1.15  # so much less must a job have to do to take the devices of another
_LOG_RATIO = log(LEVEL_RATIO)


def turn_of(job: Job, queue: Queue) -> Turn:
    """When it is the job's turn among the waiting ones of its queue; the least comes first."""
    return (-job.standing, key_of(job, queue, work_ms=job.work_ms), job.sequence, job.job_id)


def key_of(job: Job, queue: Queue, *, work_ms: int) -> int:
    """Its place among jobs of its standing that are as old as its acceptance says."""
    if queue.order is not Order.SHORTEST:
        return wanted_ms(job)
    return work_ms + job.created_at_ms * queue.aging_permille // 1000


def wanted_ms(job: Job) -> int:
    """By when a job is wanted."""
    latest_ms = job.created_at_ms + WANTED_WITHIN_MS
    deadline_ms = job.policy.deadline_ms
    return min(max(deadline_ms, job.created_at_ms), latest_ms) if deadline_ms else latest_ms


def waits_since_ms(job: Job) -> int:
    """Since when it could have been placed, as far as its record tells."""
    ended_ms = job.attempt.ended_at_ms if job.attempt else 0
    return max(job.created_at_ms, job.policy.start_after_ms, ended_ms)


def level_of(work_ms: int) -> int:
    """Work in steps of a quarter."""
    return int(log(max(1, work_ms)) / _LOG_RATIO)


def work_at(level: int) -> int:
    """The least work of a level, in device-milliseconds."""
    return round(LEVEL_RATIO**level)


def least_level(job: Job) -> int:
    """The level from which on running jobs give way to a waiting one of their priority."""
    return level_of(round(job.work_ms * BY_A_FACTOR)) + 1
