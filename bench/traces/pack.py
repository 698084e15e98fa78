"""FGD's packing test through the real core's placement: how much of a cluster can be given away?

Jobs come in random order, nothing ever leaves, and the list is extended by resampling to 130 % of the
devices (Weng et al., USENIX ATC 2023). Read is how much is given away when so much was asked for. A job
that asks for no device runs beside the others: each node has room for such jobs as far as its CPUs and its
memory go.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.traces.rows import NO_TYPE, Machine, Row, machines, rows
from coordinator.core.capacity import Capacity
from coordinator.core.mix import fragments_of, learnt
from coordinator.core.placement import Placement, node_share, place
from coordinator.core.records import WHOLE, Demand, Mix
from coordinator.core.room import DeviceClass, Pool, Room

HOST = DeviceClass("none", 0)  # what jobs without devices take a part of
HOST_SHARE = 1  # thousandths: a thousand such jobs find room on one node
MARKS = (80, 90, 95, 100, 110, 120, 130)
FIRST_SEED = 42


@dataclass(slots=True)
class Packing:
    """A cluster that fills up."""

    free: Capacity = field(default_factory=Capacity)
    total: Capacity = field(default_factory=Capacity)
    mix: Mix = field(default_factory=Mix)
    recent: list[Demand] = field(default_factory=list)
    place_s: float = 0.0
    places: int = 0

    def add(self, node_id: str, room: Room) -> None:
        """A node that is empty."""
        self.free.put(node_id, room)
        self.total.put(node_id, room)

    def submit(self, demand: Demand) -> bool:
        """Whether the job finds room."""
        self.recent.append(demand)
        began = time.process_time()
        if len(self.recent) >= self.mix.due_count:
            self.mix = learnt(self.mix, self.recent, through_sequence=0)
            self.recent.clear()
            self.free.fragments = fragments_of(self.mix, self.total)
        found = place(self.free, demand)
        self.place_s += time.process_time() - began
        self.places += 1
        if found is not None:
            self._take(found, demand)
        return found is not None

    def _take(self, found: Placement, demand: Demand) -> None:
        for spot in found:
            room = self.free.rooms[spot.node_id]
            share = node_share(demand, spot.rank_count)
            pools = tuple(
                _less(pool, spot.device_ids, demand.thousandths)
                if pool.device_class.type == spot.device_type
                else pool
                for pool in room.pools
            )
            after = Room(
                labels=room.labels,
                pools=tuple(pool for pool in pools if pool.device_ids or pool.parts),
                cpu_count=room.cpu_count - share.cpu_count,
                memory_bytes=room.memory_bytes - share.memory_bytes,
                disk_bytes=room.disk_bytes,
            )
            self.free.put(spot.node_id, after)


def _less(pool: Pool, device_ids: Sequence[str], thousandths: int) -> Pool:
    """What is left of a pool."""
    free = {device_id: part for part, device_id in pool.parts}
    for device_id in device_ids:
        free[device_id] = free.get(device_id, WHOLE) - thousandths
    parts = sorted((part, device_id) for device_id, part in free.items() if part)
    whole = tuple(device_id for device_id in pool.device_ids if device_id not in free)
    return Pool(pool.device_class, whole, tuple(parts))


def cluster(nodes: Sequence[Machine]) -> dict[str, Room]:
    """The nodes, empty."""
    return {machine.name: _room(machine) for machine in nodes}


def _room(machine: Machine) -> Room:
    ids = tuple(f"{machine.name}/{index}" for index in range(machine.device_count))
    pools = [Pool(DeviceClass(machine.device_type, 0), ids)] if ids else []
    return Room(
        labels=(),
        pools=tuple(sorted([*pools, Pool(HOST, (f"{machine.name}/host",))])),
        cpu_count=machine.cpu_milli,
        memory_bytes=machine.memory_bytes,
        disk_bytes=0,
    )


def demand_of(row: Row, *, asked: int, any_type: str, typed: bool) -> Demand:
    """What a row asks for that asks for so many thousandths of devices."""
    device_type = "|".join(row.types) if typed else ""
    return Demand(
        device_count=max(1, -(-asked // WHOLE)),
        thousandths=asked if 0 < asked < WHOLE else WHOLE if asked else HOST_SHARE,
        device_type=(device_type or any_type) if asked else HOST.type,
        node_count=1,
        cpu_count=row.cpu_milli or 0,
        memory_bytes=row.memory_bytes or 0,
    )


def run(
    jobs: Sequence[tuple[Demand, int]], rooms: dict[str, Room], *, seed: int
) -> tuple[dict[int, float], Packing]:
    """Percent of the devices given away at each mark."""
    rng = random.Random(seed)
    packing = Packing()
    for node_id, room in rooms.items():
        packing.add(node_id, room)
    device_count = sum(
        len(pool.device_ids) for room in rooms.values() for pool in room.pools
    ) - len(rooms)
    total = device_count * WHOLE
    stream = list(jobs)
    rng.shuffle(stream)
    left = MARKS[-1] * total - 100 * sum(asked for _, asked in stream)
    while left > 0:
        stream.append(rng.choice(jobs))
        left -= 100 * stream[-1][1]
    came = given = 0
    marks, seen = list(MARKS), {}
    for demand, asked in stream:
        came += asked
        given += asked * packing.submit(demand)
        while marks and came * 100 >= marks[0] * total:
            seen[marks.pop(0)] = 100 * given / total
    return seen, packing


def read(
    jobs: Path, nodes: Path, *, node_count: int, typed: bool
) -> tuple[list[tuple[Demand, int]], dict[str, Room]]:
    """Demands, each with the thousandths of devices that it is, and the nodes.

    Raises ValueError, which names file, line and field, and OSError.
    """
    found = machines(nodes, count=node_count)
    types = {machine.device_type for machine in found}
    if typed and types == {NO_TYPE}:
        print("no node says of what type its devices are: types are not heeded", file=sys.stderr)
        typed = False
    return _jobs(jobs, any_type="|".join(sorted(types)), typed=typed), cluster(found)


def figures(
    jobs: Sequence[tuple[Demand, int]], rooms: dict[str, Room], *, typed: bool, seeds: int
) -> dict[str, object]:
    """The means of so many seeds."""
    marks: list[dict[int, float]] = []
    spent_s, places = 0.0, 0
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        seen, packing = run(jobs, rooms, seed=seed)
        print(f"seed {seed}: {seen[100]:.2f} % at 100 %", file=sys.stderr, flush=True)
        marks.append(seen)
        spent_s += packing.place_s
        places += packing.places
    means = {mark: sum(seen[mark] for seen in marks) / seeds for mark in MARKS}
    result: dict[str, object] = {
        f"allocation_at_{mark}_pct": round(value, 2) for mark, value in means.items()
    }
    return result | {
        "allocation_at_100_of_seeds": [round(seen[100], 2) for seen in marks],
        "gpu_types": typed,
        "jobs": places // seeds,
        "nodes": len(rooms),
        "place_ms": round(1000 * spent_s / places, 4),
    }


def _jobs(path: Path, *, any_type: str, typed: bool) -> list[tuple[Demand, int]]:
    """What rows ask for, and how many thousandths of devices that is."""
    found: list[tuple[Demand, int]] = []
    left_out = 0
    for row in rows(path, required=("gpus",)):
        gpus = row.number("gpus")
        if gpus is None or (gpus > 1 and not gpus.is_integer()):
            left_out += 1
            continue
        asked = round(gpus * WHOLE) or (1 if gpus else 0)
        demand = demand_of(row, asked=asked, any_type=any_type, typed=typed)
        found.append((demand, asked))
    if left_out:
        what = (
            "were left out: they do not say how many devices, or ask for a part beside whole ones"
        )
        print(f"{left_out} rows {what}", file=sys.stderr)
    if not any(asked for _, asked in found):
        raise ValueError(f"{path.name}, gpus: no job asks for any")
    return found
