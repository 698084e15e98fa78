"""What has come free since the last placement pass, and who of those that were set aside is worth a look.

Theory of operation. A group of waiting jobs is set aside when it finds no room. It can find some now only
by using a node that has more than it had then; so a pass needs to look at such groups only, in line, and
only for as long as something of what came free is left. Groups are told apart by their shape (what types
they accept, how many devices they need, and how many at least on one node), of which there are few.

Four more things make it worth asking again: something of a claim is idle, something is idle on a node
that is to be out, an attempt that borrows has become one that may be preempted, and what came free on a
node is enough for the job together with what it may take from its own queue there. Whether that helps a job is
dear to find out, so only the first of the line are asked, until so many of them were in vain. And who needs
several devices of a node is asked while nobody was in vain: others may be moved for it, to what came free.
"""

from __future__ import annotations

from coordinator.core.known import Known, lenders
from coordinator.core.prey import Prey
from coordinator.core.queue import Opened
from coordinator.core.records import WHOLE
from coordinator.core.share import entitled_milli
from coordinator.core.tree import Head, Leaf, Shape, Stand, Worthy

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
        self._worthy: Worthy | None = None
        self._nothing: bool | None = None

    def worthy(self) -> Worthy:
        """The shapes of which whoever is next is worth a look, wherever it is."""
        if self._worthy is None:
            tree = self._state.queue.tree
            self._worthy = tree.worthy(
                [x for x in tree.shapes if self._may_fit(x) or self._may_ask(x)]
            )
        return self._worthy

    def others(self) -> list[str]:
        """The queues of which more than that is."""
        tree = self._state.queue.tree
        names = self._preys().takers(tree.shapes)
        if self._opened.owed:
            names |= dict.fromkeys(name for name in tree.queues() if self._owed_milli(name) > 0)
        return [*names]

    def heads(self, leaf: Leaf) -> list[Head]:
        """Who is first of each shape of a leaf that is worth a look."""
        orders, worthy = leaf.orders, self.worthy().shapes
        found = [(orders[shape][0], True, shape) for shape in worthy if shape in orders]
        if self._opened.owed or leaf.queue_name in self._preys().queues:
            others = (shape for shape in orders if shape not in worthy)
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
        if not self._opened:
            return True
        if self._nothing is None:
            shapes = self._state.queue.tree.shapes
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
        if self._vain in (1, IN_VAIN):
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

    def _preys(self) -> Prey:
        """Those from whom somebody may take devices."""
        if self._prey is None:
            self._prey = Prey(self._state, self._opened.nodes)
        return self._prey

    def _somebody_takes(self) -> bool:
        tree = self._state.queue.tree
        return any(
            self._may_take(leaf, shape, stand=order[0])
            for name in self._preys().takers(tree.shapes)
            for leaf in tree.leaves_of(name).values()
            for shape, order in leaf.orders.items()
        )

    def _may_take(self, leaf: Leaf, shape: Shape, *, stand: Stand) -> bool:
        """Whether who stands there may find room on a node that has more, with what it takes there."""
        preys, name = self._preys(), leaf.queue_name
        may_serve = preys.may_serve(name, shape)
        may_gather = not self._vain and preys.may_gather(name, shape)
        job = self._state.jobs.get(stand[0][-1]) if may_serve or may_gather else None
        return job is not None and (
            (may_serve and preys.serves(job, shape)) or (may_gather and preys.gathers(job, shape))
        )

    def _is_owed(self, leaf: Leaf, shape: Shape) -> bool:
        need = 1 if shape.is_part else shape.device_count * WHOLE
        return self._opened.owed and need <= self._owed_milli(leaf.queue_name)

    def _owed_milli(self, queue_name: str) -> int:
        """The most that a queue, or one above it, may hold more up to its guarantee."""
        left = self._owed.get(queue_name)
        if left is None:
            shares, queues = self._state.shares, self._state.queues
            path = shares.path(queue_name)
            left = max(entitled_milli(shares, queues.get(name)) for name in path)
            self._owed[queue_name] = left
        return left
