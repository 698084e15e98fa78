"""Whose turn it is among the groups that may find room: down the tree of queues, then by their order.

At each queue the next is sought among its children: groups of its jobs, by turn; where it is FAIR users,
by priority and then by what they have used; queues, those first that hold less than their guarantee,
then, where it is FAIR, those that have used least of their part, else by the turn of their first job.
A choice costs the depth of the tree: only where devices were given do keys change within a pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from coordinator.core.order import Turn
from coordinator.core.queue import Group
from coordinator.core.records import Order
from coordinator.core.share import milli_of, queue_account
from coordinator.core.state import ClusterState

Key = tuple[int, int, float, Turn]  # whether it is past its guarantee, -priority, used, turn


class Branch:
    """A queue, or a user in one, with its children that have something to place."""

    __slots__ = ("account", "children", "heap", "is_queue", "name")

    def __init__(self, name: str, account: str, *, is_queue: bool) -> None:
        self.name = name
        self.account = account
        self.is_queue = is_queue
        self.children: dict[str, Branch] = {}
        self.heap: list[tuple[Key, Branch | Group]] = []


class Line:
    """The groups that are ready, at one time."""

    def __init__(self, state: ClusterState, groups: Iterable[Group], *, now_ms: int) -> None:
        self._state = state
        self._now_ms = now_ms
        self._root = Branch("", "", is_queue=True)
        own: dict[int, list[Group]] = {}
        for group in groups:
            branch = self._branch(group)
            own.setdefault(id(branch), []).append(group)
        self._fill(self._root, own)

    def first(self) -> Group | None:
        """The group whose turn it is."""
        path = self._path()
        return path[-1] if path and isinstance(path[-1], Group) else None

    def renew(self) -> None:
        """Lets the first group stand where it belongs, after something was done about it."""
        *branches, child = self._path()
        for branch in reversed(branches):
            assert isinstance(branch, Branch)
            gone = not child.heap if isinstance(child, Branch) else not self._is_ready(child)
            if gone:
                heapq.heappop(branch.heap)
            else:
                heapq.heapreplace(branch.heap, (self._key(branch, child), child))
            child = branch

    def _path(self) -> list[Branch | Group]:
        found: list[Branch | Group] = [self._root]
        while isinstance(last := found[-1], Branch):
            if not last.heap:
                return []
            found.append(last.heap[0][1])
        return found

    def _branch(self, group: Group) -> Branch:
        """Where the group hangs."""
        branch = self._root
        for name in reversed(self._state.shares.path(group.queue_name)):
            known = branch.children.get(name)
            if known is None:
                known = branch.children[name] = Branch(name, queue_account(name), is_queue=True)
            branch = known
        queue = self._state.queues.get(group.queue_name)
        if queue is None or queue.order is not Order.FAIR:
            return branch
        user = branch.children.get(f"user {group.account}")
        if user is None:
            user = Branch("", group.account, is_queue=False)
            branch.children[f"user {group.account}"] = user
        return user

    def _fill(self, branch: Branch, own: dict[int, list[Group]]) -> None:
        for child in branch.children.values():
            self._fill(child, own)
        children = [*branch.children.values(), *own.get(id(branch), ())]
        branch.heap = [(self._key(branch, child), child) for child in children]
        heapq.heapify(branch.heap)

    def _key(self, branch: Branch, child: Branch | Group) -> Key:
        if isinstance(child, Group):
            return 1, 0, 0.0, child.first()
        leaf: Branch | Group = child
        while isinstance(leaf, Branch):
            leaf = leaf.heap[0][1]
        turn = leaf.first()
        shares = self._state.shares
        if not child.is_queue:
            return 1, turn[0], shares.average_ppb(child.account, self._now_ms), turn
        need = milli_of(self._state.jobs[turn[-1]])
        entitled = shares.guarantees and shares.is_entitled(child.name, need)
        above = self._state.queues.get(branch.name)
        used = 0.0
        if above is not None and above.order is Order.FAIR:
            queue = self._state.queues.get(child.name)
            weight = queue.weight if queue else 1
            used = shares.average_ppb(child.account, self._now_ms) / weight
        return int(not entitled), 0, used, turn

    def _is_ready(self, group: Group) -> bool:
        return group.serial in self._state.queue.ready
