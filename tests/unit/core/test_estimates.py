"""What jobs that have not run are ordered by, under SHORTEST."""

from __future__ import annotations

from coordinator.core.estimate import MOST_KEPT, Estimates, kins_of, learn
from coordinator.core.records import Demand, History, Job, Policy


def a_job(name: str = "sweep-1", *, image: str = "") -> Job:
    return Job(
        job_id="job_1",
        sequence=1,
        lineage_id="job_1",
        tenant_id="acme",
        user_id="ada",
        name=name,
        image=image,
        demand=Demand(device_count=1),
        policy=Policy(),
        created_at_ms=0,
        updated_at_ms=0,
    )


def test_what_is_learnt_counts_at_once_and_what_is_forgotten_no_more() -> None:
    estimates, history = Estimates(), History(kin=kins_of(a_job())[2])
    unknown_ms = estimates.left_ms(a_job(), 0)
    for _ in range(20):
        history = learn(history, from_ms=0, to_ms=3_600_000, ended=True, now_ms=1)
    estimates.put(history)
    learnt_ms = estimates.left_ms(a_job("sweep-2"), 0)
    assert learnt_ms > 3 * unknown_ms
    estimates.drop(history.kin)
    assert estimates.left_ms(a_job(), 0) == unknown_ms


def test_the_indexes_of_many_names_take_no_more_memory_than_a_bound() -> None:
    estimates = Estimates()
    first_ms = estimates.left_ms(a_job("a"), 0)
    for number in range(MOST_KEPT + 5):
        estimates.left_ms(a_job("ab" * (number // 26 + 1) + chr(97 + number % 26)), 0)
    assert len(estimates._indexes) <= MOST_KEPT
    assert estimates.left_ms(a_job("a"), 0) == first_ms


def test_a_name_in_one_image_is_told_from_the_same_in_another() -> None:
    estimates = Estimates()
    for image, minutes in (("a", 1), ("b", 600)):
        for _ in range(40):
            for kin in kins_of(a_job(image=image)):
                known = estimates.history(kin)
                ran_ms = minutes * 60_000
                estimates.put(learn(known, from_ms=0, to_ms=ran_ms, ended=True, now_ms=1))
    short_ms, long_ms = (estimates.median_left_ms(a_job(image=one), 0) for one in "ab")
    assert short_ms < 2 * 60_000
    assert 300 * 60_000 < long_ms < 900 * 60_000
    new_ms = estimates.median_left_ms(a_job(image="new"), 0)
    assert new_ms == estimates.median_left_ms(a_job(), 0), (
        "of which nothing is known leans on the name"
    )
    assert short_ms < new_ms < long_ms
