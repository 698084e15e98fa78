"""Recorded workloads: jobs and nodes from gzip CSV files, as the core would be told of them.

    jobs : job_id,submit_s,duration_s,gpus,cpus,mem_gb,gpu_type,user_or_vc,status
    nodes: node,gpus,gpu_type,cpus,mem_gb

A job that fits on one node asks for one node. A larger one is a gang: whole nodes where its devices
divide into them, else as few nodes as fit.
"""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.core.records import Demand, Device, Offer

GIB = 1 << 30
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

    @property
    def device_count(self) -> int:
        """Devices of the whole cluster."""
        return sum(len(offer.devices) for offer in self.nodes.values())


def read(jobs: Path, nodes: Path, *, node_count: int = 0) -> Workload:
    """Reads both files; `node_count` takes the first so many nodes, 0 is all. Raises ValueError."""
    offers = {row["node"]: _offer(row) for row in _rows(nodes)}
    if node_count:
        offers = dict(list(offers.items())[:node_count])
    workload = Workload(nodes=offers)
    largest = max((len(offer.devices) for offer in offers.values()), default=0)
    if not largest:
        raise ValueError(f"{nodes.name} names no node with devices")
    types = {device.type for offer in offers.values() for device in offer.devices}
    for row in _rows(jobs):
        _take(workload, row, largest=largest, types=types)
    workload.jobs.sort(key=lambda job: job.submit_ms)
    return workload


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _offer(row: dict[str, str]) -> Offer:
    name = row["node"]
    return Offer(
        devices=tuple(
            Device(device_id=f"{name}/{index}", index=index, type=row["gpu_type"] or "GPU")
            for index in range(int(row["gpus"]))
        ),
        cpu_count=int(float(row["cpus"] or 0)),
        memory_bytes=int(float(row["mem_gb"] or 0) * GIB),
    )


def _take(workload: Workload, row: dict[str, str], *, largest: int, types: set[str]) -> None:
    asked = float(row["gpus"] or 0)
    if asked <= 0:
        workload.no_devices += 1
        return
    if not row["duration_s"]:
        workload.no_duration += 1
        return
    count = math.ceil(asked)
    workload.rounded_up += asked != count
    workload.jobs.append(
        TraceJob(
            job_id=f"job-{row['job_id']}",
            submit_ms=round(float(row["submit_s"]) * 1000),
            duration_ms=max(1, round(float(row["duration_s"]) * 1000)),
            demand=_demand(row, count=count, largest=largest, types=types),
            user=row["user_or_vc"] or "nobody",
        )
    )


def _demand(row: dict[str, str], *, count: int, largest: int, types: set[str]) -> Demand:
    on_whole_nodes = 0 if count % largest else count // largest
    node_count = 1 if count <= largest else on_whole_nodes
    return Demand(
        device_count=count,
        device_type=row["gpu_type"] if row["gpu_type"] in types else ANY_TYPE,
        node_count=node_count,
        cpu_count=math.ceil(float(row["cpus"] or 0)),
        memory_bytes=int(float(row["mem_gb"] or 0) * GIB),
    )
