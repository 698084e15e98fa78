"""Queues as readers see them: the same as when all live jobs are looked at anew."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.records import WAITING, Job, JobStatus, Order, Queue
from coordinator.core.tables import ASIDE
from coordinator.runtime import queues
from coordinator.runtime.queues import Queues, Turns, place_of
from tests.contract.stores.samples import job

NUMBERS = st.integers(0, 9)
jobs = st.builds(
    lambda number, **fields: job(number, sequence=number, user_id=f"user{number % 4}", **fields),
    NUMBERS,
    tenant_id=st.sampled_from(["acme", "globex"]),
    queue_name=st.sampled_from(["default", "night"]),
    status=st.sampled_from(list(JobStatus)),
    priority=st.integers(1, 3),
    work_ms=st.integers(0, 3),
)
orders = st.builds(
    Queue, name=st.sampled_from(["default", "night"]), order=st.sampled_from(list(Order))
)


@pytest.fixture(autouse=True, scope="module")
def short_chunks() -> object:
    """So that few turns make many chunks."""
    patch = pytest.MonkeyPatch()
    patch.setattr(queues, "CHUNK", 3)
    yield
    patch.undo()


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans())))
def test_turns_stay_in_order_and_know_their_places(changes: list[tuple[int, bool]]) -> None:
    turns, expected = Turns(), set()
    for number, adds in changes:
        turn = (bool(number % 2), number % 3, 0, number, f"job_{number}")
        if adds and turn not in expected:
            turns.add(turn)
            expected.add(turn)
        elif not adds and turn in expected:
            turns.remove(turn)
            expected.remove(turn)
    ordered = sorted(expected)
    assert list(turns) == ordered
    assert len(turns) == len(ordered)
    assert turns.places(ordered) == list(range(1, len(ordered) + 1))
    for number in range(31):
        turn = (bool(number % 2), number % 3, 0, number, f"job_{number}")
        assert list(turns.before(turn)) == [one for one in reversed(ordered) if one < turn]


@given(st.lists(jobs | NUMBERS | orders))
def test_queues_follow_every_change_of_a_job_and_of_their_order(
    changes: list[Job | int | Queue],
) -> None:
    followed, live, order = Queues(), dict[str, Job](), dict[str, Queue]()
    for change in changes:
        if isinstance(change, Job):
            followed.put(live.get(change.job_id), change)
            live[change.job_id] = change
        elif isinstance(change, Queue):
            followed.put_order(change, live)
            order[change.name] = change
        elif (gone := live.pop(f"job_{change:04d}", None)) is not None:
            followed.put(gone, None)
    open_jobs = [one for one in live.values() if not one.is_final]
    assert set(followed.by_name) == {one.queue_name for one in open_jobs}
    for name, queue in followed.by_name.items():
        mine = [one for one in open_jobs if one.queue_name == name]
        by = order.get(name) or Queue(name=name)
        open_here = [one for one in mine if one.status in WAITING]
        waiting = sorted(open_here, key=lambda one: place_of(one, by))
        assert queue.live == Counter(one.tenant_id for one in mine)
        assert queue.running == sum(
            one.status not in WAITING and one.status not in ASIDE for one in mine
        )
        for tenant_id in ("acme", "globex"):
            shown = [
                (place, one.job_id)
                for place, one in enumerate(waiting, 1)
                if one.tenant_id == tenant_id
            ]
            assert queue.first(tenant_id, 2) == shown[:2]
        assert bool(queue.by_user) is bool(waiting and by.order is Order.FAIR)
        if not queue.by_user:
            continue
        used = {user: float(number % 3) for number, user in enumerate(sorted(queue.by_user))}
        waiting.sort(
            key=lambda x: (place_of(x, by)[:2], used[x.tenant_id, x.user_id], place_of(x, by))
        )
        for tenant_id in ("acme", "globex"):
            own = [(n, x.job_id) for n, x in enumerate(waiting, 1) if x.tenant_id == tenant_id]
            assert queue.first_by_use(tenant_id, 2, used=used) == own[:2]


def test_what_cannot_start_yet_stands_behind_what_can() -> None:
    queues_ = Queues()
    for number, status in enumerate((JobStatus.PENDING, JobStatus.QUEUED)):
        queues_.put(None, job(number, sequence=number, status=status, priority=9 - number))
    places = queues_.of("default").first("acme", 10)
    assert places == [(1, "job_0001"), (2, "job_0000")]
