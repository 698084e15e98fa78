"""Whose turn it is within one priority: by when a job is wanted, and that nobody waits for ever for it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.order import WANTED_WITHIN_MS, turn_of, wanted_ms
from coordinator.core.records import Job, Order, Policy, Queue
from tests.contract.stores.samples import job

QUEUE = Queue(name="default")
TIMES = st.integers(1, 3 * WANTED_WITHIN_MS)


def waiting(sequence: int, *, created_ms: int, deadline_ms: int = 0) -> Job:
    found = job(sequence, sequence=sequence, priority=5, created_at_ms=created_ms)
    return replace(found, policy=Policy(deadline_ms=deadline_ms))


def goes_first(one: Job, other: Job, queue: Queue = QUEUE) -> bool:
    return turn_of(one, queue) < turn_of(other, queue)


@given(TIMES, TIMES)
def test_without_deadlines_the_one_that_came_first_goes_first(first_ms: int, more_ms: int) -> None:
    one, other = waiting(1, created_ms=first_ms), waiting(2, created_ms=first_ms + more_ms - 1)
    assert goes_first(one, other)


@given(TIMES, TIMES, TIMES)
def test_the_earlier_deadline_goes_first_within_a_day(
    now_ms: int, one_ms: int, other_ms: int
) -> None:
    one = waiting(2, created_ms=now_ms, deadline_ms=now_ms + one_ms % WANTED_WITHIN_MS)
    other = waiting(1, created_ms=now_ms, deadline_ms=now_ms + other_ms)
    if one.policy.deadline_ms < other.policy.deadline_ms:
        assert goes_first(one, other)


@given(TIMES, TIMES, TIMES)
def test_whoever_comes_a_day_later_passes_nobody_whatever_its_deadline(
    now_ms: int, deadline_ms: int, wished_ms: int
) -> None:
    old = waiting(1, created_ms=now_ms, deadline_ms=wished_ms)
    new = waiting(2, created_ms=now_ms + WANTED_WITHIN_MS, deadline_ms=deadline_ms)
    assert wanted_ms(old) <= now_ms + WANTED_WITHIN_MS <= wanted_ms(new)
    assert goes_first(old, new)


def test_a_queue_that_goes_by_work_knows_no_deadlines() -> None:
    queue = Queue(name="default", order=Order.SHORTEST)
    plain = waiting(1, created_ms=1)
    assert turn_of(plain, queue) == turn_of(replace(plain, policy=Policy(deadline_ms=1)), queue)
