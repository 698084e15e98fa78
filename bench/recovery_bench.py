"""A coordinator that is killed and started again, with 10,000 live and 100,000 finished jobs and 1,000
agents: how soon it serves, how soon every agent is back, and what the agents cost it when nothing happens."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil

from bench.messages import submit_request
from bench.programs import Coordinator, Loader, Program
from bench.report import Figure, Row, Target
from bench.store_bench import finished
from coordinator.core.decision import Retired
from coordinator.core.records import Kind
from coordinator.data_dir import STORE
from coordinator.store.protocol import Batch
from coordinator.store.sqlite import SqliteStore
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.support.ports import Port

LIVE_JOBS = 10_000
FINISHED_JOBS = 100_000
AGENTS = 1_000
ROUNDS = 3
REST_S = 15.0
LIMIT_S = 60.0
SERVING = Target(3.0, at_most=True, of_ratio=False, unit="s")
BACK = Target(15.0, at_most=True, of_ratio=False, unit="s")
BEAT = Target(15.0, at_most=True, of_ratio=False, unit="s")
CORE = Target(60.0, at_most=True, of_ratio=False, unit="%")


class Agents(Program):
    """Many agents in one process."""

    def __init__(self, server: str, token: str, *, log: Path) -> None:
        folder = str(log.parent / "agents")
        words = ("--server", server, "--token", token, "--count", str(AGENTS), "--folder", folder)
        super().__init__("bench.agents", *words, piped=True, log=log)

    def ask(self, kind: str) -> float:
        """Seconds; raises RuntimeError where they died."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"kind": kind, "limit_s": LIMIT_S}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the agents died; see their log")
        return float(json.loads(line)["seconds"])


def rows() -> list[Row]:
    """Serving again and agents back, the worst of some rounds; the agents' cost at rest."""
    folder = Path(tempfile.mkdtemp(prefix="recovery-"))
    port = Port()
    try:
        with Coordinator(folder, port=port) as first:
            first.join()
            with Loader() as loader:
                first.fill(loader, _request(), LIVE_JOBS)
        asyncio.run(_add_finished(folder / STORE))
        return _measure(folder, port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _request() -> api.SubmitJobRequest:
    request = submit_request()
    request.resource_config.gpu_type = "H100"  # which no agent offers: it stays queued
    return request


async def _add_finished(path: Path) -> None:
    """Gives the store a past."""
    store = SqliteStore(path)
    await store.open()
    epoch = await store.acquire("bench")
    version = (await store.load()).version
    for first in range(0, FINISHED_JOBS, 1000):
        ended = finished(range(first, first + 1000), FINISHED_JOBS)
        gone = [Retired(kind=Kind.JOB, id=event.record.id, at_ms=event.at_ms) for event in ended]
        batch = Batch(id=f"past-{first}", events=(*ended, *gone))
        version = await store.commit(batch, epoch=epoch, expected_version=version)
    await store.close()


def _measure(folder: Path, port: Port) -> list[Row]:
    token = (folder / "join.token").read_text().strip()
    with Agents(str(port), token, log=folder / "agents.log") as agents:
        serving_s, back_s = [], []
        for _ in range(ROUNDS):
            with Coordinator(folder, port=port) as coordinator:
                agents.ask("mark")
                agents.ask("back")
                coordinator.process.send_signal(signal.SIGKILL)
                coordinator.process.wait()
            agents.ask("mark")
            began_s = time.monotonic()
            with Coordinator(folder, port=port) as coordinator:
                coordinator.client.submit(_request())
                serving_s.append(time.monotonic() - began_s)
                back_s.append(agents.ask("back"))
        with Coordinator(folder, port=port) as coordinator:
            agents.ask("mark")
            agents.ask("back")
            share, gap_s = at_rest(coordinator, agents)
    what = f"{LIVE_JOBS:,} live and {FINISHED_JOBS:,} finished jobs, {AGENTS:,} agents"
    return [
        Row(f"kill -9 → a job is taken, {what}", Figure(max(serving_s), "s"), target=SERVING),
        Row(f"kill -9 → every agent is back, {what}", Figure(max(back_s), "s"), target=BACK),
        Row(f"{AGENTS:,} agents at rest: of one core", Figure(share, "%"), target=CORE),
        Row(f"{AGENTS:,} agents at rest: longest silence", Figure(gap_s, "s"), target=BEAT),
    ]


def at_rest(coordinator: Coordinator, agents: Agents) -> tuple[float, float]:
    """Percent of a core that the agents cost the coordinator, and the longest wait for an answer."""
    process = psutil.Process(coordinator.process.pid)
    agents.ask("mark")
    process.cpu_percent()
    time.sleep(REST_S)
    return process.cpu_percent(), agents.ask("gaps")
