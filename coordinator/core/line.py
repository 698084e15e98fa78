"""Whose turn it is among the groups that may find room: down the tree of queues, then by their order.

At each queue the next is sought among its children: groups of its jobs, by turn; where it is FAIR users,
by priority and then by what they have used; queues, those first that hold less than their guarantee,
then, where it is FAIR, those that have used least of their part, else by the turn of their first job.
A choice costs the depth of the tree: only where devices were given do keys change within a pass. A queue
is looked into when its turn may have come: below one that is FAIR, what was used mostly tells whose it is.

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

NEVER: Turn = (1 << 62, 0, 0, "")


class Late:
    """The turn of a queue's first job, sought only where nothing before it tells two queues apart."""

    __slots__ = ("_branch", "_line")

    def __init__(self, line: Line, branch: Branch) -> None:
        self._line, self._branch = line, branch

    def __lt__(self, other: Turn | Late) -> bool:
        return self.turn() < (other.turn() if isinstance(other, Late) else other)

    def __gt__(self, other: Turn | Late) -> bool:
        return self.turn() > (other.turn() if isinstance(other, Late) else other)

    def __eq__(self, other: object) -> bool:
        return self.turn() == (other.turn() if isinstance(other, Late) else other)

    def __hash__(self) -> int:
        return hash(self.turn())

    def turn(self) -> Turn:
        return self._line.turn_in(self._branch) or NEVER


Key = tuple[int, int, float, Turn | Late]
"""Whether it is past its guarantee, -priority, used, turn."""


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
    """A queue, with its children that may have something to place."""

    __slots__ = ("account", "children", "heap", "leaves", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.account = queue_account(name) if name else ""
        self.children: dict[str, Branch] = {}
        self.leaves: list[Leaf] = []
        self.heap: list[tuple[Key, int, Branch | Twig]] | None = None  # None: not looked into yet


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
            if is_it and (not by_shape or self._worth.holds(twig.leaf, shape, stand=stand)):
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
        if by_shape and placed and self._state.queue.group(stand) is not None:
            heapq.heappush(twig.heads, (stand, True, shape))  # one behind its first was placed
        elif by_shape:
            if not placed:
                self._worth.in_vain(stand[1], shape)
            self._add(twig, shape, after=stand)
        elif placed and stand[1] in self._state.queue.ready:
            group = self._state.queue.ready[stand[1]]
            heapq.heappush(twig.heads, ((group.first(), group.serial), False, shape))
        else:
            del self._ready[stand[1]]
        self._renew(path)

    def turn_in(self, branch: Branch) -> Turn | None:
        """The turn of the job that is next in a queue; None where nobody is."""
        path = self._path(branch)
        return path[-1].turn if path and isinstance(path[-1], Twig) else None

    def _build(self, *, with_aside: bool) -> None:
        self._with_aside = with_aside
        self._root = Branch("")
        self._branches: dict[str, Branch] = {}  # that a leaf hangs on
        self._groups: dict[int, list[Group]] = {}  # that are ready, by the id of their leaf
        for group in self._ready.values():
            known = self._groups.get(id(group.leaf))
            if known is None:
                known = self._groups[id(group.leaf)] = []
                if not with_aside:
                    self._hang(group.leaf)
            known.append(group)
        for leaf in self._state.queue.leaves.by_key.values() if with_aside else ():
            self._hang(leaf)

    def _hang(self, leaf: Leaf) -> None:
        branch = self._branches.get(leaf.queue_name)
        if branch is None:
            branch = self._root
            for name in reversed(self._state.shares.path(leaf.queue_name)):
                known = branch.children.get(name)
                if known is None:
                    known = branch.children[name] = Branch(name)
                branch = known
            self._branches[leaf.queue_name] = branch
        branch.leaves.append(leaf)

    def _twig(self, leaf: Leaf) -> Twig | None:
        """Who of a leaf is in line; None where nobody is."""
        twig = Twig(leaf)
        for group in self._groups.get(id(leaf), ()):
            if group.turns:
                twig.heads.append(((group.first(), group.serial), False, group.shape))
        if self._with_aside:
            twig.heads += self._worth.heads(leaf)
        heapq.heapify(twig.heads)
        return twig if twig.heads else None

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
            assert branch.heap
            gone = not child.heap if isinstance(child, Branch) else not child.heads
            key = self._key(branch, child) if not gone else None
            if key is None:
                heapq.heappop(branch.heap)
            else:
                heapq.heapreplace(branch.heap, (key, branch.heap[0][1], child))
            child = branch

    def _path(self, branch: Branch | None = None) -> list[Branch | Twig]:
        """The way to who is next, below a queue or at all; empty where nobody is."""
        found: list[Branch | Twig] = [branch or self._root]
        while isinstance(last := found[-1], Branch):
            if last.heap is None:
                self._look_into(last)
            if last.heap:
                found.append(last.heap[0][2])
            elif len(found) == 1:
                return []
            else:  # it was in line for what it has used, and has nobody
                found.pop()
                above = found[-1]
                assert isinstance(above, Branch)
                assert above.heap
                heapq.heappop(above.heap)
        return found

    def _look_into(self, branch: Branch) -> None:
        twigs = filter(None, map(self._twig, branch.leaves))
        children: list[Branch | Twig] = [*branch.children.values(), *twigs]
        keyed = ((self._key(branch, x), number, x) for number, x in enumerate(children))
        branch.heap = [(key, number, x) for key, number, x in keyed if key is not None]
        heapq.heapify(branch.heap)

    def _key(self, branch: Branch, child: Branch | Twig) -> Key | None:
        """By what a child of a queue stands in line; None where it is seen to have nobody."""
        shares = self._state.shares
        if isinstance(child, Twig):
            turn, account = child.turn, child.leaf.account
            if not account:
                return 1, 0, 0.0, turn
            return 1, turn[0], shares.average_ppb(account, self._now_ms), turn
        above = self._state.queues.get(branch.name)
        queue = self._state.queues.get(child.name)
        is_fair = above is not None and above.order is Order.FAIR
        used = 0.0
        if is_fair:
            weight = queue.weight if queue else 1
            used = shares.average_ppb(child.account, self._now_ms) / weight
            if not queue or not queue.guaranteed_devices:
                return 1, 0, used, Late(self, child)
        first = self.turn_in(child)
        if first is None:
            return None
        entitled = shares.guarantees and shares.is_entitled(
            child.name, milli_of(self._state.jobs[first[-1]])
        )
        return int(not entitled), 0, used, first
