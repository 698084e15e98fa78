"""The waiting jobs, grouped by what they ask for.

Theory of operation. Jobs of one queue, one account and of equal demand form a group; a group's jobs
stand by their turn (see order.py). Where the first of a group finds no room the others will not either, so
the group is set aside and costs nothing until devices appear that it accepts, in the number that it needs,
or until its first job may take those of others; where a limit keeps it back, until less is held below
that. A submit onto 100,000 queued jobs and a full cluster is then one
push to one heap.

Which groups are set aside is a memo, not state: forgetting it changes no decision, only its cost.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from itertools import count

from coordinator.core.order import Turn, turn_of
from coordinator.core.records import Demand, Job, Queue
from coordinator.core.share import Limit

_SLACK = 64
Like = tuple[str, str, Demand]  # name of the queue, account in it, and what is asked for


class Group:
    """Waiting jobs of one queue, account and demand."""

    __slots__ = (
        "account",
        "blocked_as",
        "demand",
        "heap",
        "limited_by",
        "queue_name",
        "serial",
        "turns",
    )

    def __init__(self, like: Like, serial: int) -> None:
        self.queue_name, self.account, self.demand = like
        self.limited_by: Limit | None = None
        self.serial = serial
        self.heap: list[Turn] = []
        self.turns: dict[str, Turn] = {}  # of the jobs that really wait; the heap may hold more
        self.blocked_as: tuple[int, int] | None = None

    @property
    def like(self) -> Like:
        return self.queue_name, self.account, self.demand

    @property
    def is_aside(self) -> bool:
        """Whether it is known to find no room, or to be kept back."""
        return self.blocked_as is not None or self.limited_by is not None

    def add(self, turn: Turn) -> None:
        self.turns[turn[-1]] = turn
        heapq.heappush(self.heap, turn)

    def remove(self, job_id: str) -> None:
        del self.turns[job_id]
        if len(self.heap) > 2 * len(self.turns) + _SLACK:
            self.heap = sorted(self.turns.values())

    def first(self) -> Turn:
        """The turn of the job that is next; the group has one."""
        while self.turns.get(self.heap[0][-1]) != self.heap[0]:
            heapq.heappop(self.heap)
        return self.heap[0]


class Waiting:
    """All jobs that may be placed now."""

    def __init__(self) -> None:
        self.groups: dict[Like, Group] = {}
        self.group_of: dict[str, Group] = {}
        self.ready: dict[int, Group] = {}  # by serial: not known to find no room
        self.touched: dict[str, None] = {}  # jobs with devices set aside, of which one has changed
        self._of_queue: dict[str, dict[int, Group]] = {}  # by serial
        self._blocked: dict[str, list[tuple[int, int]]] = {}  # by type: (device count, serial)
        self._limited: dict[Limit, dict[int, Group]] = {}  # by serial
        self._demands: dict[Demand, list[Demand]] = {}  # one for each group that has it
        self._by_serial: dict[int, Group] = {}
        self._serials = count(1)

    def __len__(self) -> int:
        return len(self.group_of)

    def same(self, demand: Demand) -> Demand:
        """An equal demand that is kept already, so that equal ones are kept once."""
        return self._demands.get(demand, (demand,))[0]

    def add(self, job: Job, queue: Queue, *, account: str) -> None:
        """Lets a job wait."""
        like = job.queue_name, account, job.demand
        group = self.groups.get(like)
        if group is None:
            group = self.groups[like] = Group(like, next(self._serials))
            self._by_serial[group.serial] = group
            self._of_queue.setdefault(job.queue_name, {})[group.serial] = group
            self._demands.setdefault(job.demand, []).append(job.demand)
            self.ready[group.serial] = group
        turn = turn_of(job, queue)
        if queue.preempts and group.blocked_as is not None and turn < group.first():
            self._unblock(group)
            self.ready[group.serial] = group
        group.add(turn)
        self.group_of[job.job_id] = group

    def file_again(self, job: Job, queue: Queue, *, account: str) -> None:
        """Lets a waiting job that has changed stand where it belongs now."""
        group = self.group_of[job.job_id]
        like = job.queue_name, account, job.demand
        if group.like != like or group.turns[job.job_id] != turn_of(job, queue):
            self.remove(job.job_id)
            self.add(job, queue, account=account)

    def remove(self, job_id: str) -> None:
        """Takes a job out, placed or not."""
        group = self.group_of.pop(job_id)
        group.remove(job_id)
        if not group.turns:
            self._unblock(group)
            self.ready.pop(group.serial, None)
            del self.groups[group.like]
            equal = self._demands[group.demand]
            equal.pop()
            if not equal:
                del self._demands[group.demand]
            del self._by_serial[group.serial]
            del self._of_queue[group.queue_name][group.serial]
            if not self._of_queue[group.queue_name]:
                del self._of_queue[group.queue_name]

    def set_aside(self, group: Group, limit: Limit | None = None) -> None:
        """Remembers that the group finds no room, or that a limit keeps it back."""
        if self.ready.pop(group.serial, None) is None:
            return
        if limit is not None:
            group.limited_by = limit
            self._limited.setdefault(limit, {})[group.serial] = group
            return
        group.blocked_as = (group.demand.device_count, group.serial)
        for key in _types(group.demand):
            insort(self._blocked.setdefault(key, []), group.blocked_as)

    def devices_appeared(self, device_type: str, free: int) -> None:
        """Devices of a type became free, `free` of it in all: who could use them is tried again."""
        for key in ("", device_type):
            blocked = self._blocked.get(key)
            if not blocked:
                continue
            end = bisect_right(blocked, (free, 1 << 62))
            for _, serial in blocked[:end]:
                group = self._by_serial[serial]
                self._unblock(group)
                self.ready[serial] = group

    def room_below(self, limit: Limit) -> None:
        """Less is held below a limit: who was kept back by it is tried again."""
        if limit in self._limited:
            self.try_again([*self._limited[limit].values()])

    def try_again(self, groups: Iterable[Group]) -> None:
        """Lets groups that were set aside be looked at in the next pass."""
        for group in groups:
            self._unblock(group)
            self.ready[group.serial] = group

    def touch(self, job_ids: Iterable[str]) -> None:
        """Something has changed of the devices that are set aside for jobs."""
        self.touched.update(dict.fromkeys(job_ids))

    def take_touched(self) -> list[str]:
        """Those jobs, once."""
        found = [*self.touched]
        self.touched.clear()
        return found

    def groups_of(self, queue_name: str) -> list[Group]:
        """The groups of a queue."""
        return list(self._of_queue.get(queue_name, {}).values())

    def blocked(self) -> Iterator[Group]:
        """The groups that are set aside."""
        return (group for group in self._by_serial.values() if group.is_aside)

    def _unblock(self, group: Group) -> None:
        if group.blocked_as is not None:
            for key in _types(group.demand):
                blocked = self._blocked[key]
                del blocked[bisect_left(blocked, group.blocked_as)]
            group.blocked_as = None
        if group.limited_by is not None:
            limited = self._limited[group.limited_by]
            del limited[group.serial]
            if not limited:
                del self._limited[group.limited_by]
            group.limited_by = None


def _types(demand: Demand) -> tuple[str, ...]:
    """The device types for which a group waits; "" where it accepts any."""
    return demand.device_types or ("",)
