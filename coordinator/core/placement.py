"""Where a gang fits: a pure question to an index of capacity.

All devices at once or nothing; one device type for the whole gang; a rank's devices on one node. With
`node_count` an equal share on each of so many nodes, without it as few nodes as fit. A share of a device
is taken of one device. Among nodes that fit one is taken that gets least fragmented by it (`fragments.py`);
of those that are equal in that one that holds more of what the job names (`near.py`), then the tightest, and
then the one with the lower id. How full a node is counts
by its devices: where CPU, memory or disk run out first, a gang still finds room wherever there is room,
but perhaps on more nodes than the fewest.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from coordinator.core.capacity import TOPOLOGY, Bucket, Capacity, Shelf
from coordinator.core.fragments import NEVER, Growth, Need
from coordinator.core.kinds import Pairs
from coordinator.core.records import RUNS_CONTAINERS, WHOLE, Demand, Share
from coordinator.core.room import DeviceClass, Exact, Form, Room


@dataclass(frozen=True, slots=True)
class Spot:
    """One node's part of a placement."""

    node_id: str
    device_type: str
    device_ids: tuple[str, ...]
    rank_count: int
    thousandths: int = WHOLE  # of each device

    @classmethod
    def of(cls, share: Share, *, unit: int) -> Spot:
        """From what is kept, for ranks of `unit` devices."""
        ranks = len(share.device_ids) // unit
        return cls(share.node_id, share.device_type, share.device_ids, ranks, share.thousandths)

    def share(self) -> Share:
        """As an attempt keeps it."""
        return Share(
            node_id=self.node_id,
            device_ids=self.device_ids,
            device_type=self.device_type,
            thousandths=self.thousandths,
        )


MOST_KNOWN_FITS = 10_000
MOST_NAMED_VALUES = 8  # of a label, in a message
LOOKS = 16  # at places close together, before a gang that may is spread farther
_Chosen = dict[str, tuple[Spot, Growth]]
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


def least_on_node(demand: Demand) -> int:
    """Devices that one node has to have, to be of use to the gang."""
    ranks = rank_count(demand) // demand.node_count if demand.node_count else 1
    return ranks * demand.devices_per_rank


