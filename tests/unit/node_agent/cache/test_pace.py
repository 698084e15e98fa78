"""The pace of a node: what is counted of its fetches, what is told of that, and what is kept."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.cache.pace import (
    FADE_S,
    FELL,
    LEAST_BYTES,
    MOST_BYTES,
    NOTHING,
    ROSE,
    Amount,
    Pace,
    read_pace,
    step,
    write_pace,
)

MB = 1_000_000
MANY = 10 * LEAST_BYTES
SIZES = st.integers(LEAST_BYTES, MANY)
TIMES = st.floats(0.01, 30)


def fetched(pace: Pace, *, size_bytes: int, from_s: float, to_s: float) -> None:
    """One fetch, alone."""
    pace.begin(from_s)
    pace.come(size_bytes, to_s)
    pace.end()


def test_it_is_what_came_over_the_time_in_which_it_came() -> None:
    pace = Pace()
    fetched(pace, size_bytes=100 * MB, from_s=5, to_s=7)
    fetched(pace, size_bytes=50 * MB, from_s=1000, to_s=1001)
    assert pace.total == Amount(150 * MB, 3)
    assert pace.told_bytes_per_s == step(50 * MB)


def test_of_fetches_at_once_the_time_counts_once() -> None:
    pace = Pace()
    pace.begin(0)
    pace.begin(2)
    pace.come(60 * MB, 6)
    pace.end()
    pace.come(40 * MB, 10)
    pace.end()
    assert pace.total == Amount(100 * MB, 10)


@given(st.lists(st.tuples(TIMES, SIZES, st.booleans()), min_size=1, max_size=30))
def test_however_fetches_overlap_a_wire_that_is_used_all_the_time_has_its_own_pace(
    given: list[tuple[float, int, bool]],
) -> None:
    pace, now_s, came, fetches = Pace(), 0.0, 0, 1
    pace.begin(now_s)
    for after_s, _, begins in given:
        now_s += after_s
        came += int(after_s * 1000 * MB)
        pace.come(int(after_s * 1000 * MB), now_s)
        if begins:
            pace.begin(now_s)
            fetches += 1
        elif fetches > 1:
            pace.end()
            fetches -= 1
    if came >= LEAST_BYTES:
        assert pace.total.bytes_per_s == pytest.approx(1000 * MB, rel=0.001)
    assert pace.total.time_s <= FADE_S


def test_a_fetch_that_is_broken_off_counts_up_to_what_came_last_by_it() -> None:
    pace = Pace()
    pace.begin(0)
    pace.come(50 * MB, 1)
    pace.end()  # after a minute in which nothing came
    assert pace.total == Amount(50 * MB, 1)
    fetched(pace, size_bytes=50 * MB, from_s=61, to_s=62)
    assert pace.total == Amount(100 * MB, 2)
    pace.begin(100)
    pace.end()
    assert pace.total == Amount(100 * MB, 2)


@given(st.lists(st.tuples(st.integers(0, LEAST_BYTES - 1), TIMES), max_size=100))
def test_little_pieces_say_nothing(pieces: list[tuple[int, float]]) -> None:
    pace = Pace()
    now_s = 0.0
    for size_bytes, time_s in pieces:
        fetched(pace, size_bytes=size_bytes, from_s=now_s, to_s=now_s + time_s)
        now_s += time_s + 1
    assert (pace.total, pace.told_bytes_per_s) == (NOTHING, 0)


def test_what_comes_without_a_pause_is_told_once_it_is_enough_also_while_it_goes_on() -> None:
    pace = Pace()
    pace.begin(0)
    for n in range(1, 8):
        pace.come(LEAST_BYTES // 8, n)
    assert pace.total == NOTHING
    pace.come(LEAST_BYTES // 8, 8)
    assert pace.total == Amount(LEAST_BYTES, 8)
    pace.come(1, 9)
    assert pace.total == Amount(LEAST_BYTES + 1, 9)


def test_what_is_old_fades() -> None:
    pace = Pace()
    for n in range(20):
        fetched(pace, size_bytes=30_000 * MB, from_s=n * 60, to_s=n * 60 + 30)
    assert pace.told_bytes_per_s == step(1000 * MB)
    for n in range(20, 80):
        fetched(pace, size_bytes=3_000 * MB, from_s=n * 60, to_s=n * 60 + 30)
    assert pace.total.bytes_per_s < 200 * MB


def test_a_source_that_drips_for_hours_is_forgotten_and_not_believed() -> None:
    pace = Pace()
    fetched(pace, size_bytes=MANY, from_s=0, to_s=1)
    pace.begin(10)
    for n in range(400):
        pace.come(1000, 10 + n * 60)
    pace.end()
    assert pace.told_bytes_per_s == step(MANY), "too little of it came without a pause"
    pace.begin(100_000)
    pace.come(LEAST_BYTES, 100_001)
    for n in range(400):
        pace.come(1000, 100_001 + n * 60)
    assert pace.told_bytes_per_s == 0


@given(st.lists(st.tuples(SIZES, TIMES), min_size=1, max_size=40))
def test_what_is_told_is_near_and_every_change_of_it_is_said(
    fetches: list[tuple[int, float]],
) -> None:
    pace, said, now_s = Pace(), [0], 0.0
    pace.on_change = lambda: said.append(pace.told_bytes_per_s)
    for size_bytes, time_s in fetches:
        fetched(pace, size_bytes=size_bytes, from_s=now_s, to_s=now_s + time_s)
        now_s += time_s
        told, true = pace.told_bytes_per_s, pace.total.bytes_per_s
        assert told * FELL <= true < told * ROSE
        assert told == said[-1]
    assert all(one != other for one, other in itertools.pairwise(said))


@given(st.floats(0.9, 1.1))
def test_fetches_that_are_a_little_faster_or_slower_change_nothing(factor: float) -> None:
    pace = Pace()
    fetched(pace, size_bytes=112 * MB, from_s=0, to_s=1)
    said: list[int] = []
    pace.on_change = lambda: said.append(pace.told_bytes_per_s)
    for n in range(50):
        fetched(pace, size_bytes=112 * MB, from_s=10 * n + 1, to_s=10 * n + 1 + factor ** (n % 3))
    assert not said


@given(st.integers(0, MOST_BYTES * 1000))
def test_steps_are_below_and_at_most_a_quarter_apart(bytes_per_s: int) -> None:
    told = step(bytes_per_s)
    assert told <= bytes_per_s <= told * 1.25
    assert step(told) == told


@given(st.integers(0, MOST_BYTES), st.floats(0, FADE_S))
def test_what_is_written_down_is_what_the_next_agent_begins_with(
    tmp_path_factory: pytest.TempPathFactory, size_bytes: int, time_s: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "pace.json"
    written = Amount(size_bytes, time_s)
    write_pace(path, written)
    pace = Pace()
    pace.take_over(read_pace(path))
    assert pace.total == written
    assert pace.told_bytes_per_s == step(written.bytes_per_s)
    assert 0 <= pace.told_bytes_per_s < 1 << 63


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b'{"size_bytes": -1, "time_s": 1}',
        b'{"size_bytes": 1, "time_s": -1}',
        b'{"size_bytes": 1, "time_s": 1e300}',
        b'{"size_bytes": 1, "time_s": NaN}',
        b'{"size_bytes": 1e300, "time_s": 1}',
        b'{"size_bytes": "many", "time_s": 1}',
    ],
)
def test_a_file_that_says_something_else_says_nothing(tmp_path: Path, found: bytes) -> None:
    path = tmp_path / "pace.json"
    path.write_bytes(found)
    assert read_pace(path) == NOTHING


def test_no_file_says_nothing(tmp_path: Path) -> None:
    assert read_pace(tmp_path / "none") == NOTHING
