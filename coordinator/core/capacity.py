"""An index of what nodes have: which of them hold so many devices, by class, label and what is left.

Theory of operation. The devices of one node that are alike (type and memory) form a pool: some are
whole, of others a part is free. Nodes whose pools look alike have equal forms, and lie in one bucket of a
shelf: a form says how many devices are whole, what is left of the others, and how much of the machine is
left, in steps. There are as many forms as there are different looks, however many nodes there are, so a
search that asks every form once does not grow with the cluster. Within a bucket nodes that are exactly
equal lie together, so that what one of them cannot hold is asked of none of the others.

Labels are indexed too: each pool is filed once under no label and once under each label of its node, so a
selector narrows the search instead of filtering it.

The same class serves twice: filled with what is free now it places jobs, filled with everything that
nodes offer it tells whether a job could ever run.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import merge
from itertools import islice

from coordinator.core.fragments import Fragments
from coordinator.core.records import WHOLE, Demand, Pairs
from coordinator.core.room import DeviceClass, Exact, Form, Look, Room, exact_of, form_of, look_of

Label = tuple[str, str] | None
ANY: Label = None
TOPOLOGY = (
    "nvlink_domain",
    "switch",
    "rack",
    "zone",
)  # labels of nodes that are close, closest first


class Domains:
    """The values of one topology label, by how many devices of a type are there."""

    __slots__ = ("by_count", "counts")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.by_count: list[tuple[int, str]] = []

    def add(self, value: str, count: int) -> None:
        """So many more devices; or fewer."""
        before = self.counts.pop(value, 0)
        if before:
            del self.by_count[bisect_left(self.by_count, (before, value))]
        if before + count:
            self.counts[value] = before + count
            insort(self.by_count, (before + count, value))

    def holding(self, least: int) -> list[str]:
        """Values with at least so many devices, the fewest first."""
        return [value for _, value in self.by_count[bisect_left(self.by_count, (least, "")) :]]


class Bucket:
    """Nodes of one form, those that are exactly equal together, each lot sorted by node id."""

    __slots__ = ("exacts", "nodes")

    def __init__(self) -> None:
        self.exacts: list[Exact] = []
        self.nodes: dict[Exact, list[str]] = {}

    def add(self, exact: Exact, node_id: str) -> None:
        found = self.nodes.get(exact)
        if found is None:
            found = self.nodes[exact] = []
            insort(self.exacts, exact)
        insort(found, node_id)

    def remove(self, exact: Exact, node_id: str) -> None:
        found = self.nodes[exact]
        del found[bisect_left(found, node_id)]
        if not found:
            del self.nodes[exact]
            del self.exacts[bisect_left(self.exacts, exact)]

    def holds(self, exact: Exact, node_id: str) -> bool:
        """Whether a node that is exactly so is here."""
        found = self.nodes.get(exact, [])
        at = bisect_left(found, node_id)
        return at < len(found) and found[at] == node_id

    def node_ids(self) -> Iterator[str]:
        """All of them, tightest first, then by id."""
        for exact in self.exacts:
            yield from self.nodes[exact]


class Shelf:
    """Pools of one class under one label, in buckets by their form."""

    def __init__(self) -> None:
        self.forms: list[Form] = []  # sorted: the tightest first
        self.buckets: dict[Form, Bucket] = {}
        self.node_counts: dict[int, int] = {}  # number of whole devices → nodes that have so many
        self.device_count = 0  # of which anything is free

    def add(self, node_id: str, form: Form, *, exact: Exact) -> None:
        bucket = self.buckets.get(form)
        if bucket is None:
            bucket = self.buckets[form] = Bucket()
            insort(self.forms, form)
        bucket.add(exact, node_id)
        self._count(form.look, 1)

    def remove(self, node_id: str, form: Form, *, exact: Exact) -> None:
        bucket = self.buckets[form]
        bucket.remove(exact, node_id)
        if not bucket.exacts:
            del self.buckets[form]
            del self.forms[bisect_left(self.forms, form)]
        self._count(form.look, -1)

    def with_whole(self, least: int) -> list[Form]:
        """The forms with at least `least` whole devices, fewest first, then tightest."""
        return self.forms[bisect_left(self.forms, least, key=_whole_count) :]

    def rank_count(self, unit: int) -> int:
        """How many groups of `unit` devices there are, each on one node."""
        return sum((count // unit) * nodes for count, nodes in self.node_counts.items())

    def node_count(self, least: int) -> int:
        """How many nodes have at least `least` whole devices."""
        return sum(nodes for count, nodes in self.node_counts.items() if count >= least)

    def free_counts(self, thousandths: int) -> dict[int, int]:
        """Number of devices of which so much is free → nodes that have so many."""
        if thousandths == WHOLE:
            return self.node_counts
        found: dict[int, int] = {}
        for form, bucket in self.buckets.items():
            for exact, node_ids in bucket.nodes.items():
                count = form.look.whole_count + sum(part >= thousandths for part in exact.parts)
                found[count] = found.get(count, 0) + len(node_ids)
        return found

    def _count(self, look: Look, sign: int) -> None:
        self.device_count += sign * (look.whole_count + len(look.parts))
        nodes = self.node_counts.get(look.whole_count, 0) + sign
        if nodes:
            self.node_counts[look.whole_count] = nodes
        else:
            del self.node_counts[look.whole_count]


EMPTY = Shelf()


class Capacity:
    """Rooms of nodes, and the shelves on which their pools are found."""

    def __init__(self) -> None:
        self.fragments = Fragments()  # what a search for room goes by
        self.searched_by: object = None  # from what that follows
        self.rooms: dict[str, Room] = {}
        self.suspects: dict[str, None] = {}  # nodes that are taken last
        self.shelves: dict[tuple[DeviceClass, Label], Shelf] = {}
        self.classes: list[DeviceClass] = []  # that have a pool, sorted
        self.devices_by_type: dict[str, int] = {}  # of which anything is free
        self.domains: dict[tuple[str, str], Domains] = {}  # by type and label, those of TOPOLOGY
        self.known_fits: set[Demand] = set()  # a memo: demands that fit as things are

    def put(self, node_id: str, room: Room | None) -> None:
        """Sets what a node has; None takes it off."""
        before = self.rooms.get(node_id)
        if before is room:
            return
        self.rooms.pop(node_id, None)
        self.suspects.pop(node_id, None)
        if before is not None:
            self._file(node_id, before, sign=-1)
        if room is not None and room.pools:
            self.rooms[node_id] = room
            if room.is_suspect:
                self.suspects[node_id] = None
            self._file(node_id, room, sign=1)
        self.known_fits.clear()

    def search_by(self, fragments: Fragments, *, basis: object) -> None:
        """Lets searches go by these, which follow from the basis."""
        self.fragments = fragments
        self.searched_by = basis

    def where(self, node_id: str, device_class: DeviceClass) -> tuple[Form, Exact] | None:
        """As what a node's devices of a class are filed; None where it has none."""
        room = self.rooms.get(node_id)
        if room is None:
            return None
        looks = [(pool.device_class, look_of(pool)) for pool in room.pools]
        for number, (one, look) in enumerate(looks):
            if one == device_class:
                others = (*looks[:number], *looks[number + 1 :])
                return form_of(room, look, others=others), exact_of(room, room.pools[number])
        return None

    def shelf(self, device_class: DeviceClass, selector: Pairs) -> Shelf:
        """Where to look for a class: under the rarest of the labels asked for, or under none."""
        if not selector:
            return self.shelves.get((device_class, ANY), EMPTY)
        found = [self.shelves.get((device_class, label), EMPTY) for label in selector]
        return min(found, key=lambda shelf: shelf.device_count)

    def may_hold(self, demand: Demand) -> bool:
        """Whether there are devices enough at all; a cheap no."""
        types = demand.device_types or self.devices_by_type
        return any(self.devices_by_type.get(one, 0) >= demand.device_count for one in types)

    def classes_for(self, demand: Demand) -> Iterator[tuple[str, list[DeviceClass]]]:
        """Per device type that the demand accepts: its classes with memory enough, least first."""
        for device_type in demand.device_types or sorted(self.devices_by_type):
            if not demand.accepts(device_type):
                continue
            found = [
                one
                for one in self.classes
                if one.type == device_type and one.memory_bytes >= demand.device_memory_bytes
            ]
            if found:
                yield device_type, found

    def fullest(self, demand: Demand, *, below: int, most: int) -> Iterator[tuple[str, int]]:
        """(node, whole devices) of those classes that the demand accepts, for nodes that have fewer than
        `below` and at least one, the most first; so many nodes at most."""
        found = [
            self._fewer(self.shelf(one, demand.labels), below)
            for _, classes in self.classes_for(demand)
            for one in classes
        ]
        yield from islice(merge(*found, key=lambda x: -x[1]), most)

    def _fewer(self, shelf: Shelf, below: int) -> Iterator[tuple[str, int]]:
        for form in reversed(shelf.forms[: bisect_left(shelf.forms, below, key=_whole_count)]):
            for node_id in shelf.buckets[form].node_ids() if form.look.whole_count else ():
                yield node_id, form.look.whole_count

    def _file(self, node_id: str, room: Room, *, sign: int) -> None:
        looks = [(pool.device_class, look_of(pool)) for pool in room.pools]
        for number, (device_class, look) in enumerate(looks):
            count = look.whole_count + len(look.parts)
            total = self.devices_by_type.get(device_class.type, 0) + sign * count
            if total:
                self.devices_by_type[device_class.type] = total
            else:
                del self.devices_by_type[device_class.type]
            form = form_of(room, look, others=(*looks[:number], *looks[number + 1 :]))
            exact = exact_of(room, room.pools[number])
            for key, value in room.labels:
                if key in TOPOLOGY:
                    domains = self.domains.setdefault((device_class.type, key), Domains())
                    domains.add(value, sign * count)
            for label in (ANY, *room.labels):
                if sign > 0:
                    self._shelve(device_class, label).add(node_id, form, exact=exact)
                else:
                    self._unshelve(device_class, label, node_id=node_id, form=form, exact=exact)

    def _shelve(self, device_class: DeviceClass, label: Label) -> Shelf:
        shelf = self.shelves.get((device_class, label))
        if shelf is None:
            shelf = self.shelves[device_class, label] = Shelf()
            if label == ANY:
                insort(self.classes, device_class)
        return shelf

    def _unshelve(
        self, device_class: DeviceClass, label: Label, *, node_id: str, form: Form, exact: Exact
    ) -> None:
        shelf = self.shelves[device_class, label]
        shelf.remove(node_id, form, exact=exact)
        if not shelf.forms:
            del self.shelves[device_class, label]
            if label == ANY:
                self.classes.remove(device_class)


def _whole_count(form: Form) -> int:
    return form.look.whole_count
