"""What is fetched before a job starts: in nobody's way, kept for it, and the lease's own where that comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from node_agent.ahead import Ahead
from node_agent.cache.cache import Cache
from node_agent.cache.fetcher import CannotFetch
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from tests.integration.cache.test_cache import LARGE, House, _partial_bytes, eventually, house
from tests.support.files import Answer, serving

__all__ = ["house"]
CUT = 1 << 20


def expected(job: str, *uris: str) -> agent_pb2.LeaseSpec:
    spec = agent_pb2.LeaseSpec(job_id=f"job-{job}", tenant_id="acme")
    for uri in uris:
        spec.job.data_config.sources.add(path=uri)
    return spec


@asynccontextmanager
async def running(cache: Cache) -> AsyncIterator[Ahead]:
    ahead = Ahead(cache)
    work = asyncio.create_task(ahead.run())
    try:
        yield ahead
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def pins(cache: Cache) -> dict[str, tuple[str, ...]]:
    return {one.uris[0].rpartition("/")[2]: one.pinned_by for one in await cache.entries()}


async def until_pinned(cache: Cache, expected: dict[str, tuple[str, ...]]) -> None:
    changed = asyncio.Event()
    cache.on_change = changed.set
    async with asyncio.timeout(90):
        while await pins(cache) != expected:
            await changed.wait()
            changed.clear()


async def test_what_is_expected_is_there_before_a_lease_asks_and_kept_until_it_is_not(
    house: House,
) -> None:
    cache = await house.open()
    with serving({"/a": Answer(b"a"), "/b": Answer(b"b"), "/c": Answer(b"c")}) as server:
        uris = [f"{server.url}/{name}" for name in "ab"]
        async with running(cache) as ahead:
            ahead.expect([expected("1", *uris), expected("2", f"{server.url}/no-such")])
            await until_pinned(cache, {"a": ("job-1",), "b": ("job-1",)})
            await house.get(cache, uris[0], "1")
            assert server.asked.count("/a") == 2, "it is looked at, and not fetched again"
            ahead.expect([expected("3", f"{server.url}/c")])
            await until_pinned(cache, {"a": ("job-1",), "b": (), "c": ("job-3",)})


async def test_a_lease_goes_before_what_is_fetched_ahead_which_goes_on_later_where_it_was(
    house: House,
) -> None:
    cache = await house.open()
    gate = threading.Event()
    answers = {"/ahead": Answer(LARGE, cut_bytes=CUT, hold=gate), "/lease": Answer(b"own")}
    with serving(answers) as server:
        async with running(cache) as ahead:
            ahead.expect([expected("1", f"{server.url}/ahead")])
            await eventually(lambda: _partial_bytes(house) >= CUT)
            own = await house.get(cache, f"{server.url}/lease", "2")
            assert own.read_bytes() == b"own"
            gate.set()
            await until_pinned(cache, {"lease": ("job-2",), "ahead": ("job-1",)})
        assert f"bytes={CUT}-" in server.ranges


async def test_a_lease_that_wants_the_same_takes_the_fetch_over_and_nobody_ends_it(
    house: House,
) -> None:
    cache = await house.open()
    gate = threading.Event()
    answers = {"/same": Answer(LARGE, cut_bytes=CUT, hold=gate), "/other": Answer(b"other")}
    with serving(answers) as server:
        async with running(cache) as ahead:
            ahead.expect([expected("1", f"{server.url}/same")])
            await eventually(lambda: _partial_bytes(house) >= CUT)
            getting = asyncio.create_task(house.get(cache, f"{server.url}/same", "1"))
            flights = cache._flights.values()
            await eventually(lambda: all(one.give_up is None for one in flights))
            ahead.expect([])  # it has its lease
            await house.get(cache, f"{server.url}/other", "2")
            gate.set()
            assert (await getting).read_bytes() == LARGE
            await until_pinned(cache, {"same": ("job-1",), "other": ("job-2",)})
        assert (server.asked.count("/same"), set(server.ranges)) == (2, {""})


async def test_room_for_it_is_made_of_what_nobody_wants_and_leases_get_its_room(
    house: House,
) -> None:
    answers = {f"/{name}": Answer(name.encode() * 400) for name in "abcd"}
    with serving(answers) as server:
        uris = {name: f"{server.url}/{name}" for name in "abcd"}
        cache = await house.open(budget_bytes=1000)
        await house.get(cache, uris["a"], "a")
        await house.get(cache, uris["b"], "b")
        await cache.release("lease-b")
        async with running(cache) as ahead:
            ahead.expect([expected("c", uris["c"]), expected("d", uris["d"])])
            await eventually(lambda: server.asked.count("/d") == 1)
            await until_pinned(cache, {"a": ("job-a",), "c": ("job-c",)})
            await cache.release("lease-a")
            await house.get(cache, uris["d"], "d")
            assert await pins(cache) == {"c": ("job-c",), "d": ("job-d",)}, "a went before c"
            await house.get(cache, uris["a"], "a")
            assert await pins(cache) == {"a": ("job-a",), "d": ("job-d",)}, "and c for a lease"
            with pytest.raises(CannotFetch, match="has room for"):
                await house.get(cache, uris["b"], "b")
