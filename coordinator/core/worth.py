"""What has come free since the last placement pass, and who of those that were set aside is worth a look.

Theory of operation. A group of waiting jobs is set aside when it finds no room. It can find some now only
by using a node that has more than it had then; so a pass needs to look at such groups only, in line, and
only for as long as something of what came free is left. Groups are told apart by their shape (what types
they accept, how many devices they need, and how many at least on one node), of which there are few.

Four more things make it worth asking again: something of a claim is idle, something is idle on a node
that is to be out, an attempt that borrows has become one that may be preempted, and what came free on a
node is enough for the job together with what it may take from its own queue there. Whether that helps a job is
dear to find out, so only the first of the line are asked, until so many of them were in vain.
"""

from __future__ import annotations

from coordinator.core.known import Known, lenders
from coordinator.core.prey import Prey
from coordinator.core.queue import Head, Leaf, Opened, Shape, Stand
from coordinator.core.records import WHOLE
from coordinator.core.share import entitled_milli

IN_VAIN = 32
MANY = 64  # nodes that are not looked at one by one
EVERYTHING = 1 << 62  # devices


class Worth:
    """Who is worth a look, for as long as it is."""

    def __init__(self, state: Known, opened: Opened) -> None:
        self._state = state
        self._opened = opened
        self._vain = 0
        self._least: dict[str, int] = {}  # most devices on a node that has more, by type
        self._fits: dict[Shape, bool] = {}
        self._asks: dict[Shape, bool] = {}
        self._owed: dict[str, int] = {}  # by queue: thousandths of devices
        self._prey: Prey | None = None
        self._idle: dict[str, int] | None = None
        self._worthy: dict[Shape, None] | None = None
        self._nothing: bool | None = None

    def heads(self, leaf: Leaf) -> list[Head]:
        """Who is first of each shape of a leaf that is worth a look."""
        if self._worthy is None:
            shapes = self._state.queue.leaves.shapes
            worthy = (x for x in shapes if self._may_fit(x) or self._may_ask(x))
            self._worthy = dict.fromkeys(worthy)
        orders = leaf.orders
        found = [(orders[shape][0], True, shape) for shape in self._worthy if shape in orders]
        if self._opened.owed or leaf.queue_name in self._preys():
            others = (shape for shape in orders if shape not in self._worthy)
            found += [
                (orders[x][0], True, x)
                for x in others
                if self._is_owed(leaf, x) or self._may_take(leaf, x, stand=orders[x][0])
            ]
        return found

    def was_seen(self, serial: int) -> bool:
        """Whether a group was looked at in vain, with nothing come free since."""
        return serial in self._opened.seen

    def holds(self, leaf: Leaf, shape: Shape, *, stand: Stand) -> bool:
        """Whether who stands there, of a shape of a leaf, is worth a look still."""
        if self._may_fit(shape):
            return True
        return self._vain < IN_VAIN and (
            self._may_ask(shape)
            or self._is_owed(leaf, shape)
            or self._may_take(leaf, shape, stand=stand)
        )

    def nothing(self) -> bool:
        """Whether nobody is, by what came free."""
        asks = self._vain < IN_VAIN
        if asks and self._opened.owed:
            return False
        if self._nothing is None:
            shapes = self._state.queue.leaves.shapes
            self._nothing = not any(map(self._may_fit, shapes)) and not (
                asks and (any(map(self._may_ask, shapes)) or self._somebody_takes())
            )
        return self._nothing

    def changed(self) -> None:
        """Devices were given."""
        for memo in (self._least, self._fits, self._asks, self._owed):
            memo.clear()
        self._worthy = self._nothing = self._prey = self._idle = None

    def in_vain(self, serial: int, shape: Shape) -> None:
        """A group was looked at, and found nothing."""
        self._opened.seen[serial] = None
        self._vain += not self._may_fit(shape)
        if self._vain == IN_VAIN:
            self._nothing = None

    def _may_fit(self, shape: Shape) -> bool:
        known = self._fits.get(shape)
        if known is None:
            free = self._state.free.devices_by_type
            known = self._fits[shape] = any(
                shape.device_count <= free.get(one, 0) and shape.least <= self._on_node(one)
                for one in shape.types or self._opened.nodes
                if one in self._opened.nodes
            )
        return known

    def _on_node(self, device_type: str) -> int:
        known = self._least.get(device_type)
        if known is None:
            known = self._least[device_type] = self._most(device_type)
        return known

    def _most(self, device_type: str) -> int:
        nodes = self._opened.nodes[device_type]
        if len(nodes) > MANY:
            return EVERYTHING
        rooms = [room for x in nodes if (room := self._state.free.rooms.get(x))]
        return max((room.devices_of(device_type) for room in rooms), default=0)

    def _may_ask(self, shape: Shape) -> bool:
        known = self._asks.get(shape)
        if known is None:
            types = shape.types
            known = self._asks[shape] = (
                any(not types or one in types for one in self._opened.windows)
                or any(
                    self._is_lent(x, types, count=shape.device_count)
                    for x in self._opened.claimants
                )
                or self._fits_with_idle(shape)
            )
        return known

    def _fits_with_idle(self, shape: Shape) -> bool:
        """Whether it may fit on a node that has more and, beside it, on what is idle of a claim."""
        free = self._state.free.devices_by_type
        return any(
            shape.least <= self._on_node(one)
            and shape.device_count <= free.get(one, 0) + self._most_idle().get(one, 0)
            for one in shape.types or self._opened.nodes
            if one in self._opened.nodes
        )

    def _most_idle(self) -> dict[str, int]:
        """The most that is idle of one claim, by type."""
        if self._idle is None:
            self._idle = {}
            for job in lenders(self._state):
                if job.claim is not None:
                    one = job.claim.shares[0].device_type
                    self._idle[one] = max(self._state.idle(job), self._idle.get(one, 0))
        return self._idle

    def _is_lent(self, claimant_id: str, types: tuple[str, ...], *, count: int) -> bool:
        claimant = self._state.jobs.get(claimant_id)
        if claimant is None or claimant.claim is None:
            return False
        device_type = claimant.claim.shares[0].device_type
        idle = self._state.idle(claimant)
        free = self._state.free.devices_by_type.get(device_type, 0)
        return bool(idle) and (not types or device_type in types) and count <= free + idle

    def _preys(self) -> set[str]:
        """The queues whose jobs may take devices from others."""
        if self._prey is None:
            self._prey = Prey(self._state, self._opened.nodes)
        return self._prey.queues

    def _somebody_takes(self) -> bool:
        preys = self._preys()
        return any(
            self._may_take(leaf, shape, stand=order[0])
            for leaf in self._state.queue.leaves.by_key.values()
            if leaf.queue_name in preys
            for shape, order in leaf.orders.items()
        )

    def _may_take(self, leaf: Leaf, shape: Shape, *, stand: Stand) -> bool:
        """Whether who stands there may find room on a node that has more, with what it takes there."""
        if leaf.queue_name not in self._preys() or self._prey is None:
            return False
        job = self._state.jobs.get(stand[0][-1])
        return job is not None and self._prey.serves(job, shape)

    def _is_owed(self, leaf: Leaf, shape: Shape) -> bool:
        if not self._opened.owed:
            return False
        left = self._owed.get(leaf.queue_name)
        if left is None:
            shares = self._state.shares
            left = max(
                entitled_milli(shares, self._state.queues.get(x))
                for x in shares.path(leaf.queue_name)
            )
            self._owed[leaf.queue_name] = left
        return (1 if shape.is_part else shape.device_count * WHOLE) <= left
