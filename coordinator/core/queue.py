"""The waiting jobs, grouped by what they ask for.

Theory of operation. Jobs of equal demand form a group; a group's jobs stand by priority (10 first), then
by age. Where the first of a group finds no room the others will not either, so the group is set aside
and costs nothing until devices appear that it accepts, in the number that it needs. A submit onto
100,000 queued jobs and a full cluster is then one push to one heap.

Which groups are set aside is a memo, not state: forgetting it changes no decision, only its cost.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import count

from coordinator.core.records import Demand, Job

Turn = tuple[int, int, str]  # (-priority, sequence, job id): the order of placement
_SLACK = 64


def turn_of(job: Job) -> Turn:
    """When it is the job's turn among waiting ones; the least comes first."""
    return (-job.priority, job.sequence, job.job_id)


class Group:
    """Waiting jobs of one demand."""

    __slots__ = ("blocked_as", "demand", "heap", "serial", "turns")

    def __init__(self, demand: Demand, serial: int) -> None:
        self.demand = demand
        self.serial = serial
        self.heap: list[Turn] = []
        self.turns: dict[str, Turn] = {}  # of the jobs that really wait; the heap may hold more
        self.blocked_as: tuple[int, int] | None = None

    def add(self, job: Job) -> None:
        turn = turn_of(job)
        self.turns[job.job_id] = turn
        heapq.heappush(self.heap, turn)

    def remove(self, job_id: str) -> None:
        del self.turns[job_id]
        if len(self.heap) > 2 * len(self.turns) + _SLACK:
            self.heap = sorted(self.turns.values())

    def first(self) -> Turn:
        """The turn of the job that is next; the group has one."""
        while self.turns.get(self.heap[0][2]) != self.heap[0]:
            heapq.heappop(self.heap)
        return self.heap[0]


class Queue:
    """All jobs that may be placed now."""

    def __init__(self) -> None:
        self.groups: dict[Demand, Group] = {}
        self.group_of: dict[str, Group] = {}
        self.ready: dict[int, Group] = {}  # by serial: not known to find no room
        self._blocked: dict[str, list[tuple[int, int]]] = {}  # by type: (device count, serial)
        self._by_serial: dict[int, Group] = {}
        self._serials = count(1)

    def __len__(self) -> int:
        return len(self.group_of)

    def add(self, job: Job) -> None:
        """Lets a job wait."""
        group = self.groups.get(job.demand)
        if group is None:
            group = self.groups[job.demand] = Group(job.demand, next(self._serials))
            self._by_serial[group.serial] = group
            self.ready[group.serial] = group
        group.add(job)
        self.group_of[job.job_id] = group

    def remove(self, job_id: str) -> None:
        """Takes a job out, placed or not."""
        group = self.group_of.pop(job_id)
        group.remove(job_id)
        if not group.turns:
            self._unblock(group)
            self.ready.pop(group.serial, None)
            del self.groups[group.demand]
            del self._by_serial[group.serial]

    def set_aside(self, group: Group) -> None:
        """Remembers that the group finds no room."""
        if self.ready.pop(group.serial, None) is None:
            return
        group.blocked_as = (group.demand.device_count, group.serial)
        insort(self._blocked.setdefault(group.demand.device_type, []), group.blocked_as)

    def devices_appeared(self, device_type: str, free: int) -> None:
        """Devices of a type became free, `free` of it in all: who could use them is tried again."""
        for key in ("", device_type):
            blocked = self._blocked.get(key)
            if not blocked:
                continue
            end = bisect_right(blocked, (free, 1 << 62))
            for _, serial in blocked[:end]:
                group = self._by_serial[serial]
                group.blocked_as = None
                self.ready[serial] = group
            del blocked[:end]

    def blocked(self) -> Iterator[Group]:
        """The groups that are set aside."""
        return (group for group in self._by_serial.values() if group.blocked_as is not None)

    def _unblock(self, group: Group) -> None:
        if group.blocked_as is not None:
            blocked = self._blocked[group.demand.device_type]
            del blocked[bisect_left(blocked, group.blocked_as)]
            group.blocked_as = None
