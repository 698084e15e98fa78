"""When a job that was just accepted may start, by counting devices.

A forecast says when a job starts, and takes its time. This is what can be said at once: those before it in
line and it get devices one after another, as what runs and what started before is expected to end. It knows
nothing of which nodes they are on, nor of who passes whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from coordinator.core.known import Known, is_doubted

LOOKS = 64  # at attempts that run: a submit waits for this

Types = tuple[str, ...]  # of devices; () is any


def soonest_ms(state: Known, now_ms: int, *, line: Sequence[str]) -> int | None:
    """When the last of a line of jobs starts, if nobody but those before it does; None where that is not
    to be seen."""
    waiting = [state.jobs[x] for x in line if x in state.queue.group_of]
    if not waiting or waiting[-1].job_id != line[-1]:
        return None
    job = waiting[-1]
    if state.shares.limit_of(job) is not None or is_doubted(state, job):
        return None
    types = job.demand.device_types
    free = _free(state, types)
    free += sum(state.idle(one) for one in waiting if one.claim)  # is set aside for them
    running = _running(state, now_ms, types=types)
    ends: list[tuple[int, int]] = []  # when, and how many devices
    at_ms = now_ms
    for one in waiting:
        if not _meet(types, one.demand.device_types):
            continue
        while free < one.demand.device_count:
            for end in running:
                heappush(ends, end)
            if not ends:
                return None
            end_ms, count = heappop(ends)
            at_ms, free = max(at_ms, end_ms), free + count
        free -= one.demand.device_count
        heappush(ends, (at_ms + state.expected_left_ms(one, now_ms), one.demand.device_count))
    return at_ms


def _free(state: Known, types: Types) -> int:
    by_type = state.free.devices_by_type
    return sum(by_type.get(one, 0) for one in types) if types else sum(by_type.values())


def _running(state: Known, now_ms: int, *, types: Types) -> Iterator[tuple[int, int]]:
    """When the next attempts are expected to end, and how many devices of some types each holds."""
    for job_id in state.ends.first(LOOKS):
        job = state.jobs[job_id]
        shares = job.attempt.shares if job.attempt else ()
        count = sum(len(x.device_ids) for x in shares if _offers(state, x.node_id, types=types))
        if count:
            yield state.expected_end_ms(job, now_ms), count


def _offers(state: Known, node_id: str, *, types: Types) -> bool:
    room = state.total.rooms.get(node_id)
    return room is not None and _meet(types, tuple(x.device_class.type for x in room.pools))


def _meet(some: Types, others: Types) -> bool:
    """Whether there is a type in both."""
    return not some or not others or any(one in others for one in some)
