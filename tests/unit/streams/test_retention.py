"""The logs of all jobs share a budget: who has ended gives first, and what is gone is told."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from coordinator.streams import retention
from coordinator.streams.protocol import Bounds, StreamsUnavailable
from coordinator.streams.retention import keep_within
from coordinator.streams.sqlite import SqliteStreams
from tests.contract.streams.samples import batch, source, texts
from tests.unit.streams.test_embedded import broken

ROUNDS = 10


@pytest.fixture
async def streams(tmp_path: Path) -> AsyncIterator[SqliteStreams]:
    """Jobs a, b, c with ten chunks each, about equally large."""
    streams = SqliteStreams(tmp_path / "streams.db")
    await streams.open()
    for number in range(ROUNDS):
        for job_id in "abc":
            line = f"{number}" + "x" * 999
            await streams.append([batch(1001 * number, [line], of=source(job_id))])
    yield streams
    await streams.close()


async def kept(streams: SqliteStreams) -> dict[str, list[int]]:
    """Which lines each job has."""
    return {one: [int((text or "-1")[0]) for text in await texts(streams, one)] for one in "abc"}


ALL = list(range(ROUNDS))


async def test_within_the_budget_nothing_goes(streams: SqliteStreams) -> None:
    await streams.prune(40_000, lambda job_id: False)
    assert await kept(streams) == {"a": ALL, "b": ALL, "c": ALL}


async def test_the_oldest_ended_job_gives_first_and_only_what_is_needed(
    streams: SqliteStreams,
) -> None:
    await streams.prune(18_000, lambda job_id: job_id == "a")
    found = await kept(streams)
    assert (found["a"], found["b"]) == (ALL, [])
    assert found["c"] == ALL[-len(found["c"]) :]
    assert 5 <= len(found["c"]) <= 8
    assert await streams.log_bounds("b") == Bounds(first=11, last=10)


async def test_when_all_live_the_largest_gives_its_oldest_lines(streams: SqliteStreams) -> None:
    for number in range(ROUNDS, 2 * ROUNDS):
        await streams.append([batch(1001 * number, ["9" * 1000], of=source("b"))])
    await streams.prune(30_000, lambda job_id: True)
    found = await kept(streams)
    assert (found["a"], found["c"]) == (ALL, ALL)
    assert 5 <= len(found["b"]) <= 10


async def test_positions_go_on_after_a_cut_and_across_a_restart(streams: SqliteStreams) -> None:
    await streams.prune(1, lambda job_id: job_id != "a")
    await streams.append([batch(1001 * ROUNDS, ["more"], of=source("a"))])
    for _ in range(2):
        assert await texts(streams, "a") == ["more"]
        assert await streams.log_bounds("a") == Bounds(first=11, last=11)
        assert await streams.append([batch(0, ["old"], of=source("a"))]) == [1001 * ROUNDS + 5]
        await streams.close()
        await streams.open()


async def test_after_a_fault_it_looks_again(
    streams: SqliteStreams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOOKS_EVERY_S", 0)
    path = tmp_path / "streams.db"
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        broken(connection, "chunks"),
        pytest.raises(StreamsUnavailable),
    ):
        await streams.prune(1, lambda job_id: False)
    keeping = asyncio.create_task(keep_within(streams, 1, lambda job_id: False))
    bell = streams.subscribe("c")
    assert await bell.wait(10)
    bell.close()
    assert await kept(streams) == {"a": [], "b": [], "c": []}
    keeping.cancel()
    with suppress(asyncio.CancelledError):
        await keeping
