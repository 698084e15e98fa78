"""The waiting jobs, grouped by what they ask for.

Theory of operation. Jobs of one queue, one account and of equal demand form a group; a group's jobs
stand by their turn (see order.py). Where the first of a group finds no room the others will not either, so
the group is set aside and costs nothing until it is worth a look again (see worth.py), or until its first
job may take the devices of others; where a limit keeps it back, until less is held below that. A submit
onto 100,000 queued jobs and a full cluster is then one push to one heap.

The groups hang on the leaves of a tree of queues (see tree.py), those of one shape by their turns. So it is
seen at once which of those of some shapes is next, however many groups there are.

Which groups are set aside is a memo, not state: forgetting it changes no decision, only its cost.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from coordinator.core.order import Turn, turn_of
from coordinator.core.records import Demand, Job, JobStatus, Order, Queue
from coordinator.core.share import Limit
from coordinator.core.tree import Leaf, Shape, Stand, Tree

_SLACK = 64
Like = tuple[str, str, Demand]  # name of the queue, account in it, and what is asked for


class Group:
    """Waiting jobs of one queue, account and demand."""

    __slots__ = (
        "account",
        "demand",
        "heap",
        "is_blocked",
        "leaf",
        "limited_by",
        "pending",
        "queue_name",
        "serial",
        "shape",
        "stand",
        "turns",
    )

    def __init__(self, like: Like, serial: int, *, leaf: Leaf, shape: Shape) -> None:
        self.queue_name, self.account, self.demand = like
        self.limited_by: Limit | None = None
        self.serial = serial
        self.leaf = leaf
        self.shape = shape
        self.stand: Stand | None = None
        self.heap: list[Turn] = []
        self.turns: dict[str, Turn] = {}  # of the jobs that really wait; the heap may hold more
        self.pending: dict[str, None] = {}  # of these jobs, who is to be let in by a limit first
        self.is_blocked = False

    @property
    def like(self) -> Like:
        return self.queue_name, self.account, self.demand

    @property
    def is_aside(self) -> bool:
        """Whether it is known to find no room, or to be kept back."""
        return self.is_blocked or self.limited_by is not None

    def add(self, turn: Turn) -> None:
        self.turns[turn[-1]] = turn
        heapq.heappush(self.heap, turn)

    def remove(self, job_id: str) -> None:
        del self.turns[job_id]
        self.pending.pop(job_id, None)
        if len(self.heap) > 2 * len(self.turns) + _SLACK:
            self.heap = sorted(self.turns.values())

    def soonest(self, most: int) -> Iterator[Turn]:
        """The turns of so many jobs that are next, in order."""
        heap = self.heap
        found, seen = [(heap[0], 0)], 0
        last: Turn | None = None
        while found and seen < most:
            turn, number = heapq.heappop(found)
            for below in (2 * number + 1, 2 * number + 2):
                if below < len(heap):
                    heapq.heappush(found, (heap[below], below))
            if self.turns.get(turn[-1]) == turn and turn != last:
                seen, last = seen + 1, turn
                yield turn

    def first(self) -> Turn:
        """The turn of the job that is next; the group has one."""
        while self.turns.get(self.heap[0][-1]) != self.heap[0]:
            heapq.heappop(self.heap)
        return self.heap[0]

    def stand_right(self) -> None:
        """Lets it stand on its leaf where it belongs; without jobs it stands nowhere."""
        now = (self.first(), self.serial) if self.turns else None
        if now != self.stand:
            self.leaf.move(self.shape, self.stand, now=now)
            self.stand = now


@dataclass(slots=True)
class Opened:
    """What has come free."""

    nodes: dict[str, dict[str, None]] = field(default_factory=dict)  # that have more, by type
    claimants: dict[str, None] = field(default_factory=dict)  # whose claims may lie idle
    windows: dict[str, None] = field(default_factory=dict)  # types on nodes that are to be out
    owed: bool = False  # whether there is somebody new to take back from
    seen: dict[int, None] = field(default_factory=dict)  # groups that were looked at in vain
    touched: dict[str, None] = field(default_factory=dict)
    """Jobs with devices set aside, of which one has changed."""

    def __bool__(self) -> bool:
        return bool(self.nodes or self.claimants or self.windows or self.owed)

    def grow(self, device_type: str, node_id: str) -> None:
        """A node has more."""
        self.nodes.setdefault(device_type, {})[node_id] = None

    def touch(self, job_ids: Iterable[str]) -> None:
        """Something has changed of the devices that are set aside for jobs."""
        self.touched.update(dict.fromkeys(job_ids))

    def take_touched(self) -> list[str]:
        """Those jobs, once."""
        found = [*self.touched]
        self.touched.clear()
        return found

    def take(self) -> Opened:
        """What has come free since this was asked last."""
        found = replace(self, touched={})
        self.nodes, self.claimants, self.windows, self.seen = {}, {}, {}, {}
        self.owed = False
        return found

    def leave(self, other: Opened) -> None:
        """Leaves to the next pass what one that was cut short did not come to."""
        self.seen = {} if self else other.seen
        for device_type, nodes in other.nodes.items():
            self.nodes.setdefault(device_type, {}).update(nodes)
        self.claimants.update(other.claimants)
        self.windows.update(other.windows)
        self.owed = self.owed or other.owed


class Waiting:
    """All jobs that may be placed now."""

    def __init__(self) -> None:
        self.groups: dict[Like, Group] = {}
        self.group_of: dict[str, Group] = {}
        self.ready: dict[int, Group] = {}  # by serial: not known to find no room
        self._of_queue: dict[str, dict[int, Group]] = {}  # by serial
        self.tree = Tree()
        self._blocked: dict[int, Group] = {}  # by serial
        self.opened = Opened()
        self._limited: dict[Limit, dict[int, Group]] = {}  # by serial
        self._demands: dict[Demand, list[Demand]] = {}  # one for each group that has it
        self._by_serial: dict[int, Group] = {}
        self._serials = count(1)

    def __len__(self) -> int:
        return len(self.group_of)

    def same(self, demand: Demand) -> Demand:
        """An equal demand that is kept already, so that equal ones are kept once."""
        return self._demands.get(demand, (demand,))[0]

    def add(self, job: Job, queue: Queue, *, account: str, path: Sequence[str]) -> Group:
        """Lets a job wait, in a group. The path leads from its queue up, without what is above all."""
        like = job.queue_name, account, job.demand
        group = self.groups.get(like)
        if group is None:
            user = account if queue.order is Order.FAIR else ""
            leaf, shape = self.tree.grow(path, job.demand, user=user)
            group = self.groups[like] = Group(like, next(self._serials), leaf=leaf, shape=shape)
            self._by_serial[group.serial] = group
            self._of_queue.setdefault(job.queue_name, {})[group.serial] = group
            self._demands.setdefault(job.demand, []).append(job.demand)
            self.ready[group.serial] = group
        turn = turn_of(job, queue)
        if queue.preempts and group.is_blocked and turn < group.first():
            self._unblock(group)
            self.ready[group.serial] = group
        group.add(turn)
        if job.status is JobStatus.PENDING:
            group.pending[job.job_id] = None
            if group.is_blocked:
                self.try_again([group])
        if group.stand is None or turn < group.stand[0]:
            group.stand_right()
        self.group_of[job.job_id] = group
        return group

    def add_like(self, job: Job, first: Job) -> None:
        """Lets a job wait behind one that waits and differs from it by its age alone."""
        group = self.group_of[job.job_id] = self.group_of[first.job_id]
        priority, key, *_ = group.turns[first.job_id]
        group.add((priority, key, job.sequence, job.job_id))
        if first.job_id in group.pending:
            group.pending[job.job_id] = None

    def file_again(self, job: Job, queue: Queue, *, account: str, path: Sequence[str]) -> bool:
        """Lets a waiting job that has changed stand where it belongs now; whether that is elsewhere."""
        group = self.group_of[job.job_id]
        like = job.queue_name, account, job.demand
        is_moved = group.like != like or group.turns[job.job_id] != turn_of(job, queue)
        if is_moved:
            self.remove(job.job_id)
            self.add(job, queue, account=account, path=path)
        elif job.status is not JobStatus.PENDING:
            group.pending.pop(job.job_id, None)
        return is_moved

    def remove(self, job_id: str) -> None:
        """Takes a job out, placed or not."""
        group = self.group_of.pop(job_id)
        group.remove(job_id)
        group.stand_right()
        if not group.turns:
            self._unblock(group)
            self.tree.drop(group.leaf, group.shape)
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
        self.ready.pop(group.serial, None)
        if limit is not None:
            self._unblock(group)
            group.limited_by = limit
            self._limited.setdefault(limit, {})[group.serial] = group
        else:
            group.is_blocked = True
            self._blocked[group.serial] = group

    def needs_look(self) -> bool:
        """Whether a pass may find something to do."""
        return bool(self.ready or self.opened.touched or (self.opened and self._blocked))

    def room_below(self, limit: Limit) -> None:
        """Less is held below a limit: who was kept back by it is tried again."""
        if limit in self._limited:
            self.try_again([*self._limited[limit].values()])

    def try_again(self, groups: Iterable[Group]) -> None:
        """Lets groups that were set aside be looked at in the next pass."""
        for group in groups:
            self._unblock(group)
            self.ready[group.serial] = group

    def groups_of(self, queue_name: str) -> list[Group]:
        """The groups of a queue."""
        return list(self._of_queue.get(queue_name, {}).values())

    def blocked(self) -> Iterator[Group]:
        """The groups that are set aside."""
        return (group for group in self._by_serial.values() if group.is_aside)

    def group(self, stand: Stand) -> Group | None:
        """Who stands there; None where nobody does any more."""
        group = self._by_serial.get(stand[1])
        return group if group is not None and group.stand == stand else None

    def _unblock(self, group: Group) -> None:
        if self._blocked.pop(group.serial, None) is not None:
            group.is_blocked = False
        if group.limited_by is not None:
            limited = self._limited[group.limited_by]
            del limited[group.serial]
            if not limited:
                del self._limited[group.limited_by]
            group.limited_by = None
