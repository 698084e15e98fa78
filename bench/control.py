"""What people notice: cancels, drains, lists and submits with a long queue; memory with it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.dispatch import Moments, moments
from bench.messages import submit_request
from bench.programs import COORDINATOR, Coordinator, Loader
from bench.report import Figure, Row, Target, in_turn, quantile
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.waiting import until

QUEUED = 10_000
SUBMITS = 1_000
CANCELS = 40
DRAINS = 40
ROUNDS = 3
MIB = 1 << 20
# Says that it runs, and then when the signal came.
PROGRAM = """
    #!/bin/bash
    trap 'echo "$EPOCHREALTIME" > "$1"; exit 0' TERM
    echo 0 > "$1"
    sleep 600 &
    wait
    """


def rows() -> list[Row]:
    """A small cluster first, then a long queue."""
    return [*_signals(), *_long_queue()]


def _signals() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, Cluster(Path(folder) / "data") as cluster:
        path = Path(folder) / "moments"
        with moments(path) as pipe:
            program = jobs.script(Path(folder), "wait.sh", PROGRAM)
            body = jobs.body(program, args=str(path))
            cancels = [_cancel(cluster, body, pipe) for _ in range(CANCELS)]
        drains = [_drain(cluster) for _ in range(DRAINS)]
    return [
        Row(
            "Cancel → SIGTERM received, p50",
            Figure(quantile(cancels, 0.5) * 1000, "ms"),
            target=Target(7.5, 3.75, at_most=True, of_ratio=False, unit="ms"),
        ),
        Row(
            "Drain call → visible, p50",
            Figure(quantile(drains, 0.5) * 1000, "ms"),
            target=Target(11, 5.5, at_most=True, of_ratio=False, unit="ms"),
        ),
    ]


def _cancel(cluster: Cluster, body: dict[str, object], pipe: Moments) -> float:
    job_id = cluster.client.submit(body).job_id
    pipe.next()
    jobs.reaches(cluster.client, job_id, "TRAINING")
    began = time.time()
    cluster.client.cancel(job_id)
    took = pipe.next() - began
    until(lambda: cluster.client.cluster().free_devices, "its device is free")
    return took


def _drain(cluster: Cluster) -> float:
    client = cluster.client
    (node,) = client.nodes()
    began = time.perf_counter()
    client.drain(node.node_id)
    while not client.node(node.node_id).drain_requested:
        pass
    took = time.perf_counter() - began
    client.enable(node.node_id)
    return took


def _long_queue() -> list[Row]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Loader() as loader,
        Coordinator(Path(folder) / "long") as long,
    ):
        request = submit_request()
        long.join()
        before = long.rss_bytes
        long.fill(loader, request, QUEUED)
        after = long.rss_bytes
        first_page = loader.grpc(
            long.address,
            f"{COORDINATOR}/ListJobs",
            api.ListJobsRequest(),
            key=long.key,
            seconds=1.0,
        )
        flat = _flatness(Path(folder), loader, long)
    kib = (after - before) / QUEUED / 1024
    return [
        flat,
        Row(
            "First page of a list with 10,000 queued, p50",
            Figure(first_page["p50_ms"], "ms"),
            target=Target(10, 4, at_most=True, of_ratio=False, unit="ms"),
        ),
        Row(
            "Memory of the coordinator at 10,000 queued",
            Figure(after / MIB, "MiB"),
            target=Target(150, 90, at_most=True, of_ratio=False, unit="MiB"),
        ),
        Row("… per queued job", Figure(kib, "KiB")),
    ]


def _flatness(folder: Path, loader: Loader, long: Coordinator) -> Row:
    request = submit_request()

    def submit(one: Coordinator) -> float:
        return loader.grpc(
            one.address,
            f"{COORDINATOR}/SubmitJob",
            request,
            key=one.key,
            concurrency=16,
            seconds=60,
            count=SUBMITS,
        )["per_s"]

    with Coordinator(folder / "short") as short:
        short.join()
        ours, empty = in_turn((lambda: submit(long), lambda: submit(short)), rounds=ROUNDS)
    name = f"Submits, c=16, with {QUEUED:,} queued; with few queued"
    return Row(name, Figure(ours, "/s"), Figure(empty, "/s"), Target(0.9, 0.97))
