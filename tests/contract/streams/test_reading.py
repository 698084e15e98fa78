"""Reading from any position, with any filter, at once and by following."""

import asyncio
from itertools import pairwise

import pytest

from coordinator.streams.protocol import Bounds, Line, Streams
from tests.contract.streams.conftest import Home
from tests.contract.streams.samples import JOB, all_lines, batch, point, points, source, texts


@pytest.fixture(params=["warm", "cold"])
async def full(streams: Streams, home: Home, request: pytest.FixtureRequest) -> Streams:
    """300 lines of three ranks, levels 1 to 5, in chunks of different sizes; cold: not in memory."""
    begins = dict.fromkeys(range(3), 0)
    batches = []
    number = 0
    while number < 300:
        rank, size = number % 3, 1 + number % 7
        some = [str(number + index) for index in range(min(size, 300 - number))]
        levels = [1 + int(text) % 5 if rank else 2 for text in some]
        one = batch(begins[rank], some, levels=levels, of=source(rank=rank))
        batches.append(one)
        begins[rank] = one.end
        number += len(some)
    await streams.append(batches)
    if request.param == "cold":
        await streams.close()
        await streams.open()
    return streams


def passing(lines: list[Line], rank: int | None, min_level: int) -> list[Line]:
    return [line for line in lines if rank in (None, line.rank) and line.level >= min_level]


@pytest.mark.parametrize("rank", [None, 0, 1, 9])
@pytest.mark.parametrize("min_level", [0, 1, 2, 3, 5])
async def test_filters_keep_what_matches_from_any_position(
    full: Streams, rank: int | None, min_level: int
) -> None:
    lines = await all_lines(full)
    assert [line.text for line in lines] == [str(number) for number in range(300)]
    for after in (0, 1, 17, 150, 298, 299, 300):
        for limit in (1, 10, 1000):
            found, looked = await full.lines(
                JOB, after=after, limit=limit, rank=rank, min_level=min_level
            )
            matching = passing(lines[after:], rank, min_level)
            assert found == matching[:limit]
            assert looked == (found[-1].position if len(found) == limit else 300)


@pytest.mark.parametrize("rank", [None, 0, 1, 9])
@pytest.mark.parametrize("min_level", [0, 2, 3, 5])
async def test_a_tail_begins_where_so_many_matching_lines_are_left(
    full: Streams, rank: int | None, min_level: int
) -> None:
    matching = passing(await all_lines(full), rank, min_level)
    for count in (1, 2, 10, 100, 299, 300, 301, 1_000_000):
        start = await full.tail_start(JOB, count=count, rank=rank, min_level=min_level)
        found, _ = await full.lines(JOB, after=start, limit=1000, rank=rank, min_level=min_level)
        assert found == matching[-count:]
        if len(matching) <= count:
            assert start == 0 or len(matching) == count


async def test_a_tail_of_nothing_begins_at_the_end(full: Streams) -> None:
    assert await full.tail_start(JOB, count=0) == 300


async def test_a_job_that_nobody_knows_is_empty(streams: Streams) -> None:
    assert await streams.lines("nobody", after=0, limit=10) == ([], 0)
    assert await streams.lines("nobody", after=7, limit=10) == ([], 7)
    assert await streams.tail_start("nobody", count=10) == 0
    assert await streams.points("nobody", after=0, limit=10) == []
    assert await streams.sampled("nobody", max_points=10) == ([], 0)
    assert await streams.log_bounds("nobody") == Bounds(first=1, last=0)
    assert await streams.metrics_bounds("nobody") == Bounds(first=1, last=0)


async def test_nothing_is_beyond_the_end(full: Streams) -> None:
    assert await full.lines(JOB, after=300, limit=10) == ([], 300)
    assert await full.lines(JOB, after=999, limit=10) == ([], 999)
    assert await full.lines(JOB, after=0, limit=0) == ([], 0)
    assert await full.points(JOB, after=999, limit=10) == []


@pytest.mark.parametrize("opened_again", [False, True])
async def test_points_are_read_from_any_position(streams: Streams, opened_again: bool) -> None:
    pushes = [points(10 * first, range(first, first + 100)) for first in range(0, 2500, 100)]
    await streams.append(pushes[:20])
    await streams.append(pushes[20:])
    if opened_again:
        await streams.close()
        await streams.open()
    for after in (0, 1, 1499, 1500, 2499, 2500):
        for limit in (0, 1, 1000, 5000):
            found = await streams.points(JOB, after=after, limit=limit)
            expected = range(after, min(after + limit, 2500))
            assert [(one.position, one.point.step) for one in found] == [
                (step + 1, step) for step in expected
            ]


@pytest.mark.parametrize("max_points", [1, 2, 3, 10, 99, 100, 101])
async def test_a_sample_is_even_and_keeps_the_first_and_the_last(
    streams: Streams, max_points: int
) -> None:
    await streams.append([points(0, range(100))])
    found, count = await streams.sampled(JOB, max_points=max_points)
    steps = [one.step for one in found]
    assert count == 100
    assert len(steps) == min(max_points, 100)
    assert steps[-1] == 99
    if max_points > 1:
        assert steps[0] == 0
        gaps = [later - earlier for earlier, later in pairwise(steps)]
        assert max(gaps) - min(gaps) <= 1
    assert found[-1] == point(99)


async def test_a_follower_is_woken_when_the_lines_can_be_read(streams: Streams) -> None:
    subscription = streams.subscribe(JOB)
    pushed = asyncio.create_task(streams.append([batch(0, ["a"])]))
    assert await subscription.wait(10)
    assert await texts(streams) == ["a"]
    await pushed
    await streams.append([points(0, [1])])
    assert await subscription.wait(10)
    subscription.close()


async def test_a_follower_is_not_woken_by_other_jobs_or_by_nothing(streams: Streams) -> None:
    subscription = streams.subscribe(JOB)
    await streams.append([batch(0, ["a"], of=source("job_2"))])
    assert not await subscription.wait(0.01)
    await streams.append([batch(0, ["a"])])
    await streams.append([batch(2, ["b"])])
    assert await subscription.wait(0)
    assert not await subscription.wait(0)
    subscription.close()


async def test_a_closed_subscription_leaves_the_others(streams: Streams) -> None:
    first, second = streams.subscribe(JOB), streams.subscribe(JOB)
    first.close()
    first.close()
    await streams.append([batch(0, ["a"])])
    assert await second.wait(10)
    assert not await first.wait(0)
    second.close()


async def test_many_followers_each_see_every_line_once(streams: Streams) -> None:
    async def follow() -> list[int]:
        subscription = streams.subscribe(JOB)
        seen: list[int] = []
        after = 0
        while len(seen) < 200:
            lines, after = await streams.lines(JOB, after=after, limit=7)
            seen.extend(line.position for line in lines)
            if not lines:
                assert await subscription.wait(10)
        subscription.close()
        return seen

    followers = [asyncio.create_task(follow()) for _ in range(20)]
    for number in range(100):
        await streams.append([batch(4 * number, ["a", "b"])])
    for seen in await asyncio.gather(*followers):
        assert seen == list(range(1, 201))
