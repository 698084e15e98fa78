"""The tree of queues on which the groups that wait hang.

Theory of operation. The groups of a queue, or of a user of a queue that is FAIR, hang on one leaf, those of
one shape in the order of their turns. A pass asks for few things again and again: which is the first turn
below a branch, of those shapes that are worth a look? Each branch and each leaf keeps what it answered,
until something below it changes. So a pass looks only into queues whose turn may have come, however many
others there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Sequence

from coordinator.core.order import Turn
from coordinator.core.placement import least_on_node
from coordinator.core.records import WHOLE, Demand
from coordinator.core.share import queue_account

NEVER: Turn = (1 << 62, 0, 0, "")
MOST_KEPT = 16  # answers of a branch
MOST_WORTHY = 256
Stand = tuple[Turn, int]  # where a group stands on its leaf: its first turn, its serial


class Shape:
    """What can be told at once of a demand that finds no room. Equal ones are one and the same."""

    __slots__ = ("device_count", "is_gang", "is_part", "least", "types")

    def __init__(self, demand: Demand) -> None:
        self.types = demand.device_types  # that it accepts; () is any
        self.device_count = demand.device_count
        self.least = least_on_node(demand)  # devices that a node must have to be of use
        self.is_part = demand.thousandths < WHOLE  # of a device
        self.is_gang = self.device_count > self.least

    @property
    def key(self) -> tuple[tuple[str, ...], int, int, bool]:
        return self.types, self.device_count, self.least, self.is_part


Head = tuple[Stand, bool, Shape]  # who stands in line; whether as the next of its shape on a leaf


class Worthy:
    """The shapes that are worth a look. Equal ones are one and the same."""

    __slots__ = ("shapes",)

    def __init__(self, shapes: Sequence[Shape]) -> None:
        self.shapes = tuple(shapes)


class Branch:
    """A queue, or what is above all of them, with what hangs below it."""

    __slots__ = ("above", "account", "children", "firsts", "leaves", "name")

    def __init__(self, name: str, above: Branch | None) -> None:
        self.name = name
        self.account = queue_account(name) if name else ""
        self.above = above
        self.children: dict[str, Branch] = {}  # by name
        self.leaves: dict[str, Leaf] = {}  # by account
        self.firsts: dict[Worthy, Turn] = {}  # a memo

    def below(self) -> list[Branch | Leaf]:
        """All that hangs on it."""
        return [*self.children.values(), *self.leaves.values()]

    def first(self, worthy: Worthy) -> Turn:
        """The least turn below it of what is worth a look; NEVER where there is nothing."""
        known = self.firsts.get(worthy)
        if known is None:
            known = min((x.first(worthy) for x in self.below()), default=NEVER)
            _keep(self.firsts, worthy, turn=known)
        return known


class Leaf:
    """The groups of a queue, or of a user in a queue that is FAIR."""

    __slots__ = ("above", "account", "firsts", "orders", "queue_name")

    def __init__(self, queue_name: str, account: str, *, above: Branch) -> None:
        self.queue_name = queue_name
        self.account = account  # of the user; "" where it is the queue
        self.above = above
        self.orders: dict[Shape, list[Stand]] = {}
        self.firsts: dict[Worthy, Turn] = {}  # a memo

    def first(self, worthy: Worthy) -> Turn:
        """The least turn of what is worth a look; NEVER where there is nothing."""
        known = self.firsts.get(worthy)
        if known is None:
            orders = self.orders
            turns = [orders[x][0][0] for x in worthy.shapes if x in orders]
            known = min(turns, default=NEVER)
            _keep(self.firsts, worthy, turn=known)
        return known

    def move(self, shape: Shape, before: Stand | None, *, now: Stand | None) -> None:
        """Lets a group of a shape stand where it belongs now; None is nowhere."""
        order = self.orders.setdefault(shape, [])
        if before is not None:
            del order[bisect_left(order, before)]
        if now is not None:
            insort(order, now)
        if not order:
            del self.orders[shape]
        forget(self)

    def after(self, shape: Shape, stand: Stand | None) -> Stand | None:
        """Who is next of a shape, after one or at all."""
        order = self.orders.get(shape, ())
        number = bisect_right(order, stand) if stand else 0
        return order[number] if number < len(order) else None


class Tree:
    """All leaves, and the shapes of the groups on them."""

    def __init__(self) -> None:
        self.root = Branch("", None)
        self.shapes: Counter[Shape] = Counter()  # of groups
        self._branches: dict[str, Branch] = {}  # on which leaves hang
        self._shapes: dict[tuple[tuple[str, ...], int, int, bool], Shape] = {}
        self._worthy: dict[tuple[Shape, ...], Worthy] = {}

    def grow(self, path: Sequence[str], demand: Demand, *, user: str) -> tuple[Leaf, Shape]:
        """Where a new group hangs, and its shape. The path leads from its queue up; the user is named
        where jobs of the queue stand apart by users."""
        branch = self.root
        for name in reversed(path):
            known = branch.children.get(name)
            if known is None:
                known = branch.children[name] = Branch(name, branch)
                forget(branch)
            branch = known
        leaf = branch.leaves.get(user)
        if leaf is None:
            leaf = branch.leaves[user] = Leaf(branch.name, user, above=branch)
            forget(branch)
            self._branches[branch.name] = branch
        shape = Shape(demand)
        shape = self._shapes.setdefault(shape.key, shape)
        self.shapes[shape] += 1
        return leaf, shape

    def drop(self, leaf: Leaf, shape: Shape) -> None:
        """A group has no jobs any more, and stands nowhere."""
        self.shapes[shape] -= 1
        if not self.shapes[shape]:
            del self.shapes[shape]
            del self._shapes[shape.key]
        branch = leaf.above
        if leaf.orders or branch.leaves.get(leaf.account) is not leaf:
            return
        del branch.leaves[leaf.account]
        if not branch.leaves:
            del self._branches[branch.name]
        while branch.above is not None and not branch.leaves and not branch.children:
            del branch.above.children[branch.name]
            branch = branch.above

    def leaves_of(self, queue_name: str) -> dict[str, Leaf]:
        """The leaves of a queue, by account."""
        branch = self._branches.get(queue_name)
        return branch.leaves if branch is not None else {}

    def queues(self) -> list[str]:
        """The queues in which jobs wait."""
        return list(self._branches)

    def worthy(self, shapes: Sequence[Shape]) -> Worthy:
        """One for all that ask with the same shapes."""
        key = tuple(shapes)
        known = self._worthy.get(key)
        if known is None:
            if len(self._worthy) >= MOST_WORTHY:
                self._worthy.clear()
            known = self._worthy[key] = Worthy(key)
        return known


def forget(below: Branch | Leaf | None) -> None:
    """Something has changed: what was answered from here on up is no longer so.

    Who has an answer has one of everything below it, so who has none need not be asked further.
    """
    while below is not None and below.firsts:
        below.firsts.clear()
        below = below.above


def _keep(firsts: dict[Worthy, Turn], worthy: Worthy, *, turn: Turn) -> None:
    if len(firsts) >= MOST_KEPT:
        firsts.clear()
    firsts[worthy] = turn
