"""Recorded workloads as the core would be told of them.

A job that fits on one node asks for one node. A larger one is a gang: whole nodes where its devices
divide into them, else as few nodes as fit. By that nodes are meant that have a type which the job accepts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.traces.rows import MOST, Machine, Row, machines, rows
from coordinator.core.records import Demand, Device, Offer

ANY_TYPE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """One row: what is asked for, when, and how long it runs where nothing disturbs it."""

    job_id: str
    submit_ms: int  # since the trace's own zero
    duration_ms: int
    demand: Demand
    user: str


@dataclass(slots=True)
class Workload:
    """A cluster and its jobs in the order of their submission; and what of the rows was left out."""

    nodes: dict[str, Offer]
    jobs: list[TraceJob] = field(default_factory=list)
    rounded_up: int = 0  # rows that asked for a part of a device
    no_devices: int = 0  # rows left out: they ask for none
    no_duration: int = 0  # rows left out: they never ran
    no_submit: int = 0  # rows left out: nobody knows when they came
    no_such_type: int = 0  # rows that accept only types of which there are no devices

    @property
    def device_count(self) -> int:
        """Devices of the whole cluster."""
        return sum(len(offer.devices) for offer in self.nodes.values())


def read(jobs: Path, nodes: Path, *, node_count: int = 0) -> Workload:
    """Reads both files; `node_count` takes the first so many nodes, 0 is all.

    Raises ValueError, which names file, line and field, and OSError.
    """
    found = machines(nodes, count=node_count)
    workload = Workload(nodes={machine.name: _offer(machine) for machine in found})
    sizes: dict[str, Counter[int]] = {}
    for machine in found:
        if machine.device_count:
            sizes.setdefault(machine.device_type, Counter())[machine.device_count] += 1
    for row in rows(jobs, required=("submit_s", "duration_s", "gpus")):
        _take(workload, row, sizes=sizes)
    workload.jobs.sort(key=lambda job: job.submit_ms)
    return workload


def _offer(machine: Machine) -> Offer:
    name = machine.name
    return Offer(
        devices=tuple(
            Device(device_id=f"{name}/{index}", index=index, type=machine.device_type)
            for index in range(machine.device_count)
        ),
        cpu_count=machine.cpu_milli,
        memory_bytes=machine.memory_bytes,
    )


def _take(workload: Workload, row: Row, *, sizes: dict[str, Counter[int]]) -> None:
    asked = row.number("gpus")
    submit_s, duration_s = row.number("submit_s", least=-MOST), row.number("duration_s")
    if not asked:
        workload.no_devices += 1
    elif duration_s is None:
        workload.no_duration += 1
    elif submit_s is None:
        workload.no_submit += 1
    else:
        count = math.ceil(asked)
        workload.rounded_up += asked != count
        accepted = [one for one in row.types if one in sizes]
        workload.no_such_type += bool(row.types and not accepted)
        workload.jobs.append(
            TraceJob(
                job_id=f"job-{row.line}",
                submit_ms=round(submit_s * 1000),
                duration_ms=max(1, round(duration_s * 1000)),
                demand=_demand(row, count=count, types=accepted, sizes=sizes),
                user=row.text("user_or_vc") or "nobody",
            )
        )


def _demand(
    row: Row, *, count: int, types: Sequence[str], sizes: dict[str, Counter[int]]
) -> Demand:
    return Demand(
        device_count=count,
        device_type="|".join(types) or ANY_TYPE,
        node_count=_node_count(count, [sizes[one] for one in types or sizes]),
        cpu_count=row.cpu_milli or 0,
        memory_bytes=row.memory_bytes or 0,
    )


def _node_count(count: int, sizes: Sequence[Counter[int]]) -> int:
    """On how many nodes a job is to be put; 0 is as few as fit. `sizes`: nodes by devices, of each type."""
    largest = max(max(one) for one in sizes)
    if count <= largest:
        return 1
    whole_nodes, rest = divmod(count, largest)
    return 0 if rest or whole_nodes > max(one[largest] for one in sizes) else whole_nodes
