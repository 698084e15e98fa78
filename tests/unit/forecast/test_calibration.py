"""What was foretold against what came makes the next forecast honest."""

from __future__ import annotations

import random

from coordinator.forecast.calibration import ENOUGH, KEPT, Calibration

MINUTE_MS = 60_000


def test_before_enough_is_known_a_wide_margin_is_told() -> None:
    known = Calibration()
    for _ in range(ENOUGH - 1):
        known.learn(MINUTE_MS, MINUTE_MS)
    assert known.median_ms(MINUTE_MS) == MINUTE_MS
    assert known.late_ms(MINUTE_MS) > 2 * MINUTE_MS


def test_nine_of_ten_come_within_what_was_told() -> None:
    dice = random.Random(1)
    known = Calibration()
    covered = count = 0
    for number in range(2_000):
        forecast_ms = MINUTE_MS + dice.randrange(MINUTE_MS)
        actual_ms = round(forecast_ms * dice.lognormvariate(0.3, 1.0))
        if number >= 100:
            count += 1
            covered += actual_ms <= known.late_ms(forecast_ms)
        known.learn(forecast_ms, actual_ms)
    assert 0.85 <= covered / count <= 0.95


def test_the_past_is_forgotten() -> None:
    known = Calibration()
    for actual_ms in (10 * MINUTE_MS, MINUTE_MS):
        for _ in range(KEPT):
            known.learn(MINUTE_MS, actual_ms)
    assert known.late_ms(MINUTE_MS) == MINUTE_MS


def test_no_wait_is_no_wait() -> None:
    known = Calibration()
    assert known.median_ms(0) == known.late_ms(0) == 0
