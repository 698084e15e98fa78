"""A real agent process, killed as hard as can be, again and again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from node_agent.ranks import RankFiles
from scaimind.agent.v1.agent_service_pb2 import EVENTS, STDOUT
from tests.integration.spool.conftest import Agent
from tests.integration.spool.coordinator import RecordingCoordinator

ROOT = Path(__file__).parents[3]
LINES = 40_000
ROUNDS = 4


def write_round(rank: RankFiles, number: int) -> None:
    """Appends the lines and the metrics of one round."""
    first = LINES * number
    with (rank.path / "stdout").open("ab") as file:
        file.write(b"".join(b"line %d of many\n" % i for i in range(first, first + LINES)))
    with (rank.path / "events").open("ab") as file:
        for step in range(number * 100, number * 100 + 100):
            file.write(b'{"event":"metrics","step":%d,"values":{"loss":1}}\n' % step)


async def start(coordinator: RecordingCoordinator, rank: RankFiles) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.spool.program",
        coordinator.address,
        str(rank.path.parent),
        cwd=ROOT,
    )


async def test_an_agent_killed_again_and_again_loses_nothing_and_sends_nothing_twice(
    agent: Agent, coordinator: RecordingCoordinator
) -> None:
    rank = agent.rank()
    for number in range(ROUNDS):
        write_round(rank, number)
        seen = coordinator.batches
        program = await start(coordinator, rank)
        await agent.until(lambda seen=seen: coordinator.batches > seen + 5)  # type: ignore[misc]
        os.kill(program.pid, signal.SIGKILL)
        await program.wait()
    agent.spool.watch(rank)
    agent.spool.ended(rank.lease_id, 0)
    await agent.drained(rank.lease_id)
    texts = coordinator.of(STDOUT).texts
    assert texts == [f"line {i} of many" for i in range(LINES * ROUNDS)]
    assert [point.step for point in coordinator.of(EVENTS).points] == list(range(100 * ROUNDS))
