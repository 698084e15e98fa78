"""Which checkpoint is near, by when it is proven, and what waiting for it comes to at most."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.cadence import awaited_ms, hears
from coordinator.core.commands import PreemptJob
from coordinator.core.core import CoreSettings
from coordinator.core.records import Checkpoint, Job, LeaseState
from coordinator.core.replacing import replace
from coordinator.core.ruling import loss_ms
from coordinator.core.times import Loss
from tests.unit.core.conftest import Bench, caller

SECOND_MS = 1_000
MINUTE_MS = 60_000
SETTINGS = CoreSettings()
BEGAN_MS = Bench().now_ms


def proven(at_ms: int, attempt: int = 1) -> Checkpoint:
    """A checkpoint of that moment."""
    return Checkpoint(
        checkpoint_id=f"c{attempt}-{at_ms}",
        step=1,
        uri="",
        size_bytes=1,
        digest="",
        created_at_ms=at_ms,
        attempt=attempt,
    )


def training(*minutes: float, **policy: Any) -> Job:
    """A job that began to train at BEGAN_MS, and proved checkpoints so many minutes afterwards."""
    bench = Bench(CoreSettings(unreachable_after_ms=1 << 50, replace_after_ms=1 << 51))
    bench.node("n1", 1)
    bench.submit("job", **{"grace_ms": 30 * SECOND_MS, **policy})
    bench.report("n1", bench.seen("job.1.0", LeaseState.RUNNING))
    saved = tuple(proven(BEGAN_MS + round(at * MINUTE_MS)) for at in minutes)
    return replace(bench.job("job"), checkpoints=saved)


def awaited(job: Job, minutes: float, **settings: Any) -> float | None:
    """How long it is waited for from then on, in minutes; None where only the grace is."""
    now_ms = BEGAN_MS + round(minutes * MINUTE_MS)
    until_ms = awaited_ms(job, now_ms=now_ms, settings=replace(SETTINGS, **settings))
    return (until_ms - now_ms) / MINUTE_MS if until_ms else None


def test_one_that_is_nearer_than_what_would_be_lost_is_waited_for_and_a_quarter_longer() -> None:
    job = training(8, 16)
    assert awaited(job, 19.9) is None
    assert awaited(job, 20.1) == pytest.approx(3.9 + 2)
    assert awaited(job, 24) == pytest.approx(2), "it is late"
    assert awaited(job, 25.6) is None, "that is within the grace"
    assert awaited(job, 26.1) is None, "it does not come any more"


def test_the_wait_has_a_bound() -> None:
    job = training(100, 200)
    assert awaited(job, 289) is None, "eleven minutes away"
    assert awaited(job, 291) == 10
    assert awaited(job, 299) == 10, "a quarter of its interval is longer"
    assert awaited(job, 291, near_checkpoint_ms=8 * MINUTE_MS) is None
    assert awaited(job, 299, near_checkpoint_ms=0) is None


def test_the_first_one_tells_how_long_they_take() -> None:
    assert awaited(training(8), 15) == pytest.approx(1 + 2)
    assert awaited(training(), 15) is None, "nothing is known of it"


def test_one_that_was_slow_or_asked_for_in_between_does_not_count() -> None:
    assert awaited(training(8, 11, 19, 27), 32) == pytest.approx(3 + 2)
    assert awaited(training(8, 16, 40, 48), 53) == pytest.approx(3 + 2)


def test_those_that_are_kept_no_more_make_fewer_near_and_none_too_early() -> None:
    everything = training(8, 16, 24, 32, 40)
    for kept in (1, 2, 3):
        job = replace(everything, checkpoints=everything.checkpoints[-kept:])
        for minutes in range(41, 60):
            found, full = awaited(job, minutes), awaited(everything, minutes)
            assert found in ((None, full) if minutes < 48 or kept > 1 else (None, found))
    job = replace(everything, checkpoints=everything.checkpoints[-2:])
    assert awaited(job, 45) == awaited(everything, 45)


def test_an_attempt_that_goes_on_saves_as_often_as_the_one_before() -> None:
    job = training()
    assert job.attempt is not None
    attempt = replace(job.attempt, number=2)
    before = tuple(proven(BEGAN_MS - minutes * MINUTE_MS) for minutes in (60, 52, 44))
    job = replace(job, attempt=attempt, checkpoints=before)
    assert awaited(job, 3) is None
    assert awaited(job, 5) == pytest.approx(3 + 2)
    own = tuple(proven(BEGAN_MS + minutes * MINUTE_MS, 2) for minutes in (4, 8, 12, 16))
    job = replace(job, checkpoints=(*before, *own))
    assert awaited(job, 18.5) == pytest.approx(1.5 + 1), "its own count"


def test_who_comes_no_further_or_meets_its_limit_before_is_given_its_grace() -> None:
    job = training(8, 16)
    assert job.attempt is not None
    hangs = replace(job, attempt=replace(job.attempt, silent_since_ms=BEGAN_MS))
    assert awaited(hangs, 22) is None
    assert awaited(training(8, 16, max_runtime_ms=25 * MINUTE_MS), 22) is None
    assert awaited(training(8, 16, max_runtime_ms=26 * MINUTE_MS), 22) == pytest.approx(4)


def test_a_clock_that_is_wrong_makes_none_near() -> None:
    job = training(8, 16)
    for days in (-1, 1):
        wrong = (
            replace(x, created_at_ms=x.created_at_ms + days * 86_400_000) for x in job.checkpoints
        )
        assert awaited(replace(job, checkpoints=tuple(wrong)), 22) is None


@given(
    gaps_s=st.lists(st.integers(-100, 3_000), max_size=6),
    now_s=st.integers(0, 12_000),
    grace_s=st.integers(0, 900),
    bound_s=st.integers(0, 900),
)
def test_a_preemption_waits_for_the_grace_at_least_and_the_bound_at_most_and_is_worth_it(
    gaps_s: list[int], now_s: int, grace_s: int, bound_s: int
) -> None:
    bench = Bench(
        CoreSettings(
            unreachable_after_ms=1 << 50,
            replace_after_ms=1 << 51,
            near_checkpoint_ms=bound_s * SECOND_MS,
        )
    )
    bench.node("n1", 1)
    bench.submit("job", grace_ms=grace_s * SECOND_MS)
    bench.report("n1", bench.seen("job.1.0", LeaseState.RUNNING))
    saved = tuple(proven(BEGAN_MS + at_s * SECOND_MS) for at_s in accumulate(gaps_s))
    found = {one.checkpoint_id: one for one in saved}
    bench.now_ms = now_ms = BEGAN_MS + now_s * SECOND_MS
    told = bench.seen("job.1.0", LeaseState.RUNNING, checkpoints=tuple(found.values()))
    bench.report("n1", told)
    bench.step(PreemptJob(caller=caller(), job_id="job"))
    attempt = bench.job("job").attempt
    assert attempt is not None
    if attempt.ask is None:
        assert not grace_s
        return
    wait_ms = attempt.ask.due_ms - now_ms
    assert grace_s <= wait_ms / SECOND_MS <= max(grace_s, bound_s)
    if wait_ms > grace_s * SECOND_MS:
        newest_ms = max((x.created_at_ms for x in saved), default=BEGAN_MS)
        assert wait_ms < 2 * (now_ms - newest_ms), "no more is put at risk than twice what is kept"


def test_who_lost_by_a_stop_that_asks_is_taken_not_to_hear() -> None:
    job = training(8, 16)
    now_ms = BEGAN_MS + 19 * MINUTE_MS
    assert loss_ms(job, now_ms) == MINUTE_MS
    for cause, minutes, is_heard in (
        ("PREEMPTED", 3, False),
        ("DRAINED", 3, False),
        ("PREEMPTED", 0.5, True),
        ("PAUSED", 3, True),
        ("NODE_LOST", 3, True),
    ):
        lost_us = round(minutes * MINUTE_MS) * 1000
        one = replace(job, losses=(Loss(1, cause, "", False, lost_us),))
        assert hears(one) is is_heard
        assert loss_ms(one, now_ms) == MINUTE_MS * (1 if is_heard else 3)
        late_ms = BEGAN_MS + 22 * MINUTE_MS
        assert loss_ms(one, late_ms, settings=SETTINGS) == MINUTE_MS, "one is near"
