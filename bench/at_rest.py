"""An agent that has nothing to do: what it takes of a core, and of memory, with all that it starts."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import psutil

from bench.programs import Coordinator, Program
from bench.report import Figure, Row, Target, text_table
from tests.support.waiting import until

SECONDS = 60.0
SETTLES_S = 10.0  # its first samples and reports are behind it
DEVICES = "sim:8xH100"
MB = 1_000_000


def rows() -> list[Row]:
    """Processor time over a minute; memory at its end, each page counted once."""
    with (
        tempfile.TemporaryDirectory() as name,
        Coordinator(Path(name) / "coordinator") as coordinator,
    ):
        folder = Path(name)
        token = str(coordinator.folder / "join.token")
        words = ("--coordinator", coordinator.address, "--join-token-file", token)
        more = ("--devices", DEVICES, "--data-dir", str(folder / "node"), "--node-id", "n1")
        with Program("node_agent", *words, *more, log=folder / "agent.log") as agent:
            until(lambda: len(list(coordinator.client.nodes())) == 1, "the agent has joined")
            time.sleep(SETTLES_S)
            share, memory_bytes = _measure(psutil.Process(agent.process.pid))
    what = f"An agent at rest, {DEVICES.removeprefix('sim:')} simulated"
    return [
        Row(
            f"{what}: of one core",
            Figure(share, "%"),
            target=Target(1.0, at_most=True, of_ratio=False, unit="%"),
        ),
        Row(
            f"{what}: memory, with all that it starts",
            Figure(memory_bytes / MB, "MB"),
            target=Target(80.0, at_most=True, of_ratio=False, unit="MB"),
        ),
    ]


def _measure(agent: psutil.Process) -> tuple[float, float]:
    began_s, before_s = time.monotonic(), _processor_s(agent)
    time.sleep(SECONDS)
    spent_s, took_s = _processor_s(agent) - before_s, time.monotonic() - began_s
    memory_bytes = sum(one.memory_full_info().pss for one in _whole(agent))
    return 100 * spent_s / took_s, memory_bytes


def _processor_s(agent: psutil.Process) -> float:
    times = [one.cpu_times() for one in _whole(agent)]
    return sum(one.user + one.system for one in times)


def _whole(agent: psutil.Process) -> list[psutil.Process]:
    return [agent, *agent.children(recursive=True)]


if __name__ == "__main__":
    print(text_table(rows()))
