"""The programs that benches start: floors, the loading client, a coordinator by itself."""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.floors import SERVICE
from scaimind import Client
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.agent.v1 import agent_service_pb2_grpc as agent_grpc
from scaimind.v1 import job_pb2, node_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.support.ports import Port
from tests.support.waiting import until

COORDINATOR = "/scaimind.v1.MindCoordinator"
MODULE = "/v1/modules/scaimind"
STOP_S = 20.0


class Program:
    """A program of this project in a process of its own; a context manager."""

    def __init__(self, *words: str, piped: bool = False, log: Path | None = None) -> None:
        pipe = subprocess.PIPE if piped else subprocess.DEVNULL
        with ExitStack() as stack:
            errors = stack.enter_context(log.open("ab")) if log else None
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], stdin=pipe, stdout=pipe, stderr=errors, text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def rss_bytes(self) -> int:
        """Resident memory now."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


class Loader(Program):
    """The loading client."""

    def __init__(self) -> None:
        super().__init__("bench.load", piped=True)

    def grpc(
        self,
        target: str,
        path: str,
        *requests: Message,
        key: str = "",
        concurrency: int = 1,
        seconds: float = 1.0,
        count: int = 0,
    ) -> dict[str, float]:
        """Calls a unary method with one request after the other, and from the first on again: answers
        per_s, p50_ms, p99_ms, count."""
        metadata = [("authorization", f"Bearer {key}")] if key else []
        return self._order(
            kind="grpc",
            target=target,
            path=path,
            requests=[request.SerializeToString().hex() for request in requests],
            metadata=metadata,
            concurrency=concurrency,
            seconds=seconds,
            count=count,
        )

    def http(
        self,
        target: str,
        request: bytes,
        *,
        concurrency: int = 1,
        seconds: float = 1.0,
        count: int = 0,
    ) -> dict[str, float]:
        """Sends an HTTP request again and again; the same answer."""
        return self._order(
            kind="http",
            target=target,
            request=request.hex(),
            concurrency=concurrency,
            seconds=seconds,
            count=count,
        )

    def _order(self, **order: Any) -> dict[str, float]:
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(json.dumps(order) + "\n")
        pipe_in.flush()
        line = pipe_out.readline()
        if not line:
            raise RuntimeError("the loading client died; its error is above")
        answer: dict[str, float] = json.loads(line)
        return answer


class GrpcFloor(Program):
    """The bare gRPC server."""

    def __init__(self, folder: Path) -> None:
        self._port = Port()
        self.address = str(self._port)
        database = str(folder / "floor.db")
        super().__init__(
            "bench.floors", "grpc", "--port", str(self._port.number), "--database", database
        )
        until(lambda: _listens(self._port.number), "the bare gRPC server listens")

    @staticmethod
    def path(method: str) -> str:
        """Path of one of Echo, Get, Durable, Batch."""
        return f"/{SERVICE}/{method}"

    def hold(self, job: job_pb2.Job) -> None:
        """Gives it the job that Get answers with."""
        with grpc.insecure_channel(self.address) as channel:
            send: Any = channel.unary_unary(self.path("Hold"))
            send(job.SerializeToString(), wait_for_ready=True, timeout=10)


class HttpFloor(Program):
    """The bare Starlette application in front of the bare gRPC server."""

    def __init__(self, upstream: str) -> None:
        self._port = Port()
        self.address = str(self._port)
        port = str(self._port.number)
        super().__init__("bench.floors", "http", "--port", port, "--upstream", upstream)
        until(lambda: _listens(self._port.number), "the bare Starlette application listens")


class Coordinator(Program):
    """A real coordinator by itself, with one node that never runs anything."""

    def __init__(self, folder: Path, *, port: Port | None = None) -> None:
        self._port = port or Port()
        self.address = str(self._port)
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "coordinator.log"
        words = ("--grpc", self.address, "--data-dir", str(folder), "--log-level", "WARNING")
        super().__init__("coordinator", *words, log=log)
        until(self._serves, lambda: f"the coordinator serves\n{log.read_text()}")
        self.key = (folder / "admin.key").read_text().strip()
        self.client = Client(self.address, self.key)

    def __exit__(self, *about: Any) -> None:
        self.client.close()
        super().__exit__(*about)

    def join(self, *, devices: int = 1) -> None:
        """Has a node join that will accept nothing, so that what is submitted stays queued."""
        offer = agent_api.NodeOffer(
            address="127.0.0.1",
            devices=[
                node_pb2.Device(device_id=f"gpu-{n}", index=n, type="H100", healthy=True)
                for n in range(devices)
            ],
            cpu_count=1024,
            memory_bytes=1 << 42,
            disk_bytes=1 << 42,
        )
        request = agent_api.SyncRequest(
            node_id="node-0", incarnation="bench", generation=1, sequence=1, offer=offer
        )
        token = (self.folder / "join.token").read_text().strip()
        with grpc.insecure_channel(self.address) as channel:
            stub = agent_grpc.AgentServiceStub(channel)
            credential = f"nk_node-0.{hashlib.sha256(token.encode()).hexdigest()}"
            digest = hashlib.sha256(credential.encode()).hexdigest()
            join = agent_api.JoinRequest(node_id="node-0", credential_sha256=digest)
            stub.Join(join, metadata=(("authorization", f"Bearer {token}"),), timeout=10)
            stub.Sync(request, metadata=(("authorization", f"Bearer {credential}"),), timeout=10)

    def fill(self, loader: Loader, request: api.SubmitJobRequest, count: int) -> None:
        """Submits so many jobs."""
        loader.grpc(
            self.address,
            f"{COORDINATOR}/SubmitJob",
            request,
            key=self.key,
            concurrency=64,
            seconds=120,
            count=count,
        )

    def _serves(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"the coordinator ended with {self.process.returncode}")
        with grpc.insecure_channel(self.address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def http_request(
    method: str, path: str, *, target: str, key: str = "", body: bytes | None = None
) -> bytes:
    """One HTTP/1.1 request as it goes over the wire."""
    head = [f"{method} {path} HTTP/1.1", f"host: {target}"]
    if key:
        head.append(f"authorization: Bearer {key}")
    if body is not None:
        head += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + (body or b"")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
