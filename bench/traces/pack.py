"""FGD's packing test through the real core's placement: how much of a cluster can be given away?

Jobs come in random order, nothing ever leaves, and the list is extended by resampling to 130 % of the
devices (Weng et al., USENIX ATC 2023). Read is how much is given away when so much was asked for. A job
that asks for no device runs beside the others: each node has room for such jobs as far as its CPUs and its
memory go. Amounts of CPU are in thousandths of a core, as the rows have them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.core.capacity import Capacity
from coordinator.core.mix import fragments_of, learnt
from coordinator.core.placement import Placement, node_share, place
from coordinator.core.records import WHOLE, Demand, Mix
from coordinator.core.room import DeviceClass, Pool, Room

GIB = 1 << 30
SCALE = 1_000  # thousandths of a core
HOST = DeviceClass("none", 0)  # what jobs without devices take a part of
HOST_SHARE = 1  # thousandths: a thousand such jobs find room on one node
MARKS = (80, 90, 95, 100, 110, 120, 130)
FIRST_SEED = 42
REACH = 1.3


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


def cluster(rows: Sequence[dict[str, str]]) -> dict[str, Room]:
    """The nodes, empty."""
    return {row["node"]: _room(row) for row in rows}


def _room(row: dict[str, str]) -> Room:
    ids = tuple(f"{row['node']}/{index}" for index in range(int(row["gpus"])))
    pools = [Pool(DeviceClass(row["gpu_type"], 0), ids)] if ids else []
    return Room(
        labels=(),
        pools=tuple(sorted([*pools, Pool(HOST, (f"{row['node']}/host",))])),
        cpu_count=round(float(row["cpus"]) * SCALE),
        memory_bytes=int(float(row["mem_gb"]) * GIB),
        disk_bytes=0,
    )


def demand_of(row: dict[str, str], *, any_type: str, typed: bool) -> tuple[Demand, int]:
    """What a row asks for, and how many thousandths of devices that is."""
    asked = round(float(row["gpus"]) * WHOLE)
    device_type = row["gpu_type"] if typed and row["gpu_type"] else any_type
    count = -(-asked // WHOLE)
    demand = Demand(
        device_count=max(1, count),
        thousandths=asked if 0 < asked < WHOLE else WHOLE if asked else HOST_SHARE,
        device_type=device_type if asked else HOST.type,
        node_count=1,
        cpu_count=round(float(row["cpus"]) * SCALE),
        memory_bytes=int(float(row["mem_gb"]) * GIB),
    )
    return demand, asked


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
    left = REACH * total - sum(asked for _, asked in stream)
    while left > 0:
        stream.append(rng.choice(jobs))
        left -= stream[-1][1]
    came = given = 0
    marks, seen = list(MARKS), {}
    for demand, asked in stream:
        came += asked
        given += asked * packing.submit(demand)
        while marks and came * 100 >= marks[0] * total:
            seen[marks.pop(0)] = 100 * given / total
    return seen, packing


def main(args: argparse.Namespace) -> int:
    """Packs with each seed and prints the means."""
    rows = {path: list(_rows(path)) for path in (args.jobs, args.nodes_file)}
    rooms = cluster(rows[args.nodes_file])
    any_type = "|".join(sorted({row["gpu_type"] for row in rows[args.nodes_file]}))
    jobs = [
        demand_of(row, any_type=any_type, typed=args.gpu_type)
        for row in rows[args.jobs]
        if float(row["gpus"] or 0) <= 1 or float(row["gpus"]).is_integer()
    ]
    found: list[dict[int, float]] = []
    spent_s, places = 0.0, 0
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        seen, packing = run(jobs, rooms, seed=seed)
        found.append(seen)
        spent_s += packing.place_s
        places += packing.places
    means = {mark: sum(seen[mark] for seen in found) / len(found) for mark in found[0]}
    result: dict[str, object] = {
        f"allocation_at_{mark}_pct": round(value, 2) for mark, value in means.items()
    }
    result |= {
        "allocation_at_100_of_seeds": [round(seen[100], 2) for seen in found],
        "gpu_types": bool(args.gpu_type),
        "jobs": places // len(found),
        "nodes": len(rooms),
        "place_ms": round(1000 * spent_s / places, 4),
    }
    if args.json:
        print(json.dumps(result))
    else:
        print("\n".join(f"{name:28} {value}" for name, value in result.items()))
    return 0


def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.traces.pack", description=__doc__)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("nodes_file", type=Path)
    parser.add_argument("--gpu-type", action="store_true", help="heed device types")
    parser.add_argument("--seeds", type=int, default=10, help="mean of so many")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main(_arguments()))