def node_share(demand: Demand, ranks: int) -> NodeShare:
    """What `ranks` of the job's ranks need of their machine, rounded up."""
    total = rank_count(demand)
    return NodeShare(
        cpu_count=-(-demand.cpu_count * ranks // total),
        memory_bytes=-(-demand.memory_bytes * ranks // total),
        disk_bytes=-(-demand.disk_bytes * ranks // total),
    )


def need_of(demand: Demand, ranks: int) -> Need:
    """What `ranks` of the job's ranks take of one node."""
    share = node_share(demand, ranks)
    return Need(
        ranks * demand.devices_per_rank,
        demand.thousandths,
        share.cpu_count,
        share.memory_bytes,
        share.disk_bytes,
    )


@dataclass(frozen=True, slots=True)
class _Taste:
    """Which nodes are not taken, and which before others that are as good, the best first."""

    avoid: Container[str] = ()
    near: tuple[str, ...] = ()


def place(
    capacity: Capacity, demand: Demand, *, avoid: str = "", near: tuple[str, ...] = ()
) -> Placement | None:
    """Finds room for the whole gang; None where there is none.

    `avoid` names a node that is taken only when nothing else fits; so are suspects, before it. `near`
    are nodes that are taken before others that get no less fragmented, the best first.
    """
    if not capacity.may_hold(demand):
        return None
    avoided = (avoid,) if avoid else ()
    if capacity.suspects:
        found = _place(capacity, demand, taste=_Taste({*avoided, *capacity.suspects}, near))
        if found is not None:
            return found
    found = _place(capacity, demand, taste=_Taste(avoided, near))
    if found is None and avoid:
        return _place(capacity, demand, taste=_Taste((), near))
    return found


@dataclass(frozen=True, slots=True)
class _Found:
    """A placement, and how much more fragmented the nodes get by it."""

    spots: Placement
    level: int  # of TOPOLOGY within which its nodes are
    amount: int

    def order(self) -> tuple[int, int, int, str]:
        """The least is the best."""
        return len(self.spots), self.level, self.amount, self.spots[0].device_type


def _place(capacity: Capacity, demand: Demand, *, taste: _Taste) -> Placement | None:
    candidates = [
        found
        for _, classes in capacity.classes_for(demand)
        if (found := _place_type(capacity, demand, classes=classes, taste=taste)) is not None
    ]
    # several types fit only where the job accepts several
    best = min(candidates, key=_Found.order, default=None)
    return best.spots if best else None


def _place_type(
    capacity: Capacity, demand: Demand, *, classes: list[DeviceClass], taste: _Taste
) -> _Found | None:
    ranks = rank_count(demand)
    if demand.node_count and ranks % demand.node_count:
        return None
    anywhere = None
    if not demand.within:
        anywhere = _Search(capacity, demand, classes=classes, taste=taste).gang(ranks)
        if not anywhere or len(anywhere) == 1:
            return _found(anywhere, level=0)
    levels = (demand.within,) if demand.within else TOPOLOGY
    for level, key in enumerate(levels):
        close = _place_within(capacity, demand, classes=classes, taste=taste, key=key)
        if close and (not anywhere or len(close) <= len(anywhere)):
            return _found(close, level=level)
    return _found(anywhere, level=len(levels))


def _found(chosen: _Chosen | None, *, level: int) -> _Found | None:
    if not chosen:
        return None
    amount = sum(growth.amount for _, growth in chosen.values())
    return _Found(tuple(chosen[node_id][0] for node_id in sorted(chosen)), level, amount)


def _place_within(
    capacity: Capacity,
    demand: Demand,
    *,
    classes: list[DeviceClass],
    taste: _Taste,
    key: str,
) -> _Chosen | None:
    """On nodes with the same value of a label: the fewest of them, where the fewest devices are."""
    domains = capacity.domains.get((classes[0].type, key))
    if domains is None:
        return None
    values = domains.holding(demand.device_count)
    best: _Chosen | None = None
    for value in values if demand.within else values[:LOOKS]:
        selector = (*demand.node_selector, (key, value))
        close = replace(demand, node_selector=selector)
        found = _Search(capacity, close, classes=classes, taste=taste).gang(rank_count(demand))
        if found and (best is None or len(found) < len(best)):
            best = found
            if len(best) == max(1, demand.node_count):
                break
    return best


class _Search:
    """One search for one demand among classes of one type."""

    def __init__(
        self,
        capacity: Capacity,
        demand: Demand,
        *,
        classes: list[DeviceClass],
        taste: _Taste,
    ) -> None:
        self._capacity = capacity
        self._demand = demand
        self._unit = demand.devices_per_rank
        self._shelves: list[tuple[DeviceClass, Shelf]] = [
            (one, capacity.shelf(one, demand.labels)) for one in classes
        ]
        self._avoid = taste.avoid
        self._near = taste.near
        self._selective = len(demand.labels) > 1  # a shelf is under one label

    def gang(self, ranks: int) -> _Chosen | None:
        """All ranks: an equal share on each of so many nodes, or on as few nodes as fit."""
        if nodes := self._demand.node_count:
            return self.equal(nodes, ranks // nodes)
        found = self.equal(1, ranks)
        return found if found or ranks == 1 else self.fewest(ranks)

    def equal(self, nodes: int, ranks: int) -> _Chosen | None:
        """`ranks` on each of `nodes` nodes, those that get least fragmented."""
        if self._demand.thousandths == WHOLE:
            devices = ranks * self._unit
            if sum(shelf.node_count(devices) for _, shelf in self._shelves) < nodes:
                return None
        chosen: _Chosen = {}
        return chosen if self._choose(ranks, chosen, nodes=nodes) else None

    def fewest(self, ranks: int) -> _Chosen | None:
        """All ranks on as few nodes as fit: the fullest ones, and the best for what is left."""
        if sum(shelf.rank_count(self._unit) for _, shelf in self._shelves) < ranks:
            return None
        chosen: _Chosen = {}
        left = ranks
        for node_id, device_class, room in self._fullest():
            if node_id in chosen:
                continue
            if room >= left and self._choose(left, chosen, nodes=1):
                return chosen
            taken = self._most(node_id, min(room, left))
            if taken:
                chosen[node_id] = self._take(node_id, device_class, ranks=taken), NEVER
                left -= taken
                if not left:
                    return chosen
        return None

    def _choose(self, ranks: int, chosen: _Chosen, *, nodes: int) -> bool:
        """Adds so many nodes with `ranks` on each, the best ones; whether there were so many."""
        need = need_of(self._demand, ranks)
        for device_class, shelf in self._shelves:
            for growth, node_id in self._candidates(device_class, shelf, need=need):
                if node_id in chosen:
                    continue
                spot = self._take(node_id, device_class, ranks=ranks, part=growth.part)
                chosen[node_id] = spot, growth
                nodes -= 1
                if not nodes:
                    return True
        return False

    def _candidates(
        self, device_class: DeviceClass, shelf: Shelf, *, need: Need
    ) -> Iterator[tuple[Growth, str]]:
        """Nodes that hold the need, best first; some of them may come twice."""
        ranked: Iterable[tuple[Growth, Form]] = self._ranked(device_class, shelf, need=need)
        if self._near:
            ranked = list(ranked)
            yield from self._nearby(device_class, shelf, need=need, ranked=ranked)
        for growth, form in ranked:
            for node_id in self._holding(shelf.buckets[form], form, need=need):
                yield growth, node_id

    def _nearby(
        self,
        device_class: DeviceClass,
        shelf: Shelf,
        *,
        need: Need,
        ranked: list[tuple[Growth, Form]],
    ) -> Iterator[tuple[Growth, str]]:
        """Those that are near and get no more fragmented than the best, which holds the need too."""
        best = None
        growths: dict[Form, Growth] = {}
        for growth, form in ranked:
            if best is None and any(self._holding(shelf.buckets[form], form, need=need)):
                best = growth.amount
            if best is not None and growth.amount == best:
                growths[form] = growth
        for node_id in self._near:
            form_exact = self._capacity.where(node_id, device_class)
            if form_exact is None or form_exact[0] not in growths or not self._accepts(node_id):
                continue
            form, exact = form_exact
            if _holds(exact, form, need=need) and shelf.buckets[form].holds(exact, node_id):
                yield growths[form], node_id

    def _ranked(
        self, device_class: DeviceClass, shelf: Shelf, *, need: Need
    ) -> Iterator[tuple[Growth, Form]]:
        """Forms that may hold the need, best first, the tightest of those that are equally good."""
        fragments = self._capacity.fragments
        known = fragments.growths(device_class, need)
        ranked: list[tuple[int, int, int]] = []
        whole = need.thousandths == WHOLE
        forms = shelf.with_whole(need.device_count) if whole else shelf.forms
        for number, form in enumerate(forms):
            growth = known.get(form)
            if growth is None:
                growth = known[form] = fragments.growth(device_class, form, need=need)
            if growth is not NEVER:
                ranked.append((growth.amount, growth.left, number))
        heapq.heapify(ranked)
        while ranked:
            form = forms[heapq.heappop(ranked)[2]]
            yield known[form], form

    def _holding(self, bucket: Bucket, form: Form, *, need: Need) -> Iterator[str]:
        """Nodes of a bucket that hold the need, tightest first."""
        for exact in bucket.exacts:
            if _holds(exact, form, need=need):
                for node_id in bucket.nodes[exact]:
                    if self._accepts(node_id):
                        yield node_id

    def _fullest(self) -> Iterator[tuple[str, DeviceClass, int]]:
        """(node, class, ranks that its devices hold), most devices first."""
        streams = [self._by_count(one, shelf) for one, shelf in self._shelves]
        for count, node_id, device_class in heapq.merge(*streams, key=_most_first):
            if self._accepts(node_id):
                yield node_id, device_class, count // self._unit

    def _by_count(
        self, device_class: DeviceClass, shelf: Shelf
    ) -> Iterator[tuple[int, str, DeviceClass]]:
        for form in reversed(shelf.with_whole(self._unit)):
            for node_id in shelf.buckets[form].node_ids():
                yield form.look.whole_count, node_id, device_class

    def _most(self, node_id: str, ranks: int) -> int:
        """How many of up to `ranks` ranks the node's CPU, memory and disk hold."""
        room = self._capacity.rooms[node_id]
        while ranks and not _serves(room, node_share(self._demand, ranks)):
            ranks -= 1
        return ranks

    def _accepts(self, node_id: str) -> bool:
        if node_id in self._avoid:
            return False
        return not self._selective or _selected(self._capacity.rooms[node_id], self._demand)

    def _take(
        self, node_id: str, device_class: DeviceClass, *, ranks: int, part: int = WHOLE
    ) -> Spot:
        pool = self._capacity.rooms[node_id].pool(device_class)
        thousandths = self._demand.thousandths
        if thousandths == WHOLE:
            ids = tuple(islice(pool.device_ids, ranks * self._unit))
        else:
            ids = (pool.device_with(thousandths, step=part),)
        return Spot(node_id, device_class.type, ids, ranks, thousandths)


def _most_first(entry: tuple[int, str, DeviceClass]) -> int:
    return -entry[0]


def _selected(room: Room, demand: Demand) -> bool:
    return all(label in room.labels for label in demand.labels)


def _serves(room: Room, share: NodeShare) -> bool:
    return (
        share.cpu_count <= room.cpu_count
        and share.memory_bytes <= room.memory_bytes
        and share.disk_bytes <= room.disk_bytes
    )


def _holds(exact: Exact, form: Form, *, need: Need) -> bool:
    return (
        need.cpu_count <= exact.cpu_count
        and need.memory_bytes <= exact.memory_bytes
        and need.disk_bytes <= exact.disk_bytes
        and (
            need.device_count <= form.look.whole_count
            or (bool(exact.parts) and need.thousandths <= exact.parts[-1])
        )
    )


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
    if not any(demand.accepts(one.type) for one in total.classes):
        return _of_instances(demand)
    steps: list[tuple[str, dict[str, object]]] = [
        ("gpu_memory_gb", {"device_memory_bytes": demand.device_memory_bytes}),
        ("node_selector", {"node_selector": demand.node_selector}),
        (
            "gpu_count",
            {"device_count": demand.device_count, "world_size": demand.world_size},
        ),
        ("node_count", {"node_count": demand.node_count}),
        ("within", {"within": demand.within}),
        ("cpu_count", {"cpu_count": demand.cpu_count}),
        ("memory_gb", {"memory_bytes": demand.memory_bytes}),
    ]
    for name, more in steps:
        before, asked = asked, replace(asked, **more)  # type: ignore[arg-type]
        if place(total, asked) is None:
            if name == "node_selector":
                return _of_labels(total, before, wanted=demand.node_selector)
            return Misfit(f"resource_config.{name}", _largest(total, name, demand=demand))
    return Misfit("resource_config.disk_gb", _largest(total, "disk_gb", demand=demand))


def _of_instances(demand: Demand) -> Misfit:
    if demand.thousandths < WHOLE:
        text = "all fitting devices are instances of partitioned GPUs (MIG), which are given whole"
        return Misfit("resource_config.gpu_fraction", text)
    text = "all fitting devices are instances of partitioned GPUs (MIG), of which a process can use one"
    field = "training_config.framework.distributed.world_size"
    return Misfit(field, f"{text}: ask for one rank per device")


def _of_labels(total: Capacity, asked: Demand, *, wanted: Pairs) -> Misfit:
    """Names the first label that no node has that could take what is asked for, and what there is of it."""
    lacking = (one for one in wanted if place(total, replace(asked, node_selector=(one,))) is None)
    label = next(lacking, None)
    if label == RUNS_CONTAINERS:
        text = "no known node with fitting devices runs containers; without an image it is a process of a node"
        return Misfit("resource_config.image", text)
    field = "resource_config.node_selector"
    if label is None:
        text = (
            "no known node with fitting devices carries all of these labels, though each is carried"
        )
        return Misfit(field, text)
    name, value = label
    known = sorted(
        {have for room in total.rooms.values() for key, have in room.labels if key == name}
    )
    some = ", ".join(known[:MOST_NAMED_VALUES]) + (", …" if len(known) > MOST_NAMED_VALUES else "")
    text = f"no known node with fitting devices carries {name}={value}"
    return Misfit(field, f"{text}; values of {name} on known nodes: {some or 'none'}")


def _types(total: Capacity) -> str:
    known = ", ".join(
        f"{name} ({total.devices_by_type[name]})" for name in sorted(total.devices_by_type)
    )
    return f"no known node has such devices; known types and their numbers: {known}"


def _largest(total: Capacity, name: str, *, demand: Demand) -> str:
    classes = [one for one in total.classes if demand.accepts(one.type)]
    if name == "gpu_memory_gb":
        most = max(one.memory_bytes for one in classes)
        return f"the largest fitting device has {most / 1e9:g} GB"
    if name == "within":
        return "no nodes that carry the same value of this label have room for all of it together"
    if name in ("gpu_count", "node_count"):
        nodes = [total.shelf(one, ()) for one in classes]
        most_per_node = max(max(shelf.node_counts) for shelf in nodes)
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
