"""Whose turn it is among the groups that may find room: down the tree of queues, then by their order.

At each queue the next is sought among its children: groups of its jobs, by turn; where it is FAIR users,
by priority and then by what they have used; queues, those first that hold less than their guarantee,
then, where it is FAIR, those that have used least of their part, else by the turn of their first job.
A choice costs the depth of the tree: only where devices were given do keys change within a pass.

Besides the groups that are ready, those stand in line that were set aside and are worth a look again, for
as long as they are. Of each leaf only the next one of a shape is looked up, so a line costs as much as
there are leaves, not groups.
"""

from __future__ import annotations

import heapq

from coordinator.core.order import Turn
from coordinator.core.queue import Group, Head, Leaf, Shape, Stand
from coordinator.core.records import Order
from coordinator.core.share import milli_of, queue_account
from coordinator.core.state import ClusterState
from coordinator.core.worth import Worth

Key = tuple[int, int, float, Turn]  # whether it is past its guarantee, -priority, used, turn


class Twig:
    """The groups of one leaf that are in line."""

    __slots__ = ("heads", "leaf")

    def __init__(self, leaf: Leaf) -> None:
        self.leaf = leaf
        self.heads: list[Head] = []

    @property
    def turn(self) -> Turn:
        """Of the job that is next."""
        return self.heads[0][0][0]


class Branch:
    """A queue, with its children that have something to place."""

    __slots__ = ("account", "children", "heap", "name", "twigs")

    def __init__(self, name: str) -> None:
        self.name = name
        self.account = queue_account(name) if name else ""
        self.children: dict[str, Branch] = {}
        self.twigs: list[Twig] = []
        self.heap: list[tuple[Key, int, Branch | Twig]] = []


class Line:
    """The groups that are ready or worth a look, at one time."""

    def __init__(self, state: ClusterState, worth: Worth, *, now_ms: int) -> None:
        self._state = state
        self._worth = worth
        self._now_ms = now_ms
        self._ready = dict(state.queue.ready)
        self._build(with_aside=not worth.nothing())

    def first(self) -> Group | None:
        """The group whose turn it is."""
        if self._with_aside and self._worth.nothing():
            self._build(with_aside=False)
        while path := self._path():
            twig = path[-1]
            assert isinstance(twig, Twig)
            stand, by_shape, shape = twig.heads[0]
            group = self._state.queue.group(stand)
            is_it = group is not None and (not by_shape or self._is_aside(group))
            if is_it and (not by_shape or self._worth.holds(twig.leaf, shape)):
                return group
            heapq.heappop(twig.heads)
            if not is_it:
                self._add(twig, shape, after=stand)
            self._renew(path)
        return None

    def renew(self, *, placed: bool) -> None:
        """Lets the groups stand where they belong, after something was done about the first one."""
        path = self._path()
        twig = path[-1]
        assert isinstance(twig, Twig)
        stand, by_shape, shape = heapq.heappop(twig.heads)
        if placed:
            self._worth.changed()
        if by_shape:
            if not placed:
                self._worth.in_vain(stand[1], shape)
            self._add(twig, shape, after=stand)
        elif placed and stand[1] in self._state.queue.ready:
            group = self._state.queue.ready[stand[1]]
            heapq.heappush(twig.heads, ((group.first(), group.serial), False, shape))
        else:
            del self._ready[stand[1]]
        self._renew(path)

    def _build(self, *, with_aside: bool) -> None:
        self._with_aside = with_aside
        self._root = Branch("")
        self._branches: dict[str, Branch] = {}  # that a leaf hangs on
        twigs: dict[int, Twig] = {}
        for group in self._ready.values():
            twig = twigs.get(id(group.leaf))
            if twig is None:
                twig = twigs[id(group.leaf)] = self._hang(group.leaf)
            twig.heads.append(((group.first(), group.serial), False, group.shape))
        for leaf in self._state.queue.leaves.by_key.values() if with_aside else ():
            heads = self._worth.heads(leaf)
            if heads:
                twig = twigs.get(id(leaf)) or self._hang(leaf)
                twig.heads += heads
        self._fill(self._root)

    def _hang(self, leaf: Leaf) -> Twig:
        """Where the groups of a leaf hang."""
        twig = Twig(leaf)
        branch = self._branches.get(leaf.queue_name)
        if branch is None:
            branch = self._root
            for name in reversed(self._state.shares.path(leaf.queue_name)):
                known = branch.children.get(name)
                if known is None:
                    known = branch.children[name] = Branch(name)
                branch = known
            self._branches[leaf.queue_name] = branch
        branch.twigs.append(twig)
        return twig

    def _add(self, twig: Twig, shape: Shape, *, after: Stand) -> None:
        """Lets the next of a shape stand in line."""
        stand = twig.leaf.after(shape, after)
        if stand is not None:
            heapq.heappush(twig.heads, (stand, True, shape))

    def _is_aside(self, group: Group) -> bool:
        """Whether it was set aside and is to be looked at now; those that are ready stand in line anyway."""
        in_line = group.serial in self._ready or self._worth.was_seen(group.serial)
        return group.is_blocked and not in_line

    def _renew(self, path: list[Branch | Twig]) -> None:
        *branches, child = path
        for branch in reversed(branches):
            assert isinstance(branch, Branch)
            gone = not child.heap if isinstance(child, Branch) else not child.heads
            if gone:
                heapq.heappop(branch.heap)
            else:
                number = branch.heap[0][1]
                heapq.heapreplace(branch.heap, (self._key(branch, child), number, child))
            child = branch

    def _path(self) -> list[Branch | Twig]:
        found: list[Branch | Twig] = [self._root]
        while isinstance(last := found[-1], Branch):
            if not last.heap:
                return []
            found.append(last.heap[0][2])
        return found

    def _fill(self, branch: Branch) -> None:
        for below in branch.children.values():
            self._fill(below)
        children: list[Branch | Twig] = [x for x in branch.children.values() if x.heap]
        for twig in branch.twigs:
            heapq.heapify(twig.heads)
        children += branch.twigs
        branch.heap = [
            (self._key(branch, child), number, child) for number, child in enumerate(children)
        ]
        heapq.heapify(branch.heap)

    def _key(self, branch: Branch, child: Branch | Twig) -> Key:
        shares = self._state.shares
        if isinstance(child, Twig):
            turn, account = child.turn, child.leaf.account
            if not account:
                return 1, 0, 0.0, turn
            return 1, turn[0], shares.average_ppb(account, self._now_ms), turn
        leaf: Branch | Twig = child
        while isinstance(leaf, Branch):
            leaf = leaf.heap[0][2]
        turn = leaf.turn
        entitled = shares.guarantees and shares.is_entitled(
            child.name, milli_of(self._state.jobs[turn[-1]])
        )
        above = self._state.queues.get(branch.name)
        used = 0.0
        if above is not None and above.order is Order.FAIR:
            queue = self._state.queues.get(child.name)
            weight = queue.weight if queue else 1
            used = shares.average_ppb(child.account, self._now_ms) / weight
        return int(not entitled), 0, used, turn
