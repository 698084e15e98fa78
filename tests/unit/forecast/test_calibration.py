"""What was foretold against what came makes the next forecast honest."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from heapq import heappop, heappush

import pytest

from coordinator.forecast.calibration import (
    LEANS_ON,
    OF_A_LOOK,
    OPEN_MAX,
    STEPS,
    Calibration,
)

MINUTE_MS = 60_000
DAY_MS = 86_400_000
MANY = 400


def learn(known: Calibration, forecast_ms: int, actual_ms: int) -> None:
    known.tell("job", 0, wait_ms=forecast_ms)
    known.start("job", actual_ms)


def covered(
    seed: int, actual_ms: Callable[[random.Random, int, int], float], *, jobs: int = 800
) -> float:
    """Which part starts by the time that it was told, of a stream of jobs that come every ten minutes
    or so; `actual_ms` says of the dice, the job's number and its forecast when it starts. None is told
    less than the median."""
    dice = random.Random(seed)
    known = Calibration()
    starts: list[tuple[int, str]] = []
    now_ms = count = 0
    for number in range(jobs):
        now_ms += round(dice.expovariate(1 / (10 * MINUTE_MS)))
        while starts and starts[0][0] <= now_ms:
            known.start(*reversed(heappop(starts)))  # type: ignore[arg-type]
        forecast_ms = round(dice.lognormvariate(0.0, 1.5) * 60 * MINUTE_MS)
        wait_ms = round(actual_ms(dice, number, forecast_ms))
        median_ms, late_ms = known.range_ms(forecast_ms, now_ms)
        assert median_ms <= late_ms
        count += wait_ms <= late_ms
        known.tell(f"job {number}", now_ms, wait_ms=forecast_ms)
        heappush(starts, (now_ms + wait_ms, f"job {number}"))
    return count / jobs


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bias", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("spread", [0.2, 1.2])
def test_nine_of_ten_come_within_what_was_told_however_wrong_forecasts_are(
    seed: int, bias: float, spread: float
) -> None:
    found = covered(seed, lambda dice, _, ms: ms * bias * dice.lognormvariate(0.0, spread))
    assert 0.85 <= found <= 0.95


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("growth", [0.25, 0.5, 2.0])
def test_nine_of_ten_come_within_what_was_told_though_the_queue_becomes_slower_or_faster(
    seed: int, growth: float
) -> None:
    """By that factor in each quarter of the stream."""

    def actual_ms(dice: random.Random, number: int, ms: int) -> float:
        return ms * math.pow(growth, number / 375) * dice.lognormvariate(0.0, 0.4)

    assert 0.85 <= covered(seed, actual_ms, jobs=1_500) <= 0.95


@pytest.mark.parametrize("seed", range(3))
def test_one_in_five_that_waits_thirty_times_as_long_does_not_mislead_for_good(seed: int) -> None:
    def actual_ms(dice: random.Random, _: int, ms: int) -> float:
        return ms * (30.0 if dice.random() < 0.2 else 1.0) * dice.lognormvariate(0.0, 0.3)

    assert 0.85 <= covered(seed, actual_ms) <= 0.96


def test_before_enough_is_known_a_wide_margin_is_told() -> None:
    known = Calibration()
    median_ms, late_ms = known.range_ms(MINUTE_MS, 0)
    assert median_ms == MINUTE_MS
    assert 4.9 * MINUTE_MS < late_ms < 5.1 * MINUTE_MS
    for _ in range(3):
        learn(known, MINUTE_MS, MINUTE_MS)
    median_ms, late_ms = known.range_ms(MINUTE_MS, 0)
    assert 0.8 * MINUTE_MS < median_ms <= MINUTE_MS
    assert 2 * MINUTE_MS < late_ms < 5 * MINUTE_MS


def test_the_past_is_forgotten() -> None:
    dice = random.Random(1)
    known = Calibration()
    for actual_ms in (10 * MINUTE_MS, MINUTE_MS):
        for _ in range(MANY):
            learn(known, MINUTE_MS, round(actual_ms * dice.uniform(0.8, 1.2)))
    median_ms, late_ms = known.range_ms(MINUTE_MS, 0)
    assert 0.7 * MINUTE_MS <= median_ms <= 1.2 * MINUTE_MS
    assert late_ms <= 2 * MINUTE_MS


def test_those_that_wait_are_learnt_from_before_they_start() -> None:
    known = Calibration()
    for number in range(MANY):
        known.tell(f"job {number}", 0, wait_ms=MINUTE_MS)
    before_ms = known.range_ms(MINUTE_MS, 0)
    for number in range(MANY // 2):
        known.forget(f"job {number}")
    assert known.range_ms(MINUTE_MS, 0) == before_ms
    assert known.range_ms(MINUTE_MS, MINUTE_MS)[0] > before_ms[0], "nobody has started in time"
    median_ms, late_ms = known.range_ms(MINUTE_MS, 7 * MINUTE_MS)
    assert median_ms > 7 * MINUTE_MS
    assert late_ms > median_ms


def test_who_is_late_counts_at_that_moment_and_once() -> None:
    known, other = Calibration(), Calibration()
    for one in (known, other):
        one.tell("late", 0, wait_ms=MINUTE_MS)
    before_ms = known.range_ms(DAY_MS, 5 * MINUTE_MS)
    assert known.range_ms(DAY_MS, 6 * MINUTE_MS) > before_ms
    for one in (known, other):
        one.start("late", 7 * MINUTE_MS)
    assert known.range_ms(MINUTE_MS, 8 * MINUTE_MS) == other.range_ms(MINUTE_MS, 8 * MINUTE_MS)


def test_what_waited_long_ago_is_forgotten_though_it_waits_still() -> None:
    known = Calibration()
    for number in range(MANY):
        known.tell(f"old {number}", 0, wait_ms=MINUTE_MS)
    now_ms = 20 * MINUTE_MS
    assert known.range_ms(MINUTE_MS, now_ms)[0] > 10 * MINUTE_MS
    for number in range(MANY):
        now_ms += MINUTE_MS
        known.tell(f"new {number}", now_ms, wait_ms=MINUTE_MS)
        now_ms += MINUTE_MS
        known.start(f"new {number}", now_ms)
    median_ms, late_ms = known.range_ms(MINUTE_MS, now_ms)
    assert median_ms < 1.3 * MINUTE_MS
    assert late_ms < 3 * MINUTE_MS


def test_forecasts_of_another_magnitude_say_less() -> None:
    known = Calibration()
    for _ in range(MANY):
        learn(known, MINUTE_MS, 20 * MINUTE_MS)
        learn(known, DAY_MS, DAY_MS)
    assert known.range_ms(MINUTE_MS, 0)[0] > 15 * MINUTE_MS
    assert known.range_ms(DAY_MS, 0)[0] <= DAY_MS


def test_of_the_forecasts_of_a_job_all_count() -> None:
    """The first of ten is ten times wrong and the last is right: the median is in between."""
    known = Calibration()
    now_ms = 0
    for _ in range(MANY):
        now_ms += DAY_MS
        for _ in range(10):
            known.tell("job", now_ms, wait_ms=MINUTE_MS)
            now_ms += MINUTE_MS
        known.start("job", now_ms)
    assert 4 * MINUTE_MS < known.range_ms(MINUTE_MS, now_ms)[0] < 7 * MINUTE_MS


def test_of_a_look_some_count_and_not_of_every_look() -> None:
    """Whoever asks how often leaves room for later ones."""
    known = Calibration()
    waits_ms = {f"job {number}": 60 * MINUTE_MS for number in range(MANY)}
    for number in range(1_000):
        known.look(waits_ms, DAY_MS + number * 1_000)
    assert len(known._open) == 9 * OF_A_LOOK
    known.look({"job 0": MINUTE_MS}, 2 * DAY_MS)
    assert len(known._open) == 9 * OF_A_LOOK + 1


def test_what_is_kept_is_bounded() -> None:
    dice = random.Random(1)
    known = Calibration()
    for number in range(20_000):
        wait_ms = round(2 ** (dice.random() * 60))
        known.tell(f"job {number}", number * MINUTE_MS, wait_ms=wait_ms)
        if dice.random() < 0.5:
            known.start(f"job {dice.randrange(number + 1)}", number * MINUTE_MS)
    assert len(known._open) <= OPEN_MAX
    assert len(known._of) <= 16
    assert sum(map(len, known._of_job.values())) == len(known._open)
    assert all(known._of_job.values())
    assert len(known._next) <= 2 * OPEN_MAX + 1
    rows = [known._all, *known._of.values()]
    assert all(len(one.left) == len(one.started) == STEPS for one in rows)
    assert LEANS_ON > 0
    assert len(known._memo) <= 17


def test_no_wait_is_no_wait() -> None:
    assert Calibration().range_ms(0, 0) == (0, 0)
