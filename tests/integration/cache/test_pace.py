"""How fast a node fetches, measured by the real cache at servers that give no more than so much."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from node_agent.cache.cache import Cache
from node_agent.cache.fetcher import CannotFetch
from node_agent.cache.pace import LEAST_BYTES, ROSE, Amount, read_pace
from node_agent.holdings import Holdings
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from tests.integration.cache.test_cache import (
    House,
    _fetchers,
    _partial_bytes,
    eventually,
    house,
    one,
)
from tests.support.files import Answer, serving

__all__ = ["house"]
LARGE = os.urandom(2 * LEAST_BYTES)
SMALL = b"of words"
BYTES_PER_S = LEAST_BYTES  # so that one takes two seconds
NEAR = 3  # so many times faster is near: a part may lie in sockets before it is counted


@asynccontextmanager
async def offering(cache: Cache) -> AsyncIterator[list[int]]:
    """What would be offered, each time that it changes."""
    offers: list[int] = []

    async def report(_: agent_pb2.ReportCacheRequest) -> None:
        """Nobody is told."""

    holdings = Holdings(cache, report, node_id="n1")
    offers.append(holdings.fetch_bytes_per_s)
    holdings.on_change = lambda: offers.append(holdings.fetch_bytes_per_s)
    work = asyncio.create_task(holdings.run())
    try:
        yield offers
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def test_what_is_offered_is_near_what_the_source_gives_and_outlives_the_agent(
    house: House,
) -> None:
    cache = await house.open()
    with one(Answer(LARGE, bytes_per_s=BYTES_PER_S)) as (_, uri):
        async with offering(cache) as offers:
            assert offers == [0]
            begun_s = time.monotonic()
            await house.get(cache, uri)
            took_s = time.monotonic() - begun_s
            await eventually(lambda: offers[-1] > 0)
            await eventually(lambda: read_pace(house.folder / "pace.json") == cache.pace.total)
        assert cache.pace.total.size_bytes == len(LARGE)
        assert 0 < cache.pace.total.time_s <= took_s
        least = len(LARGE) / took_s / ROSE
        assert least < offers[-1] < BYTES_PER_S * NEAR
        later = await house.open()
        assert later.pace.total == cache.pace.total
        async with offering(later) as offers:
            assert least < offers[0] < BYTES_PER_S * NEAR


async def test_what_is_here_already_what_is_little_and_what_is_local_change_nothing(
    house: House, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = await house.open()
    with serving({"/large": Answer(LARGE), "/small": Answer(SMALL)}) as server:
        await house.get(cache, f"{server.url}/large", "a")
        before = cache.pace.total
        assert before.size_bytes == len(LARGE)
        await house.get(cache, f"{server.url}/large", "b")
        await house.get(cache, f"{server.url}/small", "b")
        with pytest.raises(CannotFetch, match="no such file"):
            await house.get(cache, f"{server.url}/none", "b")
    bundle = tmp_path_factory.mktemp("local") / "code.zip"
    bundle.write_bytes(LARGE)
    with pytest.raises(CannotFetch):  # it is none, which is seen once it was copied
        await house.get(cache, str(bundle), bundle=True)
    assert cache.pace.total == before


async def test_of_what_is_resumed_counts_what_has_come_and_of_what_is_broken_off_too(
    house: House,
) -> None:
    cache = await house.open()
    cut_bytes = LEAST_BYTES + LEAST_BYTES // 2
    more = os.urandom(LEAST_BYTES)
    gate = threading.Event()
    with one(Answer(LARGE + more, cut_bytes=cut_bytes, hold=gate)) as (server, uri):
        getting = asyncio.create_task(house.get(cache, uri))
        await eventually(lambda: _partial_bytes(house) >= cut_bytes)
        await eventually(lambda: cache.pace.total.size_bytes > 0)
        for child in _fetchers():
            child.send_signal(signal.SIGKILL)
        with pytest.raises(CannotFetch, match="has failed"):
            await getting
        assert LEAST_BYTES <= cache.pace.total.size_bytes <= cut_bytes
        gate.set()
        later = await house.open()
        await house.get(later, uri)
        assert server.ranges[-1] == f"bytes={cut_bytes}-"
        assert later.pace.total.size_bytes == len(LARGE + more) - cut_bytes


async def test_fetches_at_once_share_the_time(house: House) -> None:
    cache = await house.open()
    answers = {f"/{name}": Answer(LARGE + name.encode(), bytes_per_s=BYTES_PER_S) for name in "abc"}
    with serving(answers) as server:
        begun_s = time.monotonic()
        await asyncio.gather(
            *(house.get(cache, f"{server.url}/{name}", name) for name in "abc"),
        )
        took_s = time.monotonic() - begun_s
    assert cache.pace.total.size_bytes == 3 * (len(LARGE) + 1)
    assert cache.pace.total.time_s <= took_s


async def test_an_agent_whose_file_says_nothing_begins_with_nothing(house: House) -> None:
    house.folder.mkdir()
    (house.folder / "pace.json").write_bytes(b"\x00" * 100)
    cache = await house.open()
    assert (cache.pace.total, cache.pace.told_bytes_per_s) == (Amount(), 0)
