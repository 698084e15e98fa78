"""Where a gang fits: a pure question to an index of capacity.

All devices at once or nothing; one device type for the whole gang; a rank's devices on one node. With
`node_count` an equal share on each of so many nodes, without it as few nodes as fit. Among nodes that
fit the tightest is taken, so that large holes stay whole; ties go to the lower node id. How full a node
is counts by its devices: where CPU, memory or disk run out first, a gang still finds room wherever there
is room, but perhaps on more nodes than the fewest.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from coordinator.core.capacity import Capacity, DeviceClass, Room, Shelf
from coordinator.core.records import Demand


@dataclass(frozen=True, slots=True)
class Spot:
    """One node's part of a placement."""

    node_id: str
    device_type: str
    device_ids: tuple[str, ...]
    rank_count: int


MOST_KNOWN_FITS = 10_000
Placement = tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class NodeShare:
    """A node's part of what a job asks of its machines."""

    cpu_count: int
    memory_bytes: int
    disk_bytes: int


def rank_count(demand: Demand) -> int:
    """Ranks in all."""
    return demand.world_size or demand.device_count


def node_share(demand: Demand, ranks: int) -> NodeShare:
    """What `ranks` of the job's ranks need of their machine, rounded up."""
    total = rank_count(demand)
    return NodeShare(
        cpu_count=-(-demand.cpu_count * ranks // total),
        memory_bytes=-(-demand.memory_bytes * ranks // total),
        disk_bytes=-(-demand.disk_bytes * ranks // total),
    )


def place(capacity: Capacity, demand: Demand, *, avoid: str = "") -> Placement | None:
    """Finds room for the whole gang; None where there is none.

    `avoid` names a node that is taken only when nothing else fits.
    """
    if not capacity.may_hold(demand):
        return None
    if avoid:
        found = _place(capacity, demand, avoid=avoid)
        if found is not None:
            return found
    return _place(capacity, demand, avoid="")


def _place(capacity: Capacity, demand: Demand, *, avoid: str) -> Placement | None:
    candidates = [
        found
        for device_type, classes in capacity.classes_for(demand)
        if (found := _place_type(capacity, demand, classes=classes, avoid=avoid)) is not None
    ]
    # several types fit only where the job named none: the fewest nodes, then the type's name
    return min(candidates, key=lambda one: (len(one), one[0].device_type), default=None)


def _place_type(
    capacity: Capacity, demand: Demand, *, classes: list[DeviceClass], avoid: str
) -> Placement | None:
    ranks = rank_count(demand)
    unit = demand.devices_per_rank
    search = _Search(capacity, demand, classes=classes, avoid=avoid)
    if demand.node_count:
        if ranks % demand.node_count:
            return None
        return search.equal(demand.node_count, ranks // demand.node_count)
    found = search.equal(1, ranks)
    return found if found or ranks == 1 else search.fewest(ranks, unit)


class _Search:
    """One search for one demand among classes of one type."""

    def __init__(
        self, capacity: Capacity, demand: Demand, *, classes: list[DeviceClass], avoid: str
    ) -> None:
        self._capacity = capacity
        self._demand = demand
        self._unit = demand.devices_per_rank
        self._shelves: list[tuple[DeviceClass, Shelf]] = [
            (one, capacity.shelf(one, demand.node_selector)) for one in classes
        ]
        self._avoid = avoid
        self._plain = not (
            demand.node_selector or demand.cpu_count or demand.memory_bytes or demand.disk_bytes
        )

    def equal(self, nodes: int, ranks: int) -> Placement | None:
        """`ranks` on each of `nodes` nodes, the tightest ones."""
        devices = ranks * self._unit
        if sum(shelf.node_count(devices) for _, shelf in self._shelves) < nodes:
            return None
        chosen: dict[str, Spot] = {}
        for device_class, shelf in self._shelves:
            for node_id in shelf.tightest(devices):
                if node_id not in chosen and self._accepts(node_id, ranks):
                    chosen[node_id] = self._spot(node_id, device_class, ranks=ranks)
                    if len(chosen) == nodes:
                        return _in_order(chosen)
        return None

    def fewest(self, ranks: int, unit: int) -> Placement | None:
        """All ranks on as few nodes as fit: the fullest ones, and the tightest for what is left."""
        if sum(shelf.rank_count(unit) for _, shelf in self._shelves) < ranks:
            return None
        chosen: dict[str, Spot] = {}
        left = ranks
        for node_id, device_class, room in self._fullest(unit):
            if node_id in chosen:
                continue
            if room >= left:
                rest = self._tightest_for(left, chosen)
                if rest is not None:
                    chosen[rest.node_id] = rest
                    return _in_order(chosen)
            taken = self._most(node_id, min(room, left))
            if taken:
                chosen[node_id] = self._spot(node_id, device_class, ranks=taken)
                left -= taken
                if not left:
                    return _in_order(chosen)
        return None

    def _fullest(self, unit: int) -> Iterator[tuple[str, DeviceClass, int]]:
        """(node, class, ranks that its devices hold), most devices first, then by node id."""
        streams = [
            ((-count, node_id, one) for node_id, count in shelf.fullest(unit))
            for one, shelf in self._shelves
        ]
        for negative, node_id, device_class in heapq.merge(*streams):
            yield node_id, device_class, -negative // unit

    def _tightest_for(self, ranks: int, chosen: dict[str, Spot]) -> Spot | None:
        for device_class, shelf in self._shelves:
            for node_id in shelf.tightest(ranks * self._unit):
                if node_id not in chosen and self._accepts(node_id, ranks):
                    return self._spot(node_id, device_class, ranks=ranks)
        return None

    def _most(self, node_id: str, ranks: int) -> int:
        """How many of up to `ranks` ranks the node's CPU, memory and disk hold."""
        while ranks and not self._accepts(node_id, ranks):
            ranks -= 1
        return ranks

    def _accepts(self, node_id: str, ranks: int) -> bool:
        if node_id == self._avoid:
            return False
        if self._plain:
            return True
        room = self._capacity.rooms[node_id]
        return _selected(room, self._demand) and _holds(room, node_share(self._demand, ranks))

    def _spot(self, node_id: str, device_class: DeviceClass, *, ranks: int) -> Spot:
        pool = self._capacity.pool(node_id, device_class)
        ids = tuple(islice(pool.device_ids, ranks * self._unit))
        return Spot(node_id, device_class.type, ids, ranks)


def _selected(room: Room, demand: Demand) -> bool:
    return all(label in room.labels for label in demand.node_selector)


def _holds(room: Room, share: NodeShare) -> bool:
    return (
        share.cpu_count <= room.cpu_count
        and share.memory_bytes <= room.memory_bytes
        and share.disk_bytes <= room.disk_bytes
    )


def _in_order(chosen: dict[str, Spot]) -> Placement:
    return tuple(chosen[node_id] for node_id in sorted(chosen))


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why no set of nodes could ever run a demand: the field at fault, and what would fit."""

    field: str
    message: str


def fits(capacity: Capacity, demand: Demand) -> bool:
    """Whether there is room; remembered while the capacity stays as it is."""
    if demand in capacity.known_fits:
        return True
    found = place(capacity, demand) is not None
    if found and len(capacity.known_fits) < MOST_KNOWN_FITS:
        capacity.known_fits.add(demand)
    return found


def misfit(total: Capacity, demand: Demand) -> Misfit | None:
    """Judges a demand against everything that the known nodes offer; None where it could fit.

    The field is found by asking for more and more of the demand until it does not fit any longer.
    """
    if not total.rooms or fits(total, demand):
        return None
    asked = Demand(device_count=1, device_type=demand.device_type)
    if place(total, asked) is None:
        return Misfit("resource_config.gpu_type", _types(total))
    steps: list[tuple[str, dict[str, object]]] = [
        ("gpu_memory_gb", {"device_memory_bytes": demand.device_memory_bytes}),
        ("node_selector", {"node_selector": demand.node_selector}),
        (
            "gpu_count",
            {"device_count": demand.device_count, "world_size": demand.world_size},
        ),
        ("node_count", {"node_count": demand.node_count}),
        ("cpu_count", {"cpu_count": demand.cpu_count}),
        ("memory_gb", {"memory_bytes": demand.memory_bytes}),
    ]
    for name, more in steps:
        asked = replace(asked, **more)  # type: ignore[arg-type]
        if place(total, asked) is None:
            return Misfit(
                f"resource_config.{name}", _largest(total, name, device_type=demand.device_type)
            )
    return Misfit(
        "resource_config.disk_gb", _largest(total, "disk_gb", device_type=demand.device_type)
    )


def _types(total: Capacity) -> str:
    known = ", ".join(
        f"{name} ({total.devices_by_type[name]})" for name in sorted(total.devices_by_type)
    )
    return f"no known node has such devices; known types and their numbers: {known}"


def _largest(total: Capacity, name: str, *, device_type: str) -> str:
    classes = [one for one in total.classes if device_type in ("", one.type)]
    if name == "gpu_memory_gb":
        most = max(one.memory_bytes for one in classes)
        return f"the largest fitting device has {most / 1e9:g} GB"
    if name == "node_selector":
        return "no known node with fitting devices carries all of these labels"
    if name in ("gpu_count", "node_count"):
        nodes = [total.shelf(one, ()) for one in classes]
        most_per_node = max(shelf.counts[-1] for shelf in nodes)
        count = sum(shelf.node_count(1) for shelf in nodes)
        device_count = sum(shelf.device_count for shelf in nodes)
        return (
            f"the known nodes have {device_count} such devices on {count} nodes, "
            f"at most {most_per_node} on one"
        )
    rooms = [total.rooms[key] for key in sorted(total.rooms)]
    if name == "cpu_count":
        return f"the largest known node has {max(room.cpu_count for room in rooms)} CPU cores"
    if name == "memory_gb":
        return (
            f"the largest known node has {max(r.memory_bytes for r in rooms) / 1e9:g} GB of memory"
        )
    return f"the largest known node has {max(r.disk_bytes for r in rooms) / 1e9:g} GB of disk"
