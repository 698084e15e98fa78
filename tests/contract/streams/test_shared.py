"""Streams that several processes share: only the leader appends, and the next one goes on from there."""

import asyncio
from pathlib import Path

import pytest

from coordinator.store.redis import RedisStore
from coordinator.streams.protocol import Bounds, StreamsUnavailable
from coordinator.streams.redis import RedisStreams
from tests.contract.streams.samples import JOB, all_lines, batch, source, texts
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer, shared


class Side:
    """What one coordinator has."""

    def __init__(self, path: Path, name: str) -> None:
        self.store = RedisStore(shared().url, path / name, prefix=str(path))
        self.streams = RedisStreams(shared().url, lambda: self.store.epoch, prefix=str(path))

    async def lead(self, *, after: "Side | None" = None) -> None:
        if after is not None:
            await after.store.renew(after.store.epoch, ttl_s=0)
        await self.store.open()
        await self.store.acquire(str(id(self)), ttl_s=60)
        await self.streams.open()

    async def close(self) -> None:
        await self.streams.close()
        await self.store.close()


async def test_the_next_leader_goes_on_and_the_one_before_changes_nothing(tmp_path: Path) -> None:
    first, second = Side(tmp_path, "first.id"), Side(tmp_path, "second.id")
    await first.lead()
    (end,) = await first.streams.append([batch(0, ["a", "b"])])
    await second.lead(after=first)
    with pytest.raises(StreamsUnavailable, match="leads"):
        await first.streams.append([batch(end, ["lost"])])
    with pytest.raises(StreamsUnavailable, match="leads"):
        await first.streams.drop(JOB)
    (again,) = await second.streams.append([batch(0, ["a", "b"])])
    assert again == end
    await second.streams.append([batch(end, ["c"])])
    lines = await all_lines(second.streams)
    assert [(line.position, line.text) for line in lines] == [(1, "a"), (2, "b"), (3, "c")]
    # the former one's append failed; as it may have landed, what it knew is read anew
    assert await all_lines(first.streams) == lines
    await asyncio.gather(first.close(), second.close())


async def test_knowledge_that_is_out_of_date_is_read_anew(tmp_path: Path) -> None:
    sides = [RedisStreams(shared().url, prefix=str(tmp_path)) for _ in range(2)]
    for one in sides:
        await one.open()
    for number in range(6):  # nobody ever led: both may append; each sends all there is
        await sides[number % 2].append([batch(0, list("012345"[: number + 1]))])
    late = RedisStreams(shared().url, prefix=str(tmp_path))
    await late.open()
    assert [line.text for line in await all_lines(late)] == list("012345")
    for one in (*sides, late):
        await one.close()


async def test_all_logs_keep_within_a_budget_together(tmp_path: Path) -> None:
    streams = RedisStreams(shared().url, prefix=str(tmp_path))
    await streams.open()
    for number in range(10):
        for job_id in "abc":
            line = f"{number}" + "x" * 999
            await streams.append([batch(1001 * number, [line], of=source(job_id))])
    await streams.prune(40_000, lambda job_id: False)
    assert [len(await texts(streams, job_id)) for job_id in "abc"] == [10, 10, 10]
    await streams.drop("c")
    await streams.prune(8_000, lambda job_id: job_id == "a")
    assert await texts(streams, "b") == []
    assert 5 <= len(await texts(streams, "a")) <= 8
    await streams.append([batch(10_010, ["more"], of=source("a"))])
    assert (await texts(streams, "a"))[-1] == "more"
    assert await streams.log_bounds("b") == Bounds(first=11, last=10)
    await streams.prune(0, lambda job_id: False)
    assert await texts(streams, "a") == []
    await streams.close()


async def test_every_acknowledged_line_survives_kill_9_of_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "r", fsync="always") as server:
        streams = RedisStreams(server.url)
        await streams.open()
        told = 0
        enough = asyncio.Event()

        async def push() -> None:
            nonlocal told
            end = told
            for count in range(1_000_000):
                (told,) = await streams.append([batch(end, [f"{end:06d}"])])
                end = told
                if count == 50:
                    enough.set()

        for _ in range(3):
            enough.clear()
            pushing = asyncio.create_task(push())
            await enough.wait()
            server.kill()
            with pytest.raises(StreamsUnavailable):
                await pushing
            server.start()
            (told,) = await streams.append([batch(0)])
        late = RedisStreams(server.url)
        await late.open()
        lines = await all_lines(late)
        assert [line.position for line in lines] == list(range(1, len(lines) + 1))
        assert [line.text for line in lines] == [
            f"{number * 7:06d}" for number in range(len(lines))
        ]
        assert len(lines) >= told // 7
        await late.close()
        await streams.close()


async def test_what_landed_though_failure_was_reported_is_shown_to_those_who_follow(
    tmp_path: Path,
) -> None:
    with RedisServer(tmp_path / "r", fsync="no"):
        async with RedisProxy(tmp_path / "r" / "redis.sock", tmp_path / "p") as proxy:
            streams = RedisStreams(proxy.url)
            await streams.open()
            (end,) = await streams.append([batch(0, ["a"])])
            assert await texts(streams) == ["a"]
            proxy.on_disk = 0
            with pytest.raises(StreamsUnavailable):
                await streams.append([batch(end, ["b"])])
            proxy.on_disk = 1
            (end,) = await streams.append([batch(end, ["b", "c"])])
            lines, upto = await streams.lines(JOB, after=1, limit=10)
            assert ([line.text for line in lines], upto) == (["b", "c"], 3)
            await streams.close()
