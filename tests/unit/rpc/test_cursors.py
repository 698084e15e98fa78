"""Cursors of a job's stream: exact, of this job, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.rpc.follow import END, Cursors
from tests.unit.rpc.requests import refusal_of

CURSORS = Cursors("job_a")


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_a_cursor_gives_back_its_position(position: int) -> None:
    assert CURSORS.read(CURSORS.make(position)) == position


def test_the_end_has_a_cursor_of_its_own() -> None:
    assert CURSORS.read(CURSORS.make(END)) == END


def test_a_cursor_of_another_job_is_refused() -> None:
    refusal = refusal_of(lambda: CURSORS.read(Cursors("job_b").make(7)))
    assert refusal.violations[0][0] == "after"


def test_a_position_that_is_yet_to_come_is_read_as_it_is() -> None:
    assert CURSORS.read(CURSORS.make(999_999_999)) == 999_999_999


@pytest.mark.parametrize(
    "garbage", ["", "7", ".", "7.", "-1.x", "٣.x", "end", "end.", "\0", "9" * 300]
)
def test_garbage_is_refused(garbage: str) -> None:
    refusal_of(lambda: CURSORS.read(garbage))


@pytest.mark.parametrize("position", ["-1", "+1", "01", " 1", "1e3", "1" * 16, "٣"])
def test_only_plain_numbers_are_positions_even_with_the_right_check(position: str) -> None:
    check = CURSORS.make(1).partition(".")[2]
    refusal_of(lambda: CURSORS.read(f"{position}.{check}"))


@given(st.text())
def test_no_text_is_taken_for_a_cursor_by_chance(text: str) -> None:
    refusal_of(lambda: CURSORS.read(text))
