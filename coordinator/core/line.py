"""Whose turn it is among the groups that may find room: down the tree of queues, then by their order.

At each queue the next is sought among its children: groups of its jobs, by turn; where it is FAIR users,
by priority and then by what they have used; queues, those first that hold less than their guarantee,
then, where it is FAIR, those that have used least of their part, else by the turn of their first job.

A child stands in line by a bound at first: by the least turn that there is below it. Only once it comes to
the head of the line is it looked into, and stands where it belongs then. So a choice costs the depth of
the tree. Only where devices were given do places in line change within a pass.

Besides the groups that are ready, those stand in line that were set aside and are worth a look again, for
as long as they are. Of each leaf only the next one of a shape is looked up, so a line costs as much as
there are leaves, not groups.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from itertools import pairwise

from coordinator.core.order import Turn
from coordinator.core.queue import Group
from coordinator.core.records import Order
from coordinator.core.share import milli_of
from coordinator.core.state import ClusterState
from coordinator.core.tree import NEVER, Branch, Head, Leaf, Shape, Stand
from coordinator.core.worth import Worth

Child = Branch | Leaf
Key = tuple[int, int, float, Turn]
"""Whether it is past its guarantee, -priority, used, turn."""
Place = tuple[Key, int, Child, bool]  # in line; whether the key is exact, or a bound


class Line:
    """The groups that are ready or worth a look, at one time."""

    def __init__(self, state: ClusterState, worth: Worth, *, now_ms: int) -> None:
        self._state = state
        self._worth = worth
        self._now_ms = now_ms
        self._ready = dict(state.queue.ready)
        self._begin(with_aside=not worth.nothing())

    def first(self) -> Group | None:
        """The group whose turn it is."""
        if self._with_aside and self._worth.nothing():
            self._begin(with_aside=False)
        while path := self._path():
            leaf = path[-1]
            assert isinstance(leaf, Leaf)
            heads = self._heads(leaf)
            stand, by_shape, shape = heads[0]
            group = self._state.queue.group(stand)
            is_it = group is not None and (not by_shape or self._is_aside(group))
            if is_it and (not by_shape or self._worth.holds(leaf, shape, stand=stand)):
                return group
            heapq.heappop(heads)
            if not is_it:
                self._add(leaf, shape, after=stand)
            self._renew(path)
        return None

    def renew(self, *, placed: bool) -> None:
        """Lets the groups stand where they belong, after something was done about the first one."""
        path = self._path()
        leaf = path[-1]
        assert isinstance(leaf, Leaf)
        heads = self._heads(leaf)
        stand, by_shape, shape = heapq.heappop(heads)
        if placed:
            self._worth.changed()
        if by_shape and placed and self._state.queue.group(stand) is not None:
            heapq.heappush(heads, (stand, True, shape))  # one behind its first was placed
        elif by_shape:
            if not placed:
                self._worth.in_vain(stand[1], shape)
            self._add(leaf, shape, after=stand)
        elif placed and stand[1] in self._state.queue.ready:
            group = self._state.queue.ready[stand[1]]
            heapq.heappush(heads, ((group.first(), group.serial), False, shape))
        else:
            del self._ready[stand[1]]
        self._renew(path)

    def _begin(self, *, with_aside: bool) -> None:
        self._with_aside = with_aside
        self._places: dict[Branch, list[Place]] = {}  # of queues that were looked into
        self._looked_up: dict[Leaf, list[Head]] = {}
        self._groups: dict[Leaf, list[Group]] = {}  # that are ready
        self._besides: dict[
            Branch, dict[Child, None]
        ] = {}  # of which more is in line than is worth it
        for group in self._ready.values():
            if group.turns:
                self._groups.setdefault(group.leaf, []).append(group)
        for leaf in self._groups:
            self._note(leaf)
        for name in self._worth.others() if with_aside else ():
            for leaf in self._state.queue.tree.leaves_of(name).values():
                self._note(leaf)

    def _note(self, leaf: Leaf) -> None:
        child: Child = leaf
        while (above := child.above) is not None:
            besides = self._besides.setdefault(above, {})
            if child in besides:
                return
            besides[child] = None
            child = above

    def _heads(self, leaf: Leaf) -> list[Head]:
        """Who of a leaf is in line; a heap."""
        heads = self._looked_up.get(leaf)
        if heads is None:
            ready = self._groups.get(leaf, ())
            heads = [((x.first(), x.serial), False, x.shape) for x in ready if x.turns]
            if self._with_aside:
                heads += self._worth.heads(leaf)
            heapq.heapify(heads)
            self._looked_up[leaf] = heads
        return heads

    def _add(self, leaf: Leaf, shape: Shape, *, after: Stand) -> None:
        """Lets the next of a shape stand in line."""
        stand = leaf.after(shape, after)
        if stand is not None:
            heapq.heappush(self._heads(leaf), (stand, True, shape))

    def _is_aside(self, group: Group) -> bool:
        """Whether it was set aside and is to be looked at now; those that are ready stand in line anyway."""
        in_line = group.serial in self._ready or self._worth.was_seen(group.serial)
        return group.is_blocked and not in_line

    def _path(self) -> list[Child]:
        """The way to who is next; empty where nobody is."""
        found: list[Child] = [self._state.queue.tree.root]
        while isinstance(last := found[-1], Branch):
            places = self._settled(last)
            if not places:
                return []
            found.append(places[0][2])
        return found

    def _renew(self, path: list[Child]) -> None:
        """Those on the way stand where they belong now."""
        for branch, child in reversed([*pairwise(path)]):
            assert isinstance(branch, Branch)
            places = self._places[branch]
            first = self._first(child)
            if first is None:
                heapq.heappop(places)
            else:
                key = self._key(branch, child, first=first, is_bound=False)
                heapq.heapreplace(places, (key, places[0][1], child, True))

    def _settled(self, branch: Branch) -> list[Place]:
        """The line of a queue, a heap; its head stands where it belongs."""
        places = self._places.get(branch)
        if places is None:
            places = self._places[branch] = self._look_into(branch)
        while places and not places[0][3]:
            _, number, child, _ = places[0]
            first = self._first(child)
            if first is None:
                heapq.heappop(places)
            else:
                key = self._key(branch, child, first=first, is_bound=False)
                heapq.heapreplace(places, (key, number, child, True))
        return places

    def _first(self, child: Child) -> Turn | None:
        """The turn of who is next below; None where nobody is."""
        if isinstance(child, Leaf):
            heads = self._heads(child)
            return heads[0][0][0] if heads else None
        places = self._settled(child)
        return places[0][0][3] if places else None

    def _look_into(self, branch: Branch) -> list[Place]:
        besides = self._besides.get(branch, {})
        below: Iterable[Child] = branch.below() if self._with_aside else besides
        places: list[Place] = []
        for number, child in enumerate(below):
            first = self._bound(child, with_besides=child in besides)
            if first is not NEVER:
                key = self._key(branch, child, first=first, is_bound=True)
                places.append((key, number, child, False))
        heapq.heapify(places)
        return places

    def _bound(self, child: Child, *, with_besides: bool) -> Turn:
        """No later than the turn of who is next below; NEVER where nobody is."""
        first = child.first(self._worth.worthy()) if self._with_aside else NEVER
        if not with_besides:
            return first
        if isinstance(child, Leaf):
            return min((head[0][0] for head in self._heads(child)[:1]), default=NEVER)
        besides = self._besides[child]
        return min(first, *(self._bound(x, with_besides=True) for x in besides))

    def _key(self, branch: Branch, child: Child, *, first: Turn, is_bound: bool) -> Key:
        """By what a child of a queue stands in line, if the turn of its first is this, or no sooner."""
        shares = self._state.shares
        if isinstance(child, Leaf):
            if not child.account:
                return 1, 0, 0.0, first
            return 1, first[0], shares.average_ppb(child.account, self._now_ms), first
        above = self._state.queues.get(branch.name)
        queue = self._state.queues.get(child.name)
        used = 0.0
        if above is not None and above.order is Order.FAIR:
            weight = queue.weight if queue else 1
            used = shares.average_ppb(child.account, self._now_ms) / weight
        if not queue or not queue.guaranteed_devices or not shares.guarantees:
            return 1, 0, used, first
        need = 1 if is_bound else milli_of(self._state.jobs[first[-1]])
        return int(not shares.is_entitled(child.name, need)), 0, used, first
