"""The order of the checks when an attempt has ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.reasons import Reason
from coordinator.core.records import (
    Attempt,
    Demand,
    Failure,
    Job,
    Lease,
    LeaseState,
    Policy,
    StopCause,
)
from coordinator.core.retry import Backoff, Verdict, judge

BACKOFF = Backoff(first_ms=1_000, most_ms=60_000)
JOB = Job(
    job_id="j",
    sequence=1,
    lineage_id="j",
    tenant_id="t",
    user_id="u",
    name="j",
    demand=Demand(device_count=1),
    policy=Policy(max_retries=1, retry_on_exit_codes=(75,)),
    attempt=Attempt(number=1, shares=(), granted_at_ms=1, started_at_ms=2),
)
LEASE = Lease(
    lease_id="j.1.0",
    epoch=1,
    job_id="j",
    attempt=1,
    node_id="n",
    device_ids=("d",),
    state=LeaseState.ENDED,
    started_at_ms=2,
)
FAILED = Failure(category="USER_CODE", message="it failed", exit_code=1)
LOST = Failure(category="NODE_LOST", message="gone")


def judged(
    *,
    stop: StopCause | None = None,
    failure: Failure | None = None,
    done: bool = False,
    failures: int = 0,
) -> Verdict:
    assert JOB.attempt is not None
    job = replace(
        JOB, attempt=replace(JOB.attempt, stop=stop), failure=failure, failures_count=failures
    )
    return judge(job, [replace(LEASE, failure=failure, done=done)], backoff=BACKOFF)


def test_what_ended_well_and_was_not_stopped_is_complete() -> None:
    assert judged() == Verdict(Reason.FINISHED)


@pytest.mark.parametrize("stop", [StopCause.DRAINED, StopCause.TIME_LIMIT, StopCause.NODE_LOST])
def test_what_says_that_it_is_done_is_complete_even_after_a_stop(stop: StopCause) -> None:
    assert judged(stop=stop, done=True).cause is Reason.FINISHED


def test_what_says_done_while_a_peer_never_started_is_not_complete() -> None:
    assert JOB.attempt is not None
    job = replace(JOB, attempt=replace(JOB.attempt, stop=StopCause.DRAINED))
    leases = [replace(LEASE, done=True), replace(LEASE, node_rank=1, started_at_ms=0)]
    assert judge(job, leases, backoff=BACKOFF).cause is Reason.NODE_DRAINED


def test_the_time_limit_fails_it_even_where_a_node_was_lost() -> None:
    verdict = judged(stop=StopCause.TIME_LIMIT, failure=LOST)
    assert verdict.cause is Reason.TIME_LIMIT
    assert verdict.failure is not None
    assert verdict.failure.category == "TIME_LIMIT"


def test_a_drain_costs_no_retry_whatever_the_ranks_said() -> None:
    assert judged(stop=StopCause.DRAINED, failure=FAILED) == Verdict(Reason.NODE_DRAINED)


def test_a_lost_node_costs_no_retry_and_what_never_ran_waits() -> None:
    assert judged(stop=StopCause.NODE_LOST, failure=LOST) == Verdict(Reason.NODE_LOST, LOST)
    assert JOB.attempt is not None
    job = replace(JOB, attempt=replace(JOB.attempt, started_at_ms=0, stop=StopCause.NODE_LOST))
    assert judge(job, [replace(LEASE, failure=LOST)], backoff=BACKOFF).delay_ms == 1_000


def test_retries_are_used_up_one_by_one() -> None:
    stop = StopCause.RANK_FAILED
    again = judged(stop=stop, failure=FAILED)
    assert again == Verdict(Reason.RETRYING, FAILED, counts=True, delay_ms=1_000)
    over = judged(stop=stop, failure=FAILED, failures=1)
    assert over == Verdict(Reason.RANK_FAILED, FAILED, counts=True)


def test_an_exit_code_that_the_job_named_is_tried_again_for_free() -> None:
    failure = replace(FAILED, exit_code=75)
    verdict = judged(stop=StopCause.RANK_FAILED, failure=failure, failures=9)
    assert verdict == Verdict(Reason.RETRYING, failure, counts=False, delay_ms=1_000)


def test_what_cannot_be_started_is_not_tried_again() -> None:
    failure = Failure(category="CONFIG", message="no such script")
    assert judged(stop=StopCause.RANK_FAILED, failure=failure).cause is Reason.RANK_FAILED


@pytest.mark.parametrize(
    ("attempt", "wait_ms"), [(1, 1_000), (2, 2_000), (6, 32_000), (7, 60_000), (10_000, 60_000)]
)
def test_the_wait_doubles_up_to_a_minute(attempt: int, wait_ms: int) -> None:
    assert BACKOFF.after(attempt) == wait_ms


def by_rules(
    category: str,
    *,
    retries: int = 0,
    retry_on: tuple[str, ...] = (),
    fail_on: tuple[str, ...] = (),
) -> Verdict:
    assert JOB.attempt is not None
    failure = Failure(category=category, message="it failed", exit_code=1)
    job = replace(
        JOB,
        policy=Policy(max_retries=retries, retry_on=retry_on, fail_on=fail_on),
        attempt=replace(JOB.attempt, stop=StopCause.RANK_FAILED),
        failure=failure,
    )
    return judge(job, [replace(LEASE, failure=failure)], backoff=BACKOFF)


def test_a_kind_of_failure_that_the_job_names_costs_no_retry() -> None:
    verdict = by_rules("NETWORK", retry_on=("NETWORK",))
    assert (verdict.cause, verdict.counts) == (Reason.RETRYING, False)
    assert by_rules("STORAGE", retry_on=("NETWORK",)).cause is Reason.RANK_FAILED


def test_a_word_about_a_device_is_the_jobs_own_and_costs_a_retry() -> None:
    verdict = by_rules("GPU_HARDWARE", retries=1)
    assert (verdict.cause, verdict.counts) == (Reason.RETRYING, True)


def test_a_kind_after_which_the_job_is_not_tried_again_ends_it_whatever_is_left() -> None:
    assert by_rules("GPU_OOM", retries=5, fail_on=("GPU_OOM",)).cause is Reason.RANK_FAILED
    assert by_rules("USER_CODE", retries=5, fail_on=("GPU_OOM",)).cause is Reason.RETRYING


def test_the_end_of_a_peer_explains_what_looked_like_the_network() -> None:
    assert JOB.attempt is not None
    network = Failure(category="NETWORK", message="the peer is gone", exit_code=1, rank=1)
    memory = Failure(category="GPU_OOM", message="out of memory", exit_code=1, rank=0)
    job = replace(JOB, attempt=replace(JOB.attempt, stop=StopCause.RANK_FAILED), failure=network)
    leases = [replace(LEASE, failure=network), replace(LEASE, node_rank=1, failure=memory)]
    assert judge(job, leases, backoff=BACKOFF).failure == memory
    assert judge(job, leases[:1], backoff=BACKOFF).failure == network


def test_a_failure_is_kept_as_its_node_told_it_last() -> None:
    early = replace(FAILED, rank=3, node_id="n")
    assert JOB.attempt is not None
    job = replace(JOB, attempt=replace(JOB.attempt, stop=StopCause.RANK_FAILED), failure=early)
    last = replace(early, telemetry=b"measured")
    verdict = judge(job, [replace(LEASE, failure=last)], backoff=BACKOFF)
    assert verdict.failure == last
    stranger = replace(last, rank=4)
    assert judge(job, [replace(LEASE, failure=stranger)], backoff=BACKOFF).failure == early
