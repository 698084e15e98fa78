"""Data that is fetched for a lease, when its agent is killed meanwhile, and when it is stopped meanwhile."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

import psutil

from node_agent.cache.cache import PACE_FILE
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest
from tests.contract.runtimes.conftest import until_gone
from tests.integration.node_agent.conftest import Agent, Script, lease
from tests.integration.node_agent.coordinator import Coordinator
from tests.support.files import Answer, serving
from tests.support.processes import words_of
from tests.support.waiting import until
from tests.support.written import written

LARGE = bytes(range(256)) * 12_288
CUT = 1 << 20
TOKEN = "canary-of-a-lease-91aa"


def granted(program: Path, uri: str) -> agent_pb2.DesiredLease:
    job = SubmitJobRequest(name="test")
    job.data_config.sources.add(path=uri)
    grant = lease(program, job=job)
    grant.spec.tokens["scaidrive"] = TOKEN
    return grant


async def begun(agent: Agent) -> None:
    """Waits until a part of the data is there."""
    parts = agent.data_dir / "cache" / "partial"
    await asyncio.to_thread(
        until,
        lambda: any(len(read) >= CUT for _, read in written(parts)),
        "a part of the data is there",
    )


async def test_an_agent_that_is_killed_while_it_fetches_goes_on_where_it_was(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    gate = threading.Event()
    answer = Answer(LARGE, token=TOKEN, cut_bytes=CUT, hold=gate)
    with serving({"/drive/set.bin": answer}) as server:
        agent.flags += ("--data-scaidrive-url", f"{server.url}/drive")
        await agent.start()
        await coordinator.desire(
            granted(script('wc -c < "$MIND_DATA_0_PATH"'), "scaidrive://set.bin")
        )
        await coordinator.reported("lease-1", agent_pb2.PREPARING)
        await begun(agent)
        children = psutil.Process(agent.process.pid).children()
        (fetcher,) = [one for one in children if "node_agent.cache" in words_of(one)]
        assert await agent.end(signal.SIGKILL) == -signal.SIGKILL
        await until_gone(fetcher.pid)
        gate.set()
        await agent.start()
        ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
        assert not ended.HasField("error"), ended.error
        await coordinator.desire()
        await coordinator.forgotten("lease-1")  # all that it printed has come
        assert coordinator.lines("job_1", 0, agent_pb2.STDOUT) == [str(len(LARGE))]
        assert server.ranges == ["", "", f"bytes={CUT}-"]
        assert not [path for path, read in written(agent.data_dir) if TOKEN.encode() in read]
        await coordinator.until(lambda: len(coordinator.requests[-1].offer.holds) == 1)


async def test_a_lease_that_is_stopped_while_its_data_is_fetched_ends_and_starts_nothing(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    gate = threading.Event()
    with serving({"/set.bin": Answer(LARGE, cut_bytes=CUT, hold=gate)}) as server:
        agent.flags += ("--data-networks", "127.0.0.1/32")
        await agent.start()
        await coordinator.desire(granted(script("echo started"), f"{server.url}/set.bin"))
        await begun(agent)
        await coordinator.desire(
            agent_pb2.DesiredLease(lease_id="lease-1", epoch=1, action=agent_pb2.DesiredLease.STOP)
        )
        ended = await coordinator.reported("lease-1", agent_pb2.ENDED)
        assert ended.stopped
        assert not ended.ranks
        gate.set()
        await coordinator.desire()
        await coordinator.forgotten("lease-1")
    assert coordinator.lines("job_1", 0, agent_pb2.STDOUT) == []


async def test_an_agent_tells_how_fast_its_node_fetches_and_the_next_one_at_once_too(
    coordinator: Coordinator, agent: Agent, script: Script
) -> None:
    with serving({"/set.bin": Answer(LARGE * 4)}) as server:
        agent.flags += ("--data-networks", "127.0.0.1/32")
        await agent.start()
        assert coordinator.requests[-1].offer.fetch_bytes_per_s == 0
        await coordinator.desire(granted(script("true"), f"{server.url}/set.bin"))
        await coordinator.until(lambda: coordinator.requests[-1].offer.fetch_bytes_per_s > 0)
        await coordinator.reported("lease-1", agent_pb2.ENDED)
    kept = agent.data_dir / "cache" / PACE_FILE
    await asyncio.to_thread(until, kept.exists, "it is written down")
    await agent.end(signal.SIGKILL)
    before = coordinator.requests[-1].incarnation
    await agent.start()
    await coordinator.until(lambda: coordinator.requests[-1].incarnation != before)
    first = next(one for one in coordinator.requests if one.incarnation not in ("", before))
    assert first.offer.fetch_bytes_per_s > 0
