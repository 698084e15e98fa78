"""What `scaimind up` starts, with which arguments; nothing here starts anything."""

import errno
import os
import random
import re
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from scaimind.cli.exits import Fault, fail

MODULE_PATH = "/v1/modules/scaimind"
_SIMULATED = r"[1-9][0-9]{0,4}x[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
DEVICES = re.compile(rf"auto|cpu|sim:{_SIMULATED}(?:,{_SIMULATED}){{0,63}}")
MAX_NODES = 1000
MAX_NAME = 100

# Below the ports that systems hand out to clients: a program that is started again finds it free.
STEADY_PORTS = range(20_000, 32_000)
PORT_TRIES = 100
LOCAL_STREAMS_MAX = 1000  # of one user: here the user is the one in front of the machine
LOCAL_MIN_RUN_S = 5  # before a job gives way: here people try the scheduler out


class Address(NamedTuple):
    """Where a program listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def reached_at(self) -> "Address":
        """Where it is reached from this machine."""
        local = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
        return Address(local.get(self.host, self.host), self.port)


class Start(NamedTuple):
    """A program to start: its name in messages, and its command."""

    name: str
    command: list[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A cluster on one machine."""

    data_dir: Path
    http: Address
    grpc: Address
    devices: str
    nodes: tuple[str, ...]
    metrics: Address | None = None  # of the coordinator, for Prometheus

    @property
    def url(self) -> str:
        """Where the REST module is."""
        return f"http://{self.http.reached_at()}{MODULE_PATH}"

    def coordinator(self) -> Start:
        """The coordinator; it writes the secrets of the others before it serves."""
        arguments = ["--data-dir", str(self.data_dir), "--grpc", str(self.grpc)]
        if "MIND_DATA_ROOTS" not in os.environ:
            # Who submits here may read these files anyway, by a job of the same user.
            storage = str(self.data_dir / "storage")
            arguments += ["--data-roots", "/" if "," in storage else f"/,{storage}"]
        if "MIND_BLAME_USERS" not in os.environ:
            # All nodes are one machine: jobs that fail on one say nothing of it beside the others.
            arguments += ["--blame-users", "0"]
        if "MIND_MIN_RUN_S" not in os.environ:
            arguments += ["--min-run-s", str(LOCAL_MIN_RUN_S)]
        if self.metrics is not None:
            arguments += ["--metrics", str(self.metrics)]
        return _start("coordinator", "coordinator", arguments)

    def gateway(self) -> Start:
        """The gateway."""
        arguments = ["--http", str(self.http), "--coordinator", str(self.grpc.reached_at())]
        arguments += ["--api-secret-file", str(self.data_dir / "gateway.secret")]
        if "MIND_RATE_LIMITS" not in os.environ:
            arguments += ["--no-rate-limits"]
        if "MIND_CACHE_PATH" not in os.environ:
            arguments += ["--cache-path", str(self.data_dir / "gateway.cache")]
        if "MIND_MAX_USER_STREAMS" not in os.environ:
            arguments += ["--max-user-streams", str(LOCAL_STREAMS_MAX)]
        return _start("gateway", "gateway", arguments)

    def agents(self) -> list[Start]:
        """One agent for each node."""
        return [self._agent(node_id) for node_id in self.nodes]

    def _agent(self, node_id: str) -> Start:
        arguments = ["--coordinator", str(self.grpc.reached_at())]
        arguments += ["--data-dir", str(self.data_dir / "nodes" / node_id)]
        arguments += ["--storage-dir", str(self.data_dir / "storage")]
        arguments += ["--devices", self.devices, "--node-id", node_id]
        arguments += ["--join-token-file", str(self.data_dir / "join.token")]
        return _start(f"node_agent-{node_id}", "node_agent", arguments)


def _start(name: str, program: str, arguments: list[str]) -> Start:
    # -P: a folder of the same name in the present directory must not be taken for the program.
    return Start(name, [sys.executable, "-P", "-m", program, *arguments])


def make(
    data_dir: Path, *, http: str, grpc: str, devices: str, nodes: int, metrics: str | None = None
) -> Plan:
    """The plan for the options of `up`, with port 0 replaced by a free one.

    Raises:
        Fault: an option is bad, or an address is in use.
    """
    if not DEVICES.fullmatch(devices):
        fail(f"--devices {devices}: must be auto, cpu, or simulated ones such as sim:8xH100")
    return Plan(
        data_dir=data_dir.expanduser().absolute(),
        http=_free(http, "--http"),
        grpc=_free(grpc, "--grpc"),
        devices=devices,
        nodes=tuple(node_ids(nodes)),
        metrics=_free(metrics, "--metrics") if metrics else None,
    )


def node_ids(count: int, hostname: str | None = None) -> list[str]:
    """Names of the nodes: this machine's, numbered where there are several."""
    name = socket.gethostname() if hostname is None else hostname
    name = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip("._-")[:MAX_NAME] or "node"
    return [name] if count == 1 else [f"{name}-{number}" for number in range(count)]


def address(text: str, flag: str) -> Address:
    """HOST:PORT as an address."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        fail(f"{flag} {text}: must be HOST:PORT, such as 127.0.0.1:8080")
    return Address(host.strip("[]"), int(port))


def _free(text: str, flag: str) -> Address:
    """The address, known to be free a moment ago; port 0 is replaced by one that tends to stay so."""
    wanted = address(text, flag)
    ports = [wanted.port] if wanted.port else random.sample(STEADY_PORTS, PORT_TRIES)
    fault = OSError(errno.EADDRINUSE, "no port is free")
    for port in ports:
        try:
            return Address(wanted.host, _bind(wanted.host, port))
        except OSError as error:
            fault = error
            if error.errno != errno.EADDRINUSE:
                break
    in_use = fault.errno == errno.EADDRINUSE
    hint = f"give another with {flag} HOST:PORT; port 0 takes a free one"
    raise Fault(f"{flag} {text}: {'is in use' if in_use else fault.strerror}", hint=hint)


def _bind(host: str, port: int) -> int:
    """The port, where it can be bound now.

    Raises:
        OSError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    return port
