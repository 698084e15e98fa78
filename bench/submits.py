"""What a call costs over gRPC: durable submits and reads, against bare servers of the same messages."""

from __future__ import annotations

import tempfile
from pathlib import Path

from google.protobuf.message import Message

from bench.messages import one_of_a_sweep
from bench.programs import COORDINATOR, Coordinator, GrpcFloor, Loader
from bench.report import Figure, Row, Target, in_turn
from scaimind.client.body import to_message
from scaimind.v1 import mind_coordinator_pb2 as api

ROUNDS = 3
SECONDS = 1.0
SWEEP = 1_000  # jobs, that differ; after the last comes the first again


def rows() -> list[Row]:
    """Submits at three concurrencies against the echo and the durable floor, and reads."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Coordinator(Path(folder) / "data") as coordinator,
        GrpcFloor(Path(folder)) as floor,
        Loader() as loader,
    ):
        bench = _Bench(coordinator, floor, loader)
        found = [row for concurrency in (1, 16, 64) for row in bench.submits(concurrency)]
        return [*found, bench.reads()]


class _Bench:
    def __init__(self, coordinator: Coordinator, floor: GrpcFloor, loader: Loader) -> None:
        self._coordinator, self._floor, self._loader = coordinator, floor, loader
        bodies = map(one_of_a_sweep, range(SWEEP))
        self._submits = [to_message(body, api.SubmitJobRequest()) for body in bodies]
        coordinator.join()
        self._job_id = coordinator.client.submit(self._submits[0]).job_id
        floor.hold(coordinator.client.get_job(self._job_id))

    def submits(self, concurrency: int) -> list[Row]:
        what = "per_s" if concurrency > 1 else "p50_ms"
        unit = "/s" if concurrency > 1 else "ms"
        ours, durable, echo = in_turn(
            (
                lambda: self._ours("SubmitJob", concurrency, *self._submits)[what],
                lambda: self._bare("Durable", concurrency, *self._submits)[what],
                lambda: self._bare("Echo", concurrency, *self._submits)[what],
            ),
            rounds=ROUNDS,
        )
        targets = {1: Target(2.0, 1.4, at_most=True), 64: Target(0.5, 0.75)}
        name = f"SubmitJob over gRPC, c={concurrency}{', p50' if concurrency == 1 else ''}"
        figure = Figure(ours, unit)
        return [
            Row(
                f"{name}; bare call + durable row",
                figure,
                Figure(durable, unit),
                targets.get(concurrency),
            ),
            Row(f"{name}; bare echo", figure, Figure(echo, unit)),
        ]

    def reads(self) -> Row:
        request = api.GetJobRequest(job_id=self._job_id)
        ours, bare = in_turn(
            (
                lambda: self._ours("GetJob", 64, request)["per_s"],
                lambda: self._bare("Get", 64, request)["per_s"],
            ),
            rounds=ROUNDS,
        )
        name = "GetJob over gRPC, c=64; bare call of the same messages"
        return Row(name, Figure(ours, "/s"), Figure(bare, "/s"), Target(0.6, 0.85))

    def _ours(self, method: str, concurrency: int, *requests: Message) -> dict[str, float]:
        one = self._coordinator
        path = f"{COORDINATOR}/{method}"
        return self._loader.grpc(
            one.address, path, *requests, key=one.key, concurrency=concurrency, seconds=SECONDS
        )

    def _bare(self, method: str, concurrency: int, *requests: Message) -> dict[str, float]:
        path = self._floor.path(method)
        return self._loader.grpc(
            self._floor.address, path, *requests, concurrency=concurrency, seconds=SECONDS
        )
