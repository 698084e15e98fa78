"""What is kept in memory for followers: the end, without holes, within bounds."""

import gc
import tracemalloc

from coordinator.streams.chunk import Chunk
from coordinator.streams.intake import spread, take
from coordinator.streams.protocol import Bounds, Latest, Placed
from coordinator.streams.tails import (
    ALL_BYTES,
    JOB_BYTES,
    JOBS_MAX,
    POINTS,
    News,
    Tails,
)
from tests.contract.streams.samples import batch, point


def news(first: int, count: int = 10, size: int = 100) -> News:
    """Lines at positions from `first`, which are said to weigh `size` bytes."""
    accepted = take(batch(0, [str(first + index) for index in range(count)]), 0)
    assert accepted is not None
    chunk = Chunk.of(batch(0).source, first, accepted)
    return News(
        log=Bounds(first=1, last=chunk.last),
        metrics=Bounds(first=1, last=0),
        latest=Latest(progress=float(first)),
        chunks=[(chunk, size)],
    )


def test_the_oldest_chunks_of_a_job_leave_memory() -> None:
    tails = Tails()
    for number in range(20):
        tails.publish("job", news(1 + 10 * number, size=JOB_BYTES // 5))
    tail = tails.get("job")
    assert tail is not None
    assert tail.bytes <= JOB_BYTES
    assert tail.lines(0, 10, rank=None, min_level=0) is None
    lines, looked = tail.lines(195, 10, rank=None, min_level=0) or ([], 0)
    assert [line.position for line in lines] == [196, 197, 198, 199, 200]
    assert looked == 200


def test_the_newest_chunk_stays_however_large_it_is() -> None:
    tails = Tails()
    for first in (1, 11):
        tails.publish("job", news(first, size=2 * JOB_BYTES))
    tail = tails.get("job")
    assert tail is not None
    assert [chunk.first for chunk in tail.chunks.entries] == [11]


def test_all_jobs_together_are_bounded_and_the_least_used_is_forgotten() -> None:
    tails = Tails()
    amount = ALL_BYTES // JOB_BYTES
    for number in range(amount + 10):
        tails.publish(f"job-{number}", news(1, size=JOB_BYTES - 10_000))
        tails.get("job-0")
    kept = [number for number in range(amount + 10) if tails.get(f"job-{number}")]
    assert len(kept) <= amount
    assert kept[0] == 0
    assert kept[-1] == amount + 9


def test_jobs_without_lines_are_bounded_too() -> None:
    tails = Tails()
    for number in range(JOBS_MAX + 5):
        tails.publish(f"job-{number}", news(1, count=1, size=0))
    assert tails.get("job-0") is None
    assert tails.get("job-5") is not None


def test_lines_are_made_once_for_all_who_ask() -> None:
    tails = Tails()
    tails.publish("job", news(1))
    tail = tails.get("job")
    assert tail is not None
    first, second = (tail.lines(0, 10, rank=None, min_level=0) for _ in range(2))
    assert first is not None
    assert second is not None
    assert all(one is other for one, other in zip(first[0], second[0], strict=True))


def test_the_newest_points_are_kept() -> None:
    tails = Tails()
    count = 2 * POINTS
    for position in range(1, count + 1):
        one = news(position, count=1)
        one.metrics = Bounds(first=1, last=position)
        one.placed = [Placed(position=position, point=point(position))]
        tails.publish("job", one)
    tail = tails.get("job")
    assert tail is not None
    assert tail.points(0, 10) is None
    found = tail.points(count - 3, 2)
    assert found is not None
    assert [placed.position for placed in found] == [count - 2, count - 1]
    assert tail.points(count, 10) == []


def wide(position: int, count: int = 1000) -> News:
    """A point of many values at a position."""
    one = news(position, count=1)
    one.chunks = []
    one.log, one.metrics = Bounds(first=1, last=0), Bounds(first=1, last=position)
    values = tuple((f"a-rather-long-name-{position}-{number}", 0.1) for number in range(count))
    one.placed = [Placed(position=position, point=point(position, values=values))]
    one.latest = Latest(point=one.placed[0].point)
    return one


def test_points_of_many_values_are_bounded_by_what_they_take() -> None:
    tails = Tails()
    for position in range(1, 50):
        tails.publish("job", wide(position))
    tail = tails.get("job")
    assert tail is not None
    assert tail.bytes <= JOB_BYTES
    found = tail.points(46, 10) or []
    assert [placed.position for placed in found] == [47, 48, 49]
    assert tail.points(0, 10) is None


def test_what_points_take_is_counted_as_it_is() -> None:
    gc.collect()
    tracemalloc.start()
    try:
        tails = Tails()
        for number in range(50):
            tails.publish(f"job-{number}", wide(1))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counted = sum(tail.bytes for number in range(50) if (tail := tails.get(f"job-{number}")))
    assert 0.8 * counted < taken < 1.2 * counted


def test_the_newest_figures_of_all_jobs_are_bounded_by_what_they_take() -> None:
    tails = Tails()
    for number in range(1_000):
        tails.learn(f"job-{number}", wide(1).latest)
    known, _ = tails.latest([f"job-{number}" for number in range(1_000)])
    assert 300 < len(known) < 600
    assert "job-999" in known


def test_figures_that_were_read_never_replace_newer_ones() -> None:
    tails = Tails()
    assert tails.latest(["job"]) == ({}, ["job"])
    tails.publish("job", news(1))
    tails.learn("job", None)
    tails.learn("other", None)
    assert tails.latest(["job", "other"]) == ({"job": Latest(progress=1.0)}, [])
    tails.forget("job")
    assert tails.latest(["job"]) == ({}, ["job"])
    assert tails.get("job") is None


def test_an_even_spread_has_its_ends() -> None:
    assert spread(1, 0, 10) == []
    assert spread(5, 5, 10) == [5]
    assert spread(1, 1000, 3) == [1, 500, 1000]
    assert spread(11, 20, 1) == [20]
    for most in range(2, 40):
        found = spread(7, 36, most)
        assert (found[0], found[-1], len(found)) == (7, 36, min(most, 30))
        assert found == sorted(set(found))
