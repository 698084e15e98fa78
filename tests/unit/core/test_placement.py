"""Placement finds room exactly where there is room; a slow search says whether there is."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.capacity import Capacity
from coordinator.core.near import MOST_HOLDERS, Near
from coordinator.core.placement import (
    Placement,
    misfit,
    need_of,
    node_share,
    place,
    rank_count,
)
from coordinator.core.records import IDLE, Demand
from coordinator.core.room import DeviceClass, Pool, Room

ROOMS = st.lists(
    st.builds(
        lambda kind, count, cpus, zone: Room(
            labels=(("zone", zone), *([IDLE] if cpus % 2 else [])),
            pools=(Pool(DeviceClass(kind, 80), tuple(f"d{index}" for index in range(count))),),
            cpu_count=cpus,
            memory_bytes=100,
            disk_bytes=100,
        ),
        st.sampled_from(("A100", "H100")),
        st.integers(1, 8),
        st.integers(0, 16),
        st.sampled_from("ab"),
    ),
    max_size=5,
)
DEMANDS = st.builds(
    lambda ranks, unit, nodes, kind, cpus, zone, within, exclusive: Demand(
        device_count=ranks * unit,
        world_size=ranks,
        node_count=nodes if nodes and ranks % nodes == 0 else 0,
        device_type=kind,
        cpu_count=cpus,
        node_selector=(("zone", zone),) if zone else (),
        within=within,
        exclusive=exclusive,
    ),
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from(("", "A100", "H100", "A100|H100", "B200|H100")),
    st.sampled_from((0, 0, 5, 12)),
    st.sampled_from(("", "a")),
    st.sampled_from(("", "", "zone", "rack")),
    st.sampled_from((False, False, True)),
)


def capacity_of(rooms: list[Room]) -> Capacity:
    capacity = Capacity()
    for number, room in enumerate(rooms):
        capacity.put(f"n{number}", room)
    return capacity


def most_ranks(room: Room, demand: Demand) -> int:
    """How many ranks fit on a node, by trying."""
    if any(label not in room.labels for label in demand.labels):
        return 0
    devices = len(room.pools[0][1])
    for ranks in range(devices // demand.devices_per_rank, 0, -1):
        if node_share(demand, ranks).cpu_count <= room.cpu_count:
            return ranks
    return 0


def fewest_nodes(rooms: list[Room], demand: Demand) -> int | None:
    """The least number of nodes that hold the gang, by trying all sets of them; None for none."""
    if demand.within:
        places = sorted(
            {value for room in rooms for key, value in room.labels if key == demand.within}
        )
        close = [[room for room in rooms if (demand.within, one) in room.labels] for one in places]
        found = [fewest_nodes(one, replace(demand, within="")) for one in close]
        return min((one for one in found if one is not None), default=None)
    total = rank_count(demand)
    best: int | None = None
    for kind in ("A100", "H100"):
        if demand.device_types and kind not in demand.device_types:
            continue
        most = [most_ranks(r, demand) for r in rooms if r.pools[0][0].type == kind]
        for size in range(1, len(most) + 1):
            if demand.node_count not in (0, size):
                continue
            each = total // size
            for chosen in combinations(most, size):
                least = each if demand.node_count else 1
                enough = min(chosen) >= least and sum(chosen) >= total
                if enough and (best is None or size < best):
                    best = size
    return best


@settings(max_examples=400)
@given(ROOMS, DEMANDS)
def test_a_gang_is_placed_exactly_where_a_slow_search_finds_room(
    rooms: list[Room], demand: Demand
) -> None:
    found = place(capacity_of(rooms), demand)
    fewest = fewest_nodes(rooms, demand)
    assert (found is None) == (fewest is None)
    if found is not None and fewest is not None:
        assert len(found) == fewest or (demand.cpu_count and len(found) > fewest)
        check(found, rooms, demand=demand)
        zones = [dict(rooms[int(spot.node_id[1:])].labels).get("zone") for spot in found]
        close = fewest_nodes(rooms, replace(demand, within="zone"))
        if close == len(found) and not demand.cpu_count:
            assert len(set(zones)) == 1, "it is kept together where that takes no more nodes"


def check(found: Placement, rooms: list[Room], *, demand: Demand) -> None:
    """All devices, whole ranks, one type, each node once and with room enough."""
    assert sum(len(spot.device_ids) for spot in found) == demand.device_count
    assert sum(spot.rank_count for spot in found) == rank_count(demand)
    assert len({spot.device_type for spot in found}) == 1
    assert [spot.node_id for spot in found] == sorted({spot.node_id for spot in found})
    if demand.node_count:
        assert len({spot.rank_count for spot in found}) == 1
    for spot in found:
        room = rooms[int(spot.node_id[1:])]
        assert set(spot.device_ids) <= set(room.pools[0][1])
        assert len(spot.device_ids) == spot.rank_count * demand.devices_per_rank
        assert node_share(demand, spot.rank_count).cpu_count <= room.cpu_count


@given(ROOMS, DEMANDS)
def test_what_never_fits_is_told_which_field_is_at_fault(rooms: list[Room], demand: Demand) -> None:
    fault = misfit(capacity_of(rooms), demand)
    assert (fault is not None) == (bool(rooms) and fewest_nodes(rooms, demand) is None)
    if fault is not None:
        assert fault.field.startswith("resource_config.")
        assert fault.message


@given(ROOMS, ROOMS)
def test_rooms_that_come_and_go_leave_no_trace(rooms: list[Room], others: list[Room]) -> None:
    capacity = capacity_of(rooms)
    for number, room in enumerate(others):
        capacity.put(f"n{number}", room)
    for number in range(max(len(rooms), len(others))):
        capacity.put(f"n{number}", None)
    assert not capacity.shelves
    assert not capacity.classes
    assert not capacity.devices_by_type
    assert not capacity.rooms


def test_the_node_to_avoid_is_taken_only_when_nothing_else_fits() -> None:
    room = Room((), (Pool(DeviceClass("H100", 80), ("d0", "d1")),), 0, 0, 0)
    capacity = capacity_of([room, room])
    one, all_of_them = Demand(device_count=2), Demand(device_count=4)
    assert [s.node_id for s in place(capacity, one, avoid="n0") or ()] == ["n1"]
    assert [s.node_id for s in place(capacity, all_of_them, avoid="n0") or ()] == ["n0", "n1"]


def test_the_smallest_memory_that_is_enough_is_taken_first() -> None:
    small = Room((), (Pool(DeviceClass("A100", 40), ("s0",)),), 0, 0, 0)
    large = Room((), (Pool(DeviceClass("A100", 80), ("l0",)),), 0, 0, 0)
    capacity = capacity_of([large, small])
    found = place(capacity, Demand(device_count=1))
    assert found is not None
    assert found[0].device_ids == ("s0",)
    found = place(capacity, Demand(device_count=1, device_memory_bytes=60))
    assert found is not None
    assert found[0].device_ids == ("l0",)


@given(ROOMS, DEMANDS, st.permutations([f"n{number}" for number in range(5)]), st.integers(0, 5))
def test_what_is_near_changes_neither_whether_there_is_room_nor_how_good_it_is(
    rooms: list[Room], demand: Demand, order: list[str], count: int
) -> None:
    capacity = capacity_of(rooms)
    plain, near = place(capacity, demand), place(capacity, demand, near=tuple(order[:count]))
    assert (plain is None) == (near is None)
    if plain is None or near is None:
        return
    assert (len(plain), plain[0].device_type) == (len(near), near[0].device_type)
    if len(plain) == 1:
        assert _harm(capacity, demand, plain) == _harm(capacity, demand, near)


def _harm(capacity: Capacity, demand: Demand, found: Placement) -> int:
    """How much more fragmented the cluster gets by a job on one node."""
    need = need_of(demand, rank_count(demand))
    room = capacity.rooms[found[0].node_id]
    (pool,) = room.pools
    filed = capacity.where(found[0].node_id, pool.device_class)
    assert filed is not None
    return capacity.fragments.growth(pool.device_class, filed[0], need=need).amount


def test_of_nodes_that_suit_equally_the_one_that_holds_the_data_is_taken() -> None:
    def room(count: int) -> Room:
        devices = tuple(f"d{index}" for index in range(count))
        return Room((), (Pool(DeviceClass("H100", 80), devices),), 0, 0, 0)

    capacity = capacity_of([room(4), room(4), room(4)])
    one, gang = Demand(device_count=4), Demand(device_count=8, node_count=2)
    assert [s.node_id for s in place(capacity, one) or ()] == ["n0"]
    assert [s.node_id for s in place(capacity, one, near=("n2", "n1")) or ()] == ["n2"]
    assert [s.node_id for s in place(capacity, gang, near=("n2",)) or ()] == ["n0", "n2"]
    assert [s.node_id for s in place(capacity, one, near=("n2",), avoid="n2") or ()] == ["n0"]
    assert [s.node_id for s in place(capacity, one, near=("gone",)) or ()] == ["n0"]


def test_who_holds_most_is_nearest_and_what_all_hold_brings_nobody_nearer() -> None:
    near = Near()
    near.put("a", {"x": 0})
    near.put("b", {"x": 0, "y": 0})
    assert near.of(["x", "y", "z"]) == ("b", "a")
    near.put("b", {"y": 0})
    assert near.of(["x"]) == ("a",)
    near.put("a", {})
    near.put("b", {})
    assert near.of(["x", "y"]) == ()
    for number in range(MOST_HOLDERS + 1):
        held = ["common", "rare"] if number == 7 else ["common"]
        near.put(f"n{number}", dict.fromkeys(held, 1))
    assert near.of(["common"]) == ()
    assert near.of(["common", "rare"]) == ("n7",)


def test_bytes_count_for_more_than_things() -> None:
    near = Near()
    near.put("many", {"x": 10, "y": 10, "z": 10})
    near.put("large", {"x": 10, "corpus": 1000})
    assert near.of(["x", "y", "z", "corpus"]) == ("large", "many")
    assert near.of(["x", "y"]) == ("many", "large")
