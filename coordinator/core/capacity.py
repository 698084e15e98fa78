"""An index of devices: which nodes have how many, by class, label and count.

Theory of operation. The devices of one node that are alike (type and memory) form a pool; pools of
equal class and equal free count lie in one bucket, sorted by node id. The tightest pool that holds a
gang is then found by looking at a few buckets, not at the cluster. Labels are indexed too: each pool is
filed once under no label and once under each label of its node, so a selector narrows the search
instead of filtering it.

The same class serves twice: filled with what is free now it places jobs, filled with everything that
nodes offer it tells whether a job could ever run.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from coordinator.core.records import Demand, Device, Pairs

Label = tuple[str, str] | None
ANY: Label = None


@dataclass(frozen=True, slots=True, order=True)
class DeviceClass:
    """Devices that are alike to the scheduler."""

    type: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """What one node has: device ids per class in the order of use, and the machine's own resources."""

    labels: Pairs
    pools: tuple[tuple[DeviceClass, tuple[str, ...]], ...]
    cpu_count: int
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Devices of one class on one node."""

    node_id: str
    device_ids: tuple[str, ...]


class Shelf:
    """Pools of one class under one label, in buckets by their number of devices."""

    def __init__(self) -> None:
        self.counts: list[int] = []  # sorted numbers of devices for which a bucket exists
        self.buckets: dict[int, list[str]] = {}
        self.device_count = 0

    def add(self, node_id: str, count: int) -> None:
        bucket = self.buckets.get(count)
        if bucket is None:
            bucket = self.buckets[count] = []
            insort(self.counts, count)
        insort(bucket, node_id)
        self.device_count += count

    def remove(self, node_id: str, count: int) -> None:
        bucket = self.buckets[count]
        del bucket[bisect_left(bucket, node_id)]
        if not bucket:
            del self.buckets[count]
            del self.counts[bisect_left(self.counts, count)]
        self.device_count -= count

    def tightest(self, least: int) -> Iterator[str]:
        """Nodes with at least `least` devices, fewest first, then by id."""
        for count in self.counts[bisect_left(self.counts, least) :]:
            yield from self.buckets[count]

    def fullest(self, least: int) -> Iterator[tuple[str, int]]:
        """Nodes with at least `least` devices and how many, most first, then by id."""
        for count in reversed(self.counts[bisect_left(self.counts, least) :]):
            for node_id in self.buckets[count]:
                yield node_id, count

    def rank_count(self, unit: int) -> int:
        """How many groups of `unit` devices there are, each on one node."""
        return sum((count // unit) * len(self.buckets[count]) for count in self.counts)

    def node_count(self, least: int) -> int:
        """How many nodes have at least `least` devices."""
        return sum(len(self.buckets[c]) for c in self.counts[bisect_left(self.counts, least) :])


EMPTY = Shelf()


class Capacity:
    """Rooms of nodes, and the shelves on which their pools are found."""

    def __init__(self) -> None:
        self.rooms: dict[str, Room] = {}
        self.shelves: dict[tuple[DeviceClass, Label], Shelf] = {}
        self.classes: list[DeviceClass] = []  # that have a pool, sorted
        self.devices_by_type: dict[str, int] = {}
        self.known_fits: set[Demand] = set()  # a memo: demands that fit as things are

    def put(self, node_id: str, room: Room | None) -> None:
        """Sets what a node has; None takes it off."""
        before = self.rooms.pop(node_id, None)
        if before is not None:
            self._file(node_id, before, sign=-1)
        if room is not None and room.pools:
            self.rooms[node_id] = room
            self._file(node_id, room, sign=1)
        self.known_fits.clear()

    def pool(self, node_id: str, device_class: DeviceClass) -> Pool:
        """The node's devices of a class; empty where it has none."""
        room = self.rooms.get(node_id)
        for found, device_ids in room.pools if room else ():
            if found == device_class:
                return Pool(node_id, device_ids)
        return Pool(node_id, ())

    def shelf(self, device_class: DeviceClass, selector: Pairs) -> Shelf:
        """Where to look for a class: under the rarest of the labels asked for, or under none."""
        if not selector:
            return self.shelves.get((device_class, ANY), EMPTY)
        found = [self.shelves.get((device_class, label), EMPTY) for label in selector]
        return min(found, key=lambda shelf: shelf.device_count)

    def may_hold(self, demand: Demand) -> bool:
        """Whether there are devices enough at all; a cheap no."""
        if demand.device_type:
            return self.devices_by_type.get(demand.device_type, 0) >= demand.device_count
        return any(count >= demand.device_count for count in self.devices_by_type.values())

    def classes_for(self, demand: Demand) -> Iterator[tuple[str, list[DeviceClass]]]:
        """Per device type that the demand accepts: its classes with memory enough, least first."""
        types = [demand.device_type] if demand.device_type else sorted(self.devices_by_type)
        for device_type in types:
            found = [
                one
                for one in self.classes
                if one.type == device_type and one.memory_bytes >= demand.device_memory_bytes
            ]
            if found:
                yield device_type, found

    def _file(self, node_id: str, room: Room, *, sign: int) -> None:
        for device_class, device_ids in room.pools:
            count = len(device_ids)
            total = self.devices_by_type.get(device_class.type, 0) + sign * count
            if total:
                self.devices_by_type[device_class.type] = total
            else:
                del self.devices_by_type[device_class.type]
            for label in (ANY, *room.labels):
                if sign > 0:
                    self._shelve(device_class, label).add(node_id, count)
                else:
                    self._unshelve(device_class, label, node_id=node_id, count=count)

    def _shelve(self, device_class: DeviceClass, label: Label) -> Shelf:
        shelf = self.shelves.get((device_class, label))
        if shelf is None:
            shelf = self.shelves[device_class, label] = Shelf()
            if label == ANY:
                insort(self.classes, device_class)
        return shelf

    def _unshelve(
        self, device_class: DeviceClass, label: Label, *, node_id: str, count: int
    ) -> None:
        shelf = self.shelves[device_class, label]
        shelf.remove(node_id, count)
        if not shelf.counts:
            del self.shelves[device_class, label]
            if label == ANY:
                self.classes.remove(device_class)


def pools_of(devices: Iterable[Device]) -> tuple[tuple[DeviceClass, tuple[str, ...]], ...]:
    """Devices grouped into classes; by class, then by index on the node."""
    groups: dict[DeviceClass, list[Device]] = {}
    for device in devices:
        groups.setdefault(DeviceClass(device.type, device.memory_bytes), []).append(device)
    return tuple(
        (one, tuple(d.device_id for d in sorted(groups[one], key=lambda d: (d.index, d.device_id))))
        for one in sorted(groups)
    )
