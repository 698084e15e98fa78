"""Several coordinators on one Redis, a gateway and an agent: all of them real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from scaimind import Client
from tests.support import processes
from tests.support.cluster import MODULE, ROOT
from tests.support.ports import Port
from tests.support.redis_server import RedisServer
from tests.support.waiting import WITHIN_S, until

START_S = 120.0
TTL_S = 3.0
STORY_BYTES = 4000


class Program:
    """`python -m …`, with its output in a file."""

    def __init__(self, folder: Path, name: str, *words: str) -> None:
        self.name, self.words = name, words
        self.prefix: tuple[str, ...] = ()  # of its command line
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._from = 0  # where the log of the last start begins

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._from = out.tell()
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-m", *self.words],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """kill -9, also of one that is frozen."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self.send(signal.SIGKILL)
            self._process.wait()

    def story(self, *, since_start: bool = False) -> str:
        """The end of its log; or all of it since it was started last."""
        log = self._log.read_bytes() if self._log.exists() else b""
        text = log[self._from :] if since_start else log[-STORY_BYTES:]
        return f"--- {self.name}\n{text.decode(errors='replace')}"


class Coordinator(Program):
    """One of several."""

    def __init__(self, folder: Path, number: int, *words: str) -> None:
        self.port = Port()
        self.address = str(self.port)
        data_dir = folder / f"c{number}"
        self.data_dir = data_dir
        where = ("--data-dir", str(data_dir), "--grpc", self.address)
        super().__init__(folder, f"coordinator-{number}", "coordinator", *where, *words)

    def wait_until_it_stands_by(self) -> None:
        """Since it was started last."""
        until(
            lambda: "stands_by" in self.story(since_start=True),
            lambda: f"it stands by\n{self.story()}",
            within_s=START_S,
        )

    def serves(self) -> bool:
        """Whether its health is SERVING."""
        with grpc.insecure_channel(self.address) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=10
                )
            except grpc.RpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class Several:
    """The whole of it in a folder. Use it as a context manager."""

    def __init__(self, folder: Path, *, coordinators: int = 2, ttl_s: float = TTL_S) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        secrets = {name: folder / name for name in ("gateway.secret", "join.token")}
        for name, path in secrets.items():
            path.write_text(f"{name}-of-the-tests\n")
        words = ["--store", self.redis.url, "--lease-ttl-s", str(ttl_s)]
        words += ["--api-secret-file", str(secrets["gateway.secret"])]
        words += ["--join-token-file", str(secrets["join.token"])]
        self.coordinators = [Coordinator(folder, number, *words) for number in range(coordinators)]
        self.server = ",".join(one.address for one in self.coordinators)
        self._http = Port()
        self.gateway = Program(
            folder,
            *("gateway", "gateway", "--http", str(self._http), "--coordinator", self.server),
            *("--api-secret-file", str(secrets["gateway.secret"]), "--no-rate-limits"),
        )
        self.agent = Program(
            folder,
            *("agent", "node_agent", "--coordinator", self.server, "--devices", "cpu"),
            *("--data-dir", str(folder / "node"), "--node-id", "n1"),
            *("--join-token-file", str(secrets["join.token"])),
        )
        self._clients: list[Client | httpx.Client] = []

    def __enter__(self) -> Several:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Starts everything; the first coordinator leads."""
        self.redis.start()
        first, *others = self.coordinators
        first.start()
        until(first.serves, lambda: f"the first leads\n{self.story()}", within_s=START_S)
        for one in (*others, self.gateway, self.agent):
            one.start()
        for one in others:
            one.wait_until_it_stands_by()
        until(self._has_devices, lambda: f"the node is there\n{self.story()}", within_s=START_S)

    def close(self) -> None:
        """Kills everything that it started."""
        for client in self._clients:
            client.close()
        for one in (self.agent, self.gateway, *self.coordinators):
            one.kill()
        self.redis.kill()
        processes.kill_all(processes.of_folder(self.folder))
        for port in (self._http, *(one.port for one in self.coordinators)):
            port.close()

    @property
    def key(self) -> str:
        """The admin's API key: the one who founded the store wrote it."""
        return (self.coordinators[0].data_dir / "admin.key").read_text().strip()

    @cached_property
    def client(self) -> Client:
        """A gRPC client of all coordinators."""
        return self.client_of(self.server)

    def client_of(self, server: str) -> Client:
        """A client of some of them."""
        client = Client(server, self.key)
        self._clients.append(client)
        return client

    @cached_property
    def rest(self) -> httpx.Client:
        """A client of the REST module."""
        client = httpx.Client(
            base_url=f"http://{self._http}{MODULE}",
            headers={"authorization": f"Bearer {self.key}"},
            timeout=30.0,
            trust_env=False,
        )
        self._clients.append(client)
        return client

    def leader(self, *, but: Coordinator | None = None, within_s: float = WITHIN_S) -> Coordinator:
        """The one that serves, once there is one (other than a former one)."""

        def find() -> Coordinator | None:
            return next((one for one in self.coordinators if one is not but and one.serves()), None)

        return until(find, lambda: f"one leads\n{self.story()}", within_s=within_s)

    def story(self) -> str:
        """The ends of all logs, for messages."""
        programs = (*self.coordinators, self.gateway, self.agent)
        return "\n".join(one.story() for one in programs)

    def _has_devices(self) -> bool:
        return any(node.node_id == "n1" for node in self.client.nodes())
