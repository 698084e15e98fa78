"""The waiting jobs, grouped by what they ask for.

Theory of operation. Jobs of one queue, one account and of equal demand form a group; a group's jobs
stand by their turn (see order.py). Where the first of a group finds no room the others will not either, so
the group is set aside and costs nothing until it is worth a look again (see worth.py), or until its first
job may take the devices of others; where a limit keeps it back, until less is held below that. A submit
onto 100,000 queued jobs and a full cluster is then one push to one heap.

The groups of a queue, or of a user of a queue that is FAIR, hang on one leaf, those of one shape by their
turns. So it is seen at once which of those of some shapes is next, however many groups there are.

Which groups are set aside is a memo, not state: forgetting it changes no decision, only its cost.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from coordinator.core.order import Turn, turn_of
from coordinator.core.placement import least_on_node
from coordinator.core.records import WHOLE, Demand, Job, Order, Queue
from coordinator.core.share import Limit

_SLACK = 64
Like = tuple[str, str, Demand]  # name of the queue, account in it, and what is asked for
Stand = tuple[Turn, int]  # where a group stands on its leaf: its first turn, its serial


class Shape:
    """What can be told at once of a demand that finds no room. Equal ones are one and the same."""

    __slots__ = ("device_count", "is_part", "least", "types")

    def __init__(self, demand: Demand) -> None:
        self.types = demand.device_types  # that it accepts; () is any
        self.device_count = demand.device_count
        self.least = least_on_node(demand)  # devices that a node must have to be of use
        self.is_part = demand.thousandths < WHOLE  # of a device

    @property
    def key(self) -> tuple[tuple[str, ...], int, int, bool]:
        return self.types, self.device_count, self.least, self.is_part


Head = tuple[Stand, bool, Shape]  # who stands in line; whether as the next of its shape on a leaf


class Group:
    """Waiting jobs of one queue, account and demand."""

    __slots__ = (
        "account",
        "demand",
        "heap",
        "is_blocked",
        "leaf",
        "limited_by",
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


class Leaf:
    """The groups of a queue, or of a user in a queue that is FAIR."""

    __slots__ = ("account", "orders", "queue_name")

    def __init__(self, queue_name: str, account: str) -> None:
        self.queue_name = queue_name
        self.account = account  # of the user; "" where it is the queue
        self.orders: dict[Shape, list[Stand]] = {}

    def stand(self, group: Group) -> None:
        """Lets a group stand where it belongs; one without jobs stands nowhere."""
        now = (group.first(), group.serial) if group.turns else None
        if now == group.stand:
            return
        order = self.orders.setdefault(group.shape, [])
        if group.stand is not None:
            del order[bisect_left(order, group.stand)]
        if now is not None:
            insort(order, now)
        group.stand = now
        if not order:
            del self.orders[group.shape]

    def after(self, shape: Shape, stand: Stand | None) -> Stand | None:
        """Who is next of a shape, after one or at all."""
        order = self.orders.get(shape, ())
        number = bisect_right(order, stand) if stand else 0
        return order[number] if number < len(order) else None


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


class Leaves:
    """All leaves, and the shapes of the groups on them."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[str, str], Leaf] = {}  # by queue and account
        self.shapes: Counter[Shape] = Counter()  # of groups
        self._shapes: dict[tuple[tuple[str, ...], int, int, bool], Shape] = {}

    def grow(self, like: Like, queue: Queue) -> tuple[Leaf, Shape]:
        """Where a new group hangs, and its shape."""
        key = queue.name, like[1] if queue.order is Order.FAIR else ""
        leaf = self.by_key.get(key)
        if leaf is None:
            leaf = self.by_key[key] = Leaf(*key)
        shape = Shape(like[2])
        shape = self._shapes.setdefault(shape.key, shape)
        self.shapes[shape] += 1
        return leaf, shape

    def drop(self, group: Group) -> None:
        """A group has no jobs any more, and stands nowhere."""
        self.shapes[group.shape] -= 1
        if not self.shapes[group.shape]:
            del self.shapes[group.shape]
            del self._shapes[group.shape.key]
        if not group.leaf.orders:
            self.by_key.pop((group.leaf.queue_name, group.leaf.account), None)


class Waiting:
    """All jobs that may be placed now."""

    def __init__(self) -> None:
        self.groups: dict[Like, Group] = {}
        self.group_of: dict[str, Group] = {}
        self.ready: dict[int, Group] = {}  # by serial: not known to find no room
        self._of_queue: dict[str, dict[int, Group]] = {}  # by serial
        self.leaves = Leaves()
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

    def add(self, job: Job, queue: Queue, *, account: str) -> None:
        """Lets a job wait."""
        like = job.queue_name, account, job.demand
        group = self.groups.get(like)
        if group is None:
            leaf, shape = self.leaves.grow(like, queue)
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
        group.leaf.stand(group)
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
        group.leaf.stand(group)
        if not group.turns:
            self._unblock(group)
            self.leaves.drop(group)
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
