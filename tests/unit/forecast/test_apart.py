"""A copy of the process works, answers and is gone; whatever it does, the original does not see it."""

from __future__ import annotations

import os
import time

import pytest

from coordinator.forecast.apart import apart


def test_answers_come_in_order_and_changes_stay_apart() -> None:
    seen: list[int] = []

    def work(number: int) -> int:
        seen.append(number)
        return number * 10

    works = [lambda number=number: work(number) for number in range(5)]
    assert apart(works, at_once=2, limit_s=60.0) == [0, 10, 20, 30, 40]
    assert not seen


def test_a_large_answer_arrives_whole() -> None:
    (found,) = apart([lambda: b"x" * (1 << 20)], at_once=1, limit_s=60.0)
    assert found == b"x" * (1 << 20)


def test_what_there_is_no_time_for_has_no_answer() -> None:
    works = [lambda: 1, lambda: time.sleep(30), lambda: 2]
    assert apart(works, at_once=1, limit_s=0.5) == [1, None, None]


def test_what_fails_or_takes_too_long_has_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    works = [lambda: 1 / 0, lambda: time.sleep(30), lambda: os._exit(3), lambda: 7]
    assert apart(works, at_once=4, limit_s=2.0) == [None, None, None, 7]
    assert "ZeroDivisionError" in capfd.readouterr().err
