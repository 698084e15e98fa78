"""The clock that decisions are made by."""

from __future__ import annotations

from coordinator.runtime.clock import Clock

DAY_MS = 86_400_000


class Time:
    """A wall clock that can be set, and real time that only passes."""

    def __init__(self) -> None:
        self.wall_ms = 1_000_000.0
        self.elapsed_ms = 500.0

    def passes(self, ms: float) -> None:
        self.wall_ms += ms
        self.elapsed_ms += ms

    def clock(self) -> Clock:
        return Clock(lambda: self.wall_ms, lambda: self.elapsed_ms)


def test_it_follows_the_wall_clock() -> None:
    time = Time()
    clock = time.clock()
    time.passes(1234)
    assert clock.now_ms() == 1_001_234


def test_a_wall_clock_set_forward_by_a_day_moves_it_by_a_tenth_of_what_passes() -> None:
    time = Time()
    clock = time.clock()
    time.wall_ms += DAY_MS
    time.passes(10_000)
    assert clock.now_ms() == 1_011_000


def test_a_wall_clock_set_back_by_a_day_never_takes_it_back() -> None:
    time = Time()
    clock = time.clock()
    time.wall_ms -= DAY_MS
    time.passes(10_000)
    assert clock.now_ms() == 1_009_000
    assert clock.now_ms() == 1_009_000


def test_it_meets_a_wall_clock_that_was_set_a_little() -> None:
    time = Time()
    clock = time.clock()
    time.wall_ms += 500
    time.passes(10_000)
    assert clock.now_ms() == int(time.wall_ms)
