"""A real cluster in a folder of its own: `scaimind up`, which starts the three programs.

Nothing in it is special to tests: the same programs, settings and files as on a laptop.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import httpx
import psutil

from scaimind import Client
from tests.support import processes
from tests.support.ports import Port
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0
STOP_S = 60.0
MODULE = "/v1/modules/scaimind"


class Cluster:
    """`scaimind up` in a folder, on ports of its own. Use it as a context manager."""

    def __init__(
        self,
        folder: Path,
        *,
        devices: str = "cpu",
        nodes: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are variables (`MIND_…`) for all of its programs."""
        self.data_dir = folder
        self._settings = dict(settings or {})
        self.devices, self.nodes = devices, nodes
        self._http_port, self._grpc_port, self._metrics_port = Port(), Port(), Port()
        self._up: subprocess.Popen[str] | None = None
        self._client: Client | None = None
        self._rest: httpx.Client | None = None

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()
        for one in (self._client, self._rest):
            if one is not None:
                one.close()
        left = processes.left_of(self.data_dir) if kind is None else []
        processes.kill_all(processes.of_folder(self.data_dir))
        self._http_port.close()
        self._grpc_port.close()
        self._metrics_port.close()
        assert not left, f"left behind: {processes.describe(left)}"

    @property
    def grpc(self) -> str:
        """HOST:PORT of the coordinator."""
        return str(self._grpc_port)

    @property
    def http(self) -> str:
        """HOST:PORT of the gateway."""
        return str(self._http_port)

    @property
    def metrics(self) -> str:
        """HOST:PORT of the coordinator's metrics."""
        return str(self._metrics_port)

    @property
    def key(self) -> str:
        """The admin's API key."""
        return (self.data_dir / "admin.key").read_text().strip()

    @property
    def client(self) -> Client:
        """A gRPC client with the admin's key."""
        if self._client is None:
            self._client = Client(self.grpc, self.key, timeout_s=START_S, retry_s=START_S)
        return self._client

    @property
    def rest(self) -> httpx.Client:
        """A client of the REST module with the admin's key."""
        if self._rest is None:
            self._rest = httpx.Client(
                base_url=f"http://{self.http}{MODULE}",
                headers={"authorization": f"Bearer {self.key}"},
                timeout=30.0,
                trust_env=False,
            )
        return self._rest

    @property
    def up(self) -> subprocess.Popen[str]:
        """The process of `scaimind up`."""
        assert self._up is not None
        return self._up

    def start(self) -> None:
        """Starts it and waits for its line that says ready."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        words = ["--data-dir", str(self.data_dir), "--http", self.http, "--grpc", self.grpc]
        words += ["--devices", self.devices, "--nodes", str(self.nodes)]
        words += ["--metrics", self.metrics]
        out = (self.data_dir / "up.out").open("w+")
        with out:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "scaimind.cli", "up", *words],
                cwd=ROOT,
                env={**os.environ, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        until(self._is_ready, lambda: f"`scaimind up` is ready\n{self.story()}", within_s=START_S)

    def stop(self) -> int:
        """Stops it as Ctrl-C does; its exit code. Jobs that still run go on."""
        if self._up is None:
            return 0
        up, self._up = self._up, None
        with suppress(ProcessLookupError):
            up.send_signal(signal.SIGTERM)
        try:
            return up.wait(STOP_S)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
            raise

    def pid_of(self, program: str) -> int:
        """The pid of one of `coordinator`, `gateway`, `node_agent` (of several nodes: the first)."""
        return until(lambda: self._find(program), f"{program} runs")

    def kill(self, program: str) -> int:
        """kill -9 of one program; returns its pid. `up` starts it again by and by."""
        pid = self.pid_of(program)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not processes.is_alive(pid), f"{program} is dead")
        return pid

    def returned(self, program: str, before: int) -> int:
        """Waits until `program` runs again, as another process than `before`."""

        def find() -> int | None:
            pid = self._find(program)
            return pid if pid != before else None

        return until(find, lambda: f"{program} runs again\n{self.story()}")

    def story(self) -> str:
        """The ends of all logs, for messages."""
        logs = [self.data_dir / "up.out", *sorted((self.data_dir / "log").glob("*.log"))]
        return "\n".join(f"--- {path.name}\n{_end(path)}" for path in logs)

    def _is_ready(self) -> bool:
        assert self._up is not None
        if self._up.poll() is not None:
            raise AssertionError(f"`scaimind up` ended with {self._up.returncode}\n{self.story()}")
        return "ready: " in (self.data_dir / "up.out").read_text()

    def _find(self, program: str) -> int | None:
        assert self._up is not None
        with suppress(psutil.Error):
            for child in psutil.Process(self._up.pid).children():
                words = child.cmdline()
                if "-m" in words and words[words.index("-m") + 1 :][:1] == [program]:
                    return int(child.pid)
        return None


def _end(path: Path, size: int = 4000) -> str:
    try:
        return path.read_text(errors="replace")[-size:]
    except OSError:
        return ""
