"""Whatever happens to a lease, and whatever the clock does: all of its time has one class."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from coordinator.core import ledger
from coordinator.core.records import (
    Attempt,
    Checkpoint,
    Demand,
    Job,
    JobStatus,
    Lease,
    LeaseState,
    Policy,
    StopCause,
)
from coordinator.core.times import (
    DAY_MS,
    MOST_DAYS,
    Day,
    Spent,
    Use,
    added,
    moved,
    total,
    total_ms,
    used_ms,
)

START_MS = 20_000 * DAY_MS + DAY_MS // 2
MOMENTS = st.lists(
    st.tuples(
        st.integers(-DAY_MS, 3 * DAY_MS),
        st.sampled_from(["prepare", "train", "save", "prove", "stop", "pause"]),
    ),
    max_size=12,
)
STATUS = {
    "prepare": JobStatus.PREPARING,
    "train": JobStatus.TRAINING,
    "save": JobStatus.CHECKPOINTING,
}
ENDS = st.sampled_from([JobStatus.COMPLETED, JobStatus.CANCELLED, JobStatus.QUEUED])


def a_job(at_ms: int) -> Job:
    attempt = Attempt(number=1, shares=(), granted_at_ms=at_ms, times=ledger.begun(at_ms))
    return Job(
        job_id="j",
        sequence=1,
        lineage_id="j",
        tenant_id="acme",
        user_id="ada",
        name="j",
        demand=Demand(device_count=2),
        policy=Policy(),
        status=JobStatus.SCHEDULING,
        attempt=attempt,
    )


def a_lease(at_ms: int, rank: int) -> Lease:
    return Lease(
        lease_id=f"j.1.{rank}",
        epoch=1,
        job_id="j",
        attempt=1,
        node_id=f"n{rank}",
        device_ids=("d0", "d1"),
        thousandths=333 + rank,
        granted_at_ms=at_ms,
    )


def changed(job: Job, what: str, now_ms: int) -> Job:
    """The job after something has happened."""
    assert job.attempt is not None
    changes: dict[str, Any]
    if what == "prove":
        proven = Checkpoint(
            checkpoint_id=f"c{now_ms}",
            step=1,
            uri="",
            size_bytes=1,
            digest="",
            created_at_ms=now_ms - 60_000,
            attempt=1,
        )
        changes = {"checkpoints": (*job.checkpoints, proven)}
    elif what in STATUS:
        changes = {"status": STATUS[what]}
    else:
        cause = StopCause.PAUSED if what == "pause" else StopCause.DRAINED
        changes = {"attempt": replace(job.attempt, stop=job.attempt.stop or cause)}
    return moved_on(job, changes, now_ms)


def moved_on(job: Job, changes: dict[str, Any], now_ms: int) -> Job:
    attempt = ledger.followed(job, changes, now_ms=now_ms)
    return replace(job, **changes | ({"attempt": attempt} if attempt else {}))


@given(MOMENTS, st.integers(0, 11), ENDS, st.integers(0, DAY_MS))
def test_the_classes_of_each_lease_add_up_to_what_was_leased(
    moments: list[tuple[int, str]], first_ends: int, end: JobStatus, tail_ms: int
) -> None:
    now_ms, job = START_MS, a_job(START_MS)
    leases = [a_lease(START_MS, 0), a_lease(START_MS, 1)]
    ended_ms = [0, 0]

    def over(rank: int) -> None:
        changes = {"state": LeaseState.ENDED}
        if ledger.leaves(leases[rank], changes):
            days = ledger.days_of(job, leases[rank], now_ms=now_ms)
            leases[rank] = replace(leases[rank], state=LeaseState.ENDED, days=days)
            ended_ms[rank] = now_ms

    for number, (step_ms, what) in enumerate(moments):
        now_ms += step_ms
        job = changed(job, what, now_ms)
        assert job.attempt is not None
        times = job.attempt.times
        assert total_ms(times.days) == times.until_ms - START_MS
        shown = ledger.spent(job, leases, now_ms=now_ms)
        until_ms = (ended_ms[0] or now_ms, ended_ms[1] or now_ms)
        leased = sum(
            ledger.milli_of(lease) * max(0, at_ms - START_MS)
            for lease, at_ms in zip(leases, until_ms, strict=True)
        )
        assert total(shown) == leased
        if number == first_ends:
            over(0)
    now_ms += tail_ms
    over(0)
    over(1)
    assert job.attempt is not None
    ends_by_itself = end is JobStatus.CANCELLED
    attempt = replace(job.attempt, ended_at_ms=0 if ends_by_itself else max(1, now_ms))
    after = moved_on(job, {"status": end, "attempt": attempt}, now_ms)
    assert after.attempt is not None
    closed = ledger.closed(
        job, leases, to=end, attempt=after.attempt, is_foreign=False, now_ms=now_ms
    )
    job = replace(after, **closed.changes)
    booked = {entry.lease_id: total_ms(entry.days) for entry in closed.entries}
    for rank, lease in enumerate(leases):
        assert booked.get(lease.lease_id, 0) == max(0, ended_ms[rank] - START_MS)
    assert total(job.spent) == total(ledger.spent(job, leases, now_ms=now_ms))
    redone = sum(used_ms(entry.days, Use.REDONE) * entry.milli for entry in closed.entries)
    assert job.spent.redone == redone == sum(loss.redone_us for loss in job.losses)
    assert end is JobStatus.QUEUED or not redone
    assert min(job.spent) >= 0


@given(st.lists(st.tuples(st.integers(0, 2 * DAY_MS), st.sampled_from(Use)), min_size=1))
def test_each_day_gets_its_part(steps: list[tuple[int, Use]]) -> None:
    days: tuple[Day, ...] = ()
    now_ms = START_MS
    for step_ms, use in steps:
        days = added(days, use, from_ms=now_ms, to_ms=now_ms + step_ms)
        now_ms += step_ms
    assert [one.day for one in days] == sorted({one.day for one in days})
    for before, after in pairwise(days[1:-1]):
        assert total(before.spent) == total(after.spent) == DAY_MS
    for use in Use:
        assert used_ms(days, use) == sum(ms for ms, what in steps if what is use)


def test_what_is_lost_is_the_newest() -> None:
    days = (Day(1, Spent(productive=10)), Day(2, Spent(productive=5, idle=1)))
    lost = moved(days, before=Use.PRODUCTIVE, after=Use.REDONE, ms=7)
    expected = Day(1, Spent(productive=8, redone=2)), Day(2, Spent(redone=5, idle=1))
    assert lost == expected


def test_an_attempt_of_years_keeps_so_many_days_apart() -> None:
    days = added((), Use.PRODUCTIVE, from_ms=0, to_ms=1_000 * DAY_MS)
    assert len(days) == MOST_DAYS
    assert total_ms(days) == 1_000 * DAY_MS
