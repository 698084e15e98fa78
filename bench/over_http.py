"""The gateway against a bare Starlette route that makes one bare gRPC call; its JSON against protobuf's."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from google.protobuf import json_format

from bench.messages import job_body, submit_request
from bench.programs import (
    COORDINATOR,
    MODULE,
    Coordinator,
    GrpcFloor,
    HttpFloor,
    Loader,
    Program,
    http_request,
)
from bench.report import Figure, Row, Target, in_turn
from gateway.faults import Faults, Place
from gateway.json_in import JsonReader, decode
from gateway.json_out import JsonWriter
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.support.ports import Port
from tests.support.waiting import until

ROUNDS = 3
SECONDS = 1.0
REPEAT = 2_000


def rows() -> list[Row]:
    """Reads and submits over REST, then JSON."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Coordinator(Path(folder) / "data") as coordinator,
        Gateway(coordinator) as gateway,
        GrpcFloor(Path(folder)) as bare,
        HttpFloor(bare.address) as floor,
        Loader() as loader,
    ):
        coordinator.join()
        job_id = coordinator.client.submit(submit_request()).job_id
        bare.hold(coordinator.client.get_job(job_id))
        bench = _Bench(loader, key=coordinator.key, ours=gateway.address, floor=floor.address)
        both = bench.both_ways(job_id, coordinator.address)
        found = [*bench.reads(job_id), both, *bench.submits()]
    return [*found, _json()]


class Gateway(Program):
    """A real gateway in front of a coordinator."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._port = Port()
        self.address = str(self._port)
        log = coordinator.folder / "gateway.log"
        secret = str(coordinator.folder / "gateway.secret")
        words = ("--http", self.address, "--coordinator", coordinator.address, "--no-rate-limits")
        super().__init__("gateway", *words, "--api-secret-file", secret, log=log)
        until(
            lambda: "gateway_started" in log.read_text(),
            lambda: f"the gateway listens\n{log.read_text()}",
        )


class _Bench:
    def __init__(self, loader: Loader, *, key: str, ours: str, floor: str) -> None:
        self._loader, self._key, self._ours, self._floor = loader, key, ours, floor

    def reads(self, job_id: str) -> list[Row]:
        path = f"/jobs/{job_id}"
        ours = http_request("GET", f"{MODULE}{path}", target=self._ours, key=self._key)
        floor = http_request("GET", path, target=self._floor)
        return self._rows("GET job over REST", ours, floor, target=Target(0.6, 0.85))

    def both_ways(self, job_id: str, coordinator: str) -> Row:
        """One read at a time over REST, against the same call over gRPC."""
        get = http_request("GET", f"{MODULE}/jobs/{job_id}", target=self._ours, key=self._key)
        request, path = api.GetJobRequest(job_id=job_id), f"{COORDINATOR}/GetJob"
        rest_ms, grpc_ms = in_turn(
            (
                lambda: self._loader.http(self._ours, get, seconds=SECONDS)["p50_ms"],
                lambda: self._loader.grpc(
                    coordinator, path, request, key=self._key, seconds=SECONDS
                )["p50_ms"],
            ),
            rounds=ROUNDS,
        )
        return Row(
            "GET job over REST, c=1, p50; GetJob over gRPC",
            Figure(rest_ms, "ms"),
            Figure(grpc_ms, "ms"),
            Target(2.0, at_most=True),
        )

    def submits(self) -> list[Row]:
        body = json.dumps(job_body()).encode()
        ours = http_request("POST", f"{MODULE}/jobs", target=self._ours, key=self._key, body=body)
        message = submit_request().SerializeToString()
        floor = http_request("POST", "/jobs", target=self._floor, body=message)
        name = "Durable submit over REST"
        return self._rows(name, ours, floor, target=Target(0.45, 0.7))

    def _rows(self, name: str, ours: bytes, floor: bytes, *, target: Target) -> list[Row]:
        def ask(concurrency: int, what: str) -> list[float]:
            def send(address: str, request: bytes) -> Callable[[], float]:
                return lambda: self._loader.http(
                    address, request, concurrency=concurrency, seconds=SECONDS
                )[what]

            return in_turn((send(self._ours, ours), send(self._floor, floor)), rounds=ROUNDS)

        mine, bare = ask(16, "per_s")
        mine_ms, bare_ms = ask(1, "p50_ms")
        return [
            Row(
                f"{name}, c=16; Starlette + one bare call",
                Figure(mine, "/s"),
                Figure(bare, "/s"),
                target,
            ),
            Row(f"{name}, c=1, p50", Figure(mine_ms, "ms"), Figure(bare_ms, "ms")),
        ]


def _json() -> Row:
    """JSON text to a message and back, by the gateway's compiled binding and by json_format."""
    text = json.dumps(job_body()).encode()
    descriptor = api.SubmitJobRequest.DESCRIPTOR
    fill, printer = JsonReader().filler(descriptor), JsonWriter().printer(descriptor)
    encode = msgspec.json.Encoder().encode

    def ours() -> None:
        message = api.SubmitJobRequest()
        fill(message, decode(text), Place(Faults()))
        encode(printer(message))

    def theirs() -> None:
        message = json_format.Parse(text, api.SubmitJobRequest())
        json_format.MessageToJson(message, preserving_proto_field_name=True)

    mine, protobuf = in_turn((lambda: _each_us(ours), lambda: _each_us(theirs)), rounds=ROUNDS)
    return Row(
        "JSON ⇄ protobuf of a 40-field message, both ways; json_format",
        Figure(mine, "µs"),
        Figure(protobuf, "µs"),
        Target(0.33, 0.21, at_most=True),
    )


def _each_us(work: Callable[[], None]) -> float:
    """Processor time of one, which what else runs on the machine disturbs least."""
    began = time.process_time()
    for _ in range(REPEAT):
        work()
    return (time.process_time() - began) / REPEAT * 1e6
