"""A batch of 1,000 jobs in one call, durable, against a bare server that writes a row for each of them; the
same over REST. They differ as jobs of a sweep do."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from bench.messages import one_of_a_sweep
from bench.over_http import Gateway
from bench.programs import COORDINATOR, MODULE, Coordinator, GrpcFloor, Loader, http_request
from bench.report import Figure, Row, Target, in_turn
from scaimind.client.body import to_message
from scaimind.v1 import mind_coordinator_pb2 as api

JOBS = 1_000
ROUNDS, BATCHES = 3, 3
AT_MOST = Target(60, at_most=True, of_ratio=False, unit="ms")


def rows() -> list[Row]:
    """Batches over gRPC and over REST, one after the other; every job of about forty fields."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Coordinator(Path(folder) / "data") as coordinator,
        GrpcFloor(Path(folder)) as floor,
        Gateway(coordinator) as gateway,
        Loader() as loader,
    ):
        coordinator.join()
        jobs = [one_of_a_sweep(number) for number in range(JOBS)]
        request = to_message({"jobs": jobs}, api.BatchSubmitJobsRequest())
        body = json.dumps({"jobs": jobs}).encode()
        path, target, key = f"{MODULE}/jobs/batch", gateway.address, coordinator.key
        posted = http_request("POST", path, target=target, key=key, body=body)

        def over_grpc() -> float:
            path = f"{COORDINATOR}/BatchSubmitJobs"
            return loader.grpc(coordinator.address, path, request, key=key, count=BATCHES)["p50_ms"]

        def bare() -> float:
            return loader.grpc(floor.address, floor.path("Batch"), request, count=BATCHES)["p50_ms"]

        def over_rest() -> float:
            return loader.http(target, posted, count=BATCHES)["p50_ms"]

        grpc_ms, bare_ms, rest_ms = in_turn((over_grpc, bare, over_rest), rounds=ROUNDS)
    name = f"Batch of {JOBS:,} jobs, durable"
    return [
        Row(f"{name}, over gRPC, p50", Figure(grpc_ms, "ms"), Figure(bare_ms, "ms"), AT_MOST),
        Row(f"{name}, over REST, p50", Figure(rest_ms, "ms")),
    ]
