"""When a training has been silent for too long: by its own cadence, or by the limit of its job."""

from __future__ import annotations

from node_agent.core.cadence import LOOK_MOST_MS, REPORTS_LEAST, Cadence

SECOND_MS = 1_000
MINUTE_MS = 60_000
BEGUN_MS = 1_700_000_000_000


class Clock:
    """A cadence that is looked at every second."""

    def __init__(self) -> None:
        self.now_ms = BEGUN_MS
        self.cadence = Cadence().look(self.now_ms)

    def passes(self, ms: int) -> Clock:
        for _ in range(ms // SECOND_MS):
            self.now_ms += SECOND_MS
            self.cadence = self.cadence.look(self.now_ms)
        return self

    def steps(self, count: int, *, every_ms: int) -> Clock:
        for _ in range(count):
            self.passes(every_ms)
            self.cadence = self.cadence.report(self.now_ms)
        return self

    def silent(self, limit_ms: int = 0) -> bool:
        return bool(self.cadence.silent_since_ms(limit_ms))


def test_who_has_never_shown_a_cadence_is_never_silent_for_too_long() -> None:
    assert not Clock().passes(200 * MINUTE_MS).silent()
    few = Clock().steps(REPORTS_LEAST - 1, every_ms=SECOND_MS)
    assert not few.passes(200 * MINUTE_MS).silent()


def test_a_limit_counts_from_the_start_and_from_each_report() -> None:
    clock = Clock().passes(MINUTE_MS - SECOND_MS)
    assert not clock.silent(MINUTE_MS)
    assert clock.passes(SECOND_MS).silent(MINUTE_MS)
    assert clock.cadence.silent_since_ms(MINUTE_MS) == BEGUN_MS
    clock.steps(1, every_ms=SECOND_MS)
    assert not clock.passes(MINUTE_MS - SECOND_MS).silent(MINUTE_MS)


def test_ten_times_the_longest_gap_is_too_long_and_never_less_than_five_minutes() -> None:
    quick = Clock().steps(50, every_ms=SECOND_MS)
    last_ms = quick.now_ms
    assert not quick.passes(5 * MINUTE_MS - SECOND_MS).silent()
    quick.passes(SECOND_MS)
    assert quick.cadence.silent_since_ms(0) == last_ms
    slow = Clock().steps(REPORTS_LEAST, every_ms=2 * MINUTE_MS)
    assert not slow.passes(20 * MINUTE_MS - SECOND_MS).silent()
    assert slow.passes(SECOND_MS).silent()
    slow.steps(1, every_ms=SECOND_MS)
    assert not slow.passes(200 * MINUTE_MS).silent()  # it has shown that it may take that long


def test_time_in_which_nobody_looked_is_no_silence() -> None:
    clock = Clock().steps(50, every_ms=SECOND_MS)
    clock.now_ms += 300 * MINUTE_MS  # the machine slept, or its clock was set
    clock.passes(SECOND_MS)
    assert not clock.silent()
    assert clock.cadence.silent_ms <= LOOK_MOST_MS + SECOND_MS
    clock.now_ms -= 600 * MINUTE_MS
    assert not clock.passes(SECOND_MS).silent()
