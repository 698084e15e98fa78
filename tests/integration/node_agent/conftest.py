"""A coordinator for tests, and the agent as the process that production runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest
from tests.contract.runtimes.conftest import until_gone
from tests.integration.node_agent.coordinator import WAIT_S, Coordinator


class Agent:
    """`python -m node_agent` on a data folder, started and killed as a test likes."""

    def __init__(self, coordinator: Coordinator, data_dir: Path) -> None:
        self.coordinator = coordinator
        self.data_dir = data_dir
        self.flags: tuple[str, ...] = ("--devices", "sim:8xH100")
        self.prefix: tuple[str, ...] = ()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The newest agent process."""
        assert self._process is not None
        return self._process

    async def start(self, *, wait: bool = True) -> None:
        """Starts an agent, and waits for its first call."""
        calls = len(self.coordinator.requests)
        self._process = await asyncio.create_subprocess_exec(
            *self.prefix,
            sys.executable,
            *("-W", "error::ResourceWarning", "-m", "node_agent"),
            *("--data-dir", str(self.data_dir), "--node-id", "n1"),
            *("--coordinator", f"127.0.0.1:{self.coordinator.port}"),
            *self.flags,
            env={**os.environ, "MIND_JOIN_TOKEN": "hush"},
        )
        if wait:
            await self.coordinator.until(lambda: len(self.coordinator.requests) > calls)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal to the agent and waits for its end; returns the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(WAIT_S):
            return await self.process.wait()

    async def close(self) -> None:
        """Kills everything of it."""
        if self._process is not None:
            await self.end(signal.SIGKILL)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await until_gone(pid)

    def rank(self, lease_id: str, rank: int = 0) -> Path:
        """A rank's folder."""
        return self.data_dir / "leases" / f"{lease_id}.1" / f"rank-{rank}"

    def processes(self) -> list[int]:
        """Every process of this data folder that is not an agent: fork server, ranks."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    environ = Path(f"/proc/{name}/environ").read_bytes()
                except OSError:
                    continue
                if f"MIND_EVENTS={self.data_dir}".encode() in environ:
                    found.append(int(name))
        return found


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    """A coordinator that desires nothing yet."""
    coordinator = Coordinator()
    await coordinator.start()
    yield coordinator
    await coordinator.stop()
    coordinator.close()


@pytest.fixture
async def agent(coordinator: Coordinator, tmp_path: Path) -> AsyncIterator[Agent]:
    """An agent that was not started yet; at the end everything of it is killed."""
    agent = Agent(coordinator, tmp_path / "node")
    yield agent
    await agent.close()


Script = Callable[[str], Path]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Writes an executable script; a shell script unless it says otherwise."""

    def write(text: str) -> Path:
        path = tmp_path / f"script{len(list(tmp_path.glob('script*')))}"
        path.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write


def lease(
    program: Path | str,
    *,
    lease_id: str = "lease-1",
    epoch: int = 1,
    ranks: int = 1,
    args: str = "",
    job: SubmitJobRequest | None = None,
) -> agent_pb2.DesiredLease:
    """A lease of `ranks` ranks, one device each, that runs a program."""
    job = job or SubmitJobRequest(name="test")
    framework = job.training_config.framework
    framework.type = job_pb2.Framework.CUSTOM
    framework.custom_script_path = str(program)
    if args:
        framework.config["args"] = args
    spec = agent_pb2.LeaseSpec(
        job_id="job_1",
        lineage_id="job_1",
        tenant_id="local",
        attempt=1,
        job=job,
        device_ids=[],
        local_world_size=ranks,
        world_size=ranks,
        node_count=1,
    )
    return agent_pb2.DesiredLease(
        lease_id=lease_id, epoch=epoch, action=agent_pb2.DesiredLease.RUN, spec=spec
    )


def stop(desired: agent_pb2.DesiredLease, *, grace_ms: int = 60_000) -> agent_pb2.DesiredLease:
    """The same lease, to be stopped."""
    return agent_pb2.DesiredLease(
        lease_id=desired.lease_id,
        epoch=desired.epoch,
        action=agent_pb2.DesiredLease.STOP,
        grace_ms=grace_ms,
        spec=desired.spec,
    )
