"""What was foretold against what came makes the next forecast honest."""

from __future__ import annotations

import random

from coordinator.forecast.calibration import ENOUGH, KEPT, Calibration

MINUTE_MS = 60_000


def learn(known: Calibration, forecast_ms: int, actual_ms: int) -> None:
    known.tell("job", 0, wait_ms=forecast_ms)
    known.start("job", actual_ms)


def test_before_enough_is_known_a_wide_margin_is_told() -> None:
    known = Calibration()
    for _ in range(ENOUGH - 1):
        learn(known, MINUTE_MS, MINUTE_MS)
    median_ms, late_ms = known.range_ms(MINUTE_MS, 0)
    assert median_ms == MINUTE_MS
    assert late_ms > 2 * MINUTE_MS


def test_nine_of_ten_come_within_what_was_told() -> None:
    dice = random.Random(1)
    known = Calibration()
    covered = count = 0
    for number in range(2_000):
        forecast_ms = MINUTE_MS + dice.randrange(MINUTE_MS)
        actual_ms = round(forecast_ms * dice.lognormvariate(0.3, 1.0))
        if number >= 100:
            count += 1
            covered += actual_ms <= known.range_ms(forecast_ms, 0)[1]
        learn(known, forecast_ms, actual_ms)
    assert 0.85 <= covered / count <= 0.95


def test_nine_of_ten_come_within_what_was_told_though_it_becomes_ever_slower() -> None:
    dice = random.Random(2)
    known = Calibration()
    covered = 0
    for number in range(600):
        slower = 1.0 + number / 60
        actual_ms = round(MINUTE_MS * slower * dice.lognormvariate(0.0, 0.3))
        covered += actual_ms <= known.range_ms(MINUTE_MS, 0)[1]
        learn(known, MINUTE_MS, actual_ms)
    assert 0.85 <= covered / 600 <= 0.95


def test_the_past_is_forgotten() -> None:
    known = Calibration()
    for actual_ms in (10 * MINUTE_MS, MINUTE_MS):
        for _ in range(KEPT):
            learn(known, MINUTE_MS, actual_ms)
    assert known.range_ms(MINUTE_MS, 0) == (MINUTE_MS, MINUTE_MS)


def test_those_that_are_late_already_are_learnt_from_before_they_start() -> None:
    known = Calibration()
    for number in range(ENOUGH):
        known.tell(f"job {number}", 0, wait_ms=MINUTE_MS)
    assert known.range_ms(MINUTE_MS, MINUTE_MS // 2)[0] == MINUTE_MS
    assert known.range_ms(MINUTE_MS, 7 * MINUTE_MS) == (7 * MINUTE_MS, 7 * MINUTE_MS)
    for number in range(ENOUGH):
        known.forget(f"job {number}")
    assert known.range_ms(MINUTE_MS, 7 * MINUTE_MS)[0] == MINUTE_MS


def test_the_first_forecast_of_a_job_is_the_one_that_counts() -> None:
    known = Calibration()
    for _ in range(ENOUGH):
        known.tell("job", 0, wait_ms=MINUTE_MS)
        known.tell("job", 2 * MINUTE_MS, wait_ms=1)
        known.start("job", 3 * MINUTE_MS)
    assert known.range_ms(MINUTE_MS, 0)[0] == 3 * MINUTE_MS


def test_no_wait_is_no_wait() -> None:
    assert Calibration().range_ms(0, 0) == (0, 0)
