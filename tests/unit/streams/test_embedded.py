"""What is particular to streams in SQLite: memory for followers, doubt after a fault, bounded work."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordinator.streams import growth, reading, writing
from coordinator.streams.protocol import Append, Bounds, StreamsUnavailable
from coordinator.streams.sqlite import SqliteStreams
from coordinator.streams.tails import News
from tests.contract.streams.samples import JOB, all_lines, batch, point, points, source, texts


@pytest.fixture
async def streams(tmp_path: Path) -> AsyncIterator[SqliteStreams]:
    streams = SqliteStreams(tmp_path / "streams.db")
    await streams.open()
    yield streams
    await streams.close()


@pytest.fixture
def other(streams: SqliteStreams, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody else to the same file."""
    with closing(sqlite3.connect(tmp_path / "streams.db", isolation_level=None)) as connection:
        yield connection


@contextmanager
def broken(connection: sqlite3.Connection, table: str) -> Iterator[None]:
    """A file in which a table is missing."""
    connection.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    yield
    connection.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


async def test_followers_read_memory_and_never_the_disk(
    streams: SqliteStreams, other: sqlite3.Connection
) -> None:
    await streams.append([batch(0, ["a", "b"]), points(0, [1])])
    for table in ("chunks", "points", "jobs"):
        other.execute(f"DELETE FROM {table}")
    assert await texts(streams) == ["a", "b"]
    assert [placed.point for placed in await streams.points(JOB, after=0, limit=5)] == [point(1)]
    assert await streams.log_bounds(JOB) == Bounds(first=1, last=2)
    assert (await streams.latest([JOB]))[JOB].point == point(1)


@pytest.mark.parametrize("table", ["chunks", "sources", "jobs"])
async def test_after_a_fault_the_same_append_lands_once(
    streams: SqliteStreams, other: sqlite3.Connection, table: str
) -> None:
    await streams.append([batch(0, ["a"])])
    again = batch(2, ["b"])
    with broken(other, table), pytest.raises(StreamsUnavailable, match="no such table"):
        await streams.append([again, batch(0, ["x"], of=source("job_2"))])
    assert await texts(streams) == ["a"]
    assert await streams.append([again, again]) == [4, 4]
    await streams.close()
    await streams.open()
    assert await texts(streams) == ["a", "b"]
    assert await streams.log_bounds("job_2") == Bounds(first=1, last=0)


async def test_what_landed_though_its_append_failed_is_shown(
    streams: SqliteStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    await streams.append([batch(0, ["a"])])
    append = streams._disk.append

    async def lands_and_fails(batches: Sequence[Append]) -> tuple[list[int], dict[str, News]]:
        await append(batches)
        raise StreamsUnavailable("it is not known whether the disk took it")

    with monkeypatch.context() as patch:
        patch.setattr(streams._disk, "append", lands_and_fails)
        with pytest.raises(StreamsUnavailable):
            await streams.append([batch(2, ["b"])])
    assert await streams.append([batch(2, ["b"])]) == [4]
    assert await texts(streams) == ["a", "b"]
    assert await streams.log_bounds(JOB) == Bounds(first=1, last=2)


async def test_an_append_whose_caller_left_lands_all_the_same(streams: SqliteStreams) -> None:
    pushes = [
        asyncio.create_task(streams.append([batch(0, ["x"], of=source(rank=rank))]))
        for rank in range(3)
    ]
    await asyncio.sleep(0)
    pushes[1].cancel()
    await asyncio.gather(*pushes, return_exceptions=True)
    assert pushes[1].cancelled()
    assert [line.rank for line in await all_lines(streams)] == [0, 1, 2]


async def test_closing_waits_for_what_was_pushed(tmp_path: Path) -> None:
    streams = SqliteStreams(tmp_path / "streams.db")
    await streams.open()
    push = asyncio.create_task(streams.append([batch(0, ["a"])]))
    await asyncio.sleep(0)
    await streams.close()
    assert await push == [2]


async def test_one_look_reads_a_bounded_part_of_a_long_log(
    streams: SqliteStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = 0
    for number in range(50):
        one = batch(begin, [f"{number:02d}"], levels=[5 if number == 49 else 3])
        begin, _ = await streams.append([one, batch(begin, ["xx"], of=source(rank=1))])
    await streams.close()
    await streams.open()
    monkeypatch.setattr(reading, "SCANNED_BYTES", 100)
    looks, after, found = 0, 0, []
    while after < 100:
        some, after = await streams.lines(JOB, after=after, limit=1000, rank=0, min_level=3)
        found += some
        looks += 1
    assert len(found) == 50
    assert looks > 5
    assert await streams.lines(JOB, after=0, limit=9, min_level=5) == ([found[-1]], 100)


async def test_the_oldest_points_leave_in_lumps(
    streams: SqliteStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "POINTS_MAX", 100)
    monkeypatch.setattr(growth, "POINTS_SLACK", 10)
    for number in range(0, 400, 7):
        await streams.append([points(10 * number, range(number, number + 7))])
    bounds = await streams.metrics_bounds(JOB)
    assert bounds.last == 406
    assert 100 <= bounds.last - bounds.first + 1 <= 110
    found, count = await streams.sampled(JOB, max_points=1000)
    assert [one.step for one in found] == list(range(bounds.first - 1, 406))
    assert count == len(found)


async def test_what_a_crash_left_of_a_drop_is_deleted_by_the_next(
    streams: SqliteStreams, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "COLLECTED", (("chunks", "last", 3), ("points", "position", 3)))
    for number in range(10):
        await streams.append([batch(2 * number, ["a"]), points(10 * number, [number])])
    await streams.append([batch(0, ["b"], of=source("job_2"))])
    other.execute("INSERT INTO dropped SELECT number FROM jobs WHERE job_id = ?", (JOB,))
    other.execute("DELETE FROM jobs WHERE job_id = ?", (JOB,))
    await streams.drop("job_2")
    for table in ("jobs", "chunks", "points", "sources", "dropped"):
        assert other.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


async def test_what_is_known_of_jobs_is_bounded(
    streams: SqliteStreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "JOBS_KNOWN_MAX", 2)
    for begin in (0, 2):
        for number in range(5):
            assert await streams.append([batch(begin, ["a"], of=source(f"job_{number}"))]) == [
                begin + 2
            ]
    assert await texts(streams, "job_0") == ["a", "a"]


async def test_large_batches_are_kept_small_on_disk(
    streams: SqliteStreams, other: sqlite3.Connection
) -> None:
    await streams.append([batch(0, ["the same line again"] * 5000)])
    size, stored = other.execute("SELECT bytes, length(body) FROM chunks").fetchone()
    assert stored < size / 10
    await streams.close()
    await streams.open()
    assert await texts(streams) == ["the same line again"] * 5000
