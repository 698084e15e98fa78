"""Rates over HTTP, and the window that several gateways share."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.endpoint import Limits
from gateway.rates import Limiter, LocalWindow, Rates, Subject, Window
from gateway.rates_redis import PREFIX, RedisWindow
from scaimind.v1 import job_pb2
from tests.integration.gateway.scripted import OPEN, World, eventually, world
from tests.support.redis_server import RedisServer
from tests.support.redis_server import shared as shared_server
from tests.unit.gateway.windows import CONTRACT

LIMIT = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


@pytest.fixture
def redis() -> RedisServer:
    """A Redis in which nothing was counted."""
    server = shared_server()
    with closing(server.client()) as client:
        for key in counters(client):
            client.delete(key)
    return server


def counters(client: Any) -> list[bytes]:
    return list(client.scan_iter(f"{PREFIX}*"))


@pytest.fixture
async def shared(redis: RedisServer) -> AsyncIterator[RedisWindow]:
    """A shared window."""
    window = RedisWindow(redis.url, answers_within_s=60)
    yield window
    await window.close()


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="redis-") as made:
        yield Path(made)


async def found(request: Any, context: Any) -> Any:
    return job_pb2.Job(job_id=request.job_id)


async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
    await context.send_initial_metadata(OPEN)
    await asyncio.Event().wait()
    yield


def limited(rates: Rates, window: Window | None = None) -> Any:
    return world(limiter=Limiter(window or LocalWindow(), rates))


async def test_every_answer_tells_the_limit_and_the_last_is_a_refusal() -> None:
    async with limited(Rates(key=4)) as made:
        made.coordinator.scripts["GetJob"] = found
        paths = ("/jobs/a", "/jobs/b?no=1", "/jobs/c/cancel?x=%", "/jobs/d", "/jobs/e")
        answers = [await made.client.get(path) for path in paths]
        assert [answer.status_code for answer in answers] == [200, 422, 405, 200, 200]
        last = await made.client.get("/jobs/f")
    remaining = [answer.headers.get("x-ratelimit-remaining") for answer in answers]
    assert remaining == ["3", "2", None, "1", "0"]
    assert last.status_code == 429
    error = last.json()["error"]
    assert error["code"] == "RATE_LIMITED"
    assert int(last.headers["retry-after"]) == error["retry_after"]
    for name in LIMIT:
        assert last.headers[name] == last.headers[name.replace("x-", "x-scaigrid-")]
    assert last.headers["x-ratelimit-limit"] == "4"
    assert len(made.coordinator.requests) == 3


async def test_two_keys_of_a_user_share_the_users_limit() -> None:
    async with limited(Rates(user=2)) as made:
        made.coordinator.scripts["GetJob"] = found
        for expected in (200, 200, 429):
            key = {"authorization": "Bearer sgk_view"} if expected == 429 else {}
            assert (await made.client.get("/jobs/a", headers=key)).status_code == expected


async def test_without_a_limiter_nothing_is_told(running: World) -> None:
    running.coordinator.scripts["GetJob"] = found
    answer = await running.client.get("/jobs/a")
    assert not any("ratelimit" in name for name in answer.headers)


async def test_streams_of_a_user_are_bounded_and_given_back() -> None:
    async with world(limits=Limits(user_streams=1)) as made:
        made.coordinator.scripts["StreamJobLogs"] = endless
        async with made.client.stream("GET", "/jobs/a/logs") as first:
            assert first.status_code == 200
            second = await made.client.get("/jobs/b/logs")
            assert second.status_code == 429
            assert second.json()["error"]["retry_after"] == 5

        async def closed() -> bool:
            return not made.gateway.open_streams

        await eventually(closed)
        async with made.client.stream("GET", "/jobs/b/logs") as third:
            assert third.status_code == 200


@pytest.mark.parametrize("rule", CONTRACT)
async def test_the_contract_of_windows_in_redis(
    shared: RedisWindow, rule: Callable[[Window], Awaitable[None]]
) -> None:
    await rule(shared)


async def test_gateways_count_together(redis: RedisServer, shared: RedisWindow) -> None:
    async with aclosing_window(redis.url) as other:
        verdicts = await asyncio.gather(
            *(one.take([Subject("{a}:s", 10)]) for one in (shared, other) * 10)
        )
    assert sum(verdict.allowed for verdict in verdicts) == 10


async def test_a_place_in_redis_is_free_again_when_the_window_has_slid(redis: RedisServer) -> None:
    async with aclosing_window(redis.url, window_s=1) as window:
        began = time.monotonic()
        assert (await window.take([Subject("{a}:s", 1)])).allowed

        async def free() -> bool:
            return bool((await window.take([Subject("{a}:s", 1)])).allowed)

        await eventually(free)
        assert time.monotonic() - began >= 1


async def test_counters_expire_by_themselves(redis: RedisServer, shared: RedisWindow) -> None:
    await shared.take([Subject("{a}:s", 1)])
    with closing(redis.client()) as client:
        lives = [client.ttl(key) for key in counters(client)]
    assert lives
    assert all(0 < seconds <= 62 for seconds in lives)


async def test_each_gateway_counts_by_itself_while_redis_is_away(short_folder: Path) -> None:
    with RedisServer(short_folder) as mine:
        async with aclosing_window(mine.url) as window:
            assert (await window.take([Subject("{a}:s", 2)])).allowed
            mine.kill()
            with structlog.testing.capture_logs() as logs:
                verdicts = [await window.take([Subject("{a}:s", 2)]) for _ in range(4)]
            assert [verdict.allowed for verdict in verdicts] == [True, True, False, False]
            assert [entry["event"] for entry in logs] == ["rate_store_out_of_reach"]
            assert mine.url not in repr(logs)


def aclosing_window(url: str, *, window_s: int = 60) -> Any:
    class Closing(RedisWindow):
        async def aclose(self) -> None:
            await self.close()

    return aclosing(Closing(url, window_s=window_s, answers_within_s=60))
