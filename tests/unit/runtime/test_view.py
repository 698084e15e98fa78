"""The published view: what readers see, and when an agent's desired list counts as changed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from coordinator.core.decision import Changed, Heard, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    Claim,
    JobStatus,
    Kind,
    Lease,
    LeaseAction,
    LeaseState,
    Node,
    Offer,
    Record,
    Share,
)
from coordinator.runtime import view as view_module
from coordinator.runtime.view import View, Watch
from tests.unit.rpc.requests import a_job, a_key


def changed(*records: Record) -> list[Changed]:
    return [Changed(record=one, cause=Reason.ACCEPTED, actor="", at_ms=1) for one in records]


def retired(kind: Kind, id: str) -> list[Retired]:
    return [Retired(kind=kind, id=id, at_ms=2)]


def a_lease(number: int = 1, **fields: object) -> Lease:
    values: dict[str, object] = {"epoch": 1, "node_id": "n1", "device_ids": ("d1",), **fields}
    return Lease(lease_id=f"job_a.{number}.0", job_id="job_a", attempt=number, **values)  # type: ignore[arg-type]


def a_node(node_id: str = "n1") -> Node:
    return Node(node_id=node_id, generation=1, incarnation="i", offer=Offer(devices=()))


async def was_woken(watch: Watch) -> bool:
    """Whether a watch was woken since it was last waited for."""
    task = asyncio.create_task(watch.wait(60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    woken = task.done()
    task.cancel()
    return woken


def test_the_revision_changes_with_a_new_lease() -> None:
    view = View()
    before = view.revision("n1")
    view.apply(changed(a_lease()))
    assert view.revision("n1") != before


@pytest.mark.parametrize(
    "change",
    [
        {"action": LeaseAction.STOP},
        {"grace_ms": 5},
        {"epoch": 2},
        {"state": LeaseState.ENDED},
    ],
    ids=str,
)
def test_the_revision_changes_with_what_the_agent_is_told(change: dict[str, object]) -> None:
    view = View()
    view.apply(changed(a_lease()))
    before = view.revision("n1")
    view.apply(changed(replace(a_lease(), **change)))  # type: ignore[arg-type]
    assert view.revision("n1") != before


@pytest.mark.parametrize(
    "change",
    [
        {"state": LeaseState.ACCEPTED},
        {"state": LeaseState.RUNNING, "started_at_ms": 7},
        {"observed_sequence": 9},
        {},
    ],
    ids=str,
)
def test_the_revision_stays_where_only_observed_things_change(change: dict[str, object]) -> None:
    view = View()
    view.apply(changed(a_lease()))
    before = view.revision("n1")
    view.apply(changed(replace(a_lease(), **change)))  # type: ignore[arg-type]
    assert view.revision("n1") == before


def test_the_revision_stays_when_an_ended_lease_retires() -> None:
    view = View()
    view.apply(changed(a_lease(), a_lease(state=LeaseState.ENDED)))
    before = view.revision("n1")
    view.apply(retired(Kind.LEASE, "job_a.1.0"))
    assert view.revision("n1") == before
    assert not view.leases_by_node
    assert not view.leases_by_job


def test_the_revision_changes_when_a_desired_lease_retires() -> None:
    view = View()
    view.apply(changed(a_lease()))
    before = view.revision("n1")
    view.apply(retired(Kind.LEASE, "job_a.1.0"))
    assert view.revision("n1") != before


def test_the_revision_of_one_node_is_no_matter_of_another() -> None:
    view = View()
    before = view.revision("n2")
    view.apply(changed(a_lease()))
    assert view.revision("n2") == before


def test_revisions_of_different_epochs_differ_and_none_is_zero() -> None:
    view = View()
    view.reset([a_node(), a_lease()], epoch=1)
    first = view.revision("n1"), view.revision("unknown")
    view.reset([a_node(), a_lease()], epoch=2)
    second = view.revision("n1"), view.revision("unknown")
    assert len({*first, *second, 0}) == 5


def test_the_revision_changes_with_a_reload_in_the_same_epoch() -> None:
    view = View()
    view.reset([a_node(), a_lease()], epoch=1)
    before = view.revision("n1")
    view.reset([a_node()], epoch=1)
    assert view.revision("n1") != before


def test_the_desired_list_is_by_id_and_without_ended_leases() -> None:
    view = View()
    view.apply(changed(a_lease(3), a_lease(1), a_lease(2, state=LeaseState.ENDED)))
    assert [lease.attempt for lease in view.desired_of_node("n1")] == [1, 3]


async def test_a_watch_wakes_for_its_own_thing_only() -> None:
    view = View()
    job, other = view.watch(Kind.JOB, "job_a"), view.watch(Kind.JOB, "job_b")
    node = view.watch(Kind.NODE, "n1")
    view.apply(changed(a_job()))
    assert [await was_woken(one) for one in (job, other, node)] == [True, False, False]
    view.apply(changed(a_lease()))
    assert [await was_woken(one) for one in (job, other, node)] == [True, False, True]


async def test_a_watch_remembers_what_came_before_the_wait_and_forgets_it_after() -> None:
    view = View()
    watch = view.watch(Kind.JOB, "job_a")
    view.apply(changed(a_job(), a_job()))
    assert await was_woken(watch)
    assert not await was_woken(watch)


async def test_a_wait_ends_after_its_timeout() -> None:
    await View().watch(Kind.JOB, "job_a").wait(0.001)


async def test_watches_survive_a_reload_and_are_woken_by_it() -> None:
    view = View()
    watch = view.watch(Kind.JOB, "job_a")
    view.reset([], epoch=2)
    assert await was_woken(watch)
    view.apply(changed(a_job()))
    assert await was_woken(watch)


async def test_a_closed_view_lets_nobody_wait() -> None:
    view = View()
    watch = view.watch(Kind.NODE, "n1")
    view.close()
    assert await was_woken(watch)
    assert await was_woken(view.watch(Kind.NODE, "n1"))


async def test_an_ended_watch_is_woken_no_more_and_leaves_nothing() -> None:
    view = View()
    first, second = view.watch(Kind.JOB, "job_a"), view.watch(Kind.JOB, "job_a")
    view.unwatch(Kind.JOB, "job_a", first)
    view.unwatch(Kind.JOB, "job_a", first)
    view.apply(changed(a_job()))
    assert [await was_woken(first), await was_woken(second)] == [False, True]
    view.unwatch(Kind.JOB, "job_a", second)
    view.apply(changed(a_job()))


def test_a_job_that_became_history_is_still_found() -> None:
    view = View()
    view.apply(changed(a_job(), a_job(status=JobStatus.CANCELLED)))
    view.apply(retired(Kind.JOB, "job_a"))
    found = view.job("job_a")
    assert found is not None
    assert (found.status, view.jobs) == (JobStatus.CANCELLED, {})


def test_recent_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_module, "RECENT_FINAL_JOBS", 3)
    view = View()
    for number in range(5):
        view.apply([*changed(a_job(f"job_{number}")), *retired(Kind.JOB, f"job_{number}")])
    assert [view.job(f"job_{number}") is not None for number in range(5)] == [False] * 2 + [
        True
    ] * 3


def test_retired_nodes_and_keys_are_gone() -> None:
    view = View()
    key = a_key("0" * 64)
    view.apply([*changed(a_node(), key), Heard(node_id="n1", incarnation="i", sequence=1, at_ms=5)])
    assert view.heard_ms == {"n1": 5}
    view.apply([*retired(Kind.NODE, "n1"), *retired(Kind.KEY, key.key_id)])
    assert [view.nodes, view.heard_ms, view.keys, view.keys_by_sha256] == [{}, {}, {}, {}]


def test_retiring_what_is_not_there_does_no_harm() -> None:
    view = View()
    for kind in Kind:
        view.apply(retired(kind, "nothing"))


def test_the_first_word_of_where_a_job_will_fit_counts_for_as_long_as_it_waits() -> None:
    view = View()
    waiting = a_job(wants=("corpus",))
    view.apply(changed(a_node("n1"), a_node("n2"), waiting))
    before = view.revision("n1")
    view.foresee([(waiting.job_id, ("n1",)), ("gone", ("n1",))])
    assert view.expected_on("n1") == [waiting]
    assert view.revision("n1") != before
    view.foresee([(waiting.job_id, ("n2",))])
    assert view.expected_on("n2") == []
    share = Share(node_id="n2", device_ids=("d1",), device_type="CPU")
    claiming = replace(waiting, claim=Claim(shares=(share,), from_ms=5))
    view.apply(changed(claiming))
    assert (view.expected_on("n1"), view.expected_on("n2")) == ([], [claiming])
    view.apply(changed(replace(waiting, status=JobStatus.SCHEDULING)))
    assert view.expected_on("n2") == []
    view.apply(changed(waiting))
    assert view.expected_on("n1") == [], "it waits anew"
    view.foresee([(waiting.job_id, ("n2",))])
    view.apply(retired(Kind.JOB, waiting.job_id))
    assert view.expected_on("n2") == []
