"""The loop that decides: commit, then answer, then act; and what it does when the store fails."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from coordinator.core.commands import Command, SyncNode
from coordinator.core.core import Core
from coordinator.core.decision import Decision, Reply
from coordinator.core.invariants import InvariantViolation
from coordinator.core.reasons import Reason
from coordinator.core.records import Device, JobStatus, Kind, Offer
from coordinator.runtime import driver as driver_module
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import Fenced
from tests.unit.runtime.stores import (
    LANDED,
    LOST,
    FaultyStore,
    a_command,
    a_driver,
    lead,
    running,
)


@pytest.fixture
async def store() -> FaultyStore:
    opened = FaultyStore()
    await opened.open()
    return opened


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "RETRY_DELAY_S", 0.0)


def start(driver: Driver, *commands: Command) -> list[asyncio.Task[Reply]]:
    """Submits commands at once."""
    return [asyncio.create_task(driver.submit(command)) for command in commands]


async def reason_of(task: asyncio.Task[Reply]) -> Reason:
    with pytest.raises(Refusal) as caught:
        await task
    return caught.value.reason


def a_sync(sequence: int) -> SyncNode:
    offer = Offer(devices=(Device(device_id="d1", index=0, type="CPU"),))
    return SyncNode(node_id="n1", incarnation="i", generation=1, sequence=sequence, offer=offer)


async def test_an_answer_means_that_the_decision_is_durable(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        reply = await driver.submit(a_command("job_a"))
    assert reply.job is not None
    assert await store.job("job_a") == reply.job
    assert await store.document("job_a") == b"body"


async def test_commands_that_wait_together_share_one_commit(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        await asyncio.gather(*start(driver, *(a_command(f"job_{n}") for n in range(50))))
    assert len(store.batches) == 1
    assert (driver.figures.commands_total, driver.figures.commits_total) == (50, 1)


async def test_what_comes_during_a_commit_shares_the_next_one(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        store.hold()
        first = start(driver, a_command("job_0"))
        await store.arrived.wait()
        rest = start(driver, *(a_command(f"job_{n}") for n in range(1, 30)))
        await asyncio.sleep(0)
        store.let_go.set()
        await asyncio.gather(*first, *rest)
    assert len(store.batches) == 2


async def test_a_batch_is_bounded(store: FaultyStore) -> None:
    driver = a_driver(store, batch_limit=10)
    async with running(driver):
        await asyncio.gather(*start(driver, *(a_command(f"job_{n}") for n in range(25))))
    assert len(store.batches) == 3


async def test_a_full_queue_refuses_at_once_and_forgets_nothing(store: FaultyStore) -> None:
    driver = a_driver(store, queue_limit=2, batch_limit=1)
    async with running(driver):
        store.hold()
        (first,) = start(driver, a_command("job_0"))
        await store.arrived.wait()
        waiting = start(driver, a_command("job_1"), a_command("job_2"))
        await asyncio.sleep(0)
        (refused,) = start(driver, a_command("job_3"))
        assert await reason_of(refused) is Reason.OVERLOADED
        store.let_go.set()
        await asyncio.gather(first, *waiting)
    assert sorted(driver.view.jobs) == ["job_0", "job_1", "job_2"]


async def test_nobody_sees_what_is_not_committed(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        await driver.submit(a_sync(1))
        revision = driver.view.revision("n1")
        store.hold()
        (task,) = start(driver, a_command("job_a"))
        await store.arrived.wait()
        assert (driver.view.jobs, driver.view.leases_by_node) == ({}, {})
        assert driver.view.revision("n1") == revision
        assert not task.done()
        store.let_go.set()
        await task
        assert driver.view.jobs["job_a"].status is JobStatus.SCHEDULING
        assert driver.view.revision("n1") != revision


async def test_a_commit_that_landed_and_reported_failure_is_offered_again_by_its_id(
    store: FaultyStore,
) -> None:
    driver = a_driver(store)
    async with running(driver):
        store.commits.extend([LANDED, LOST])
        reply = await driver.submit(a_command("job_a"))
        await driver.submit(a_command("job_b"))
    assert reply.job is not None
    first, second, third, fourth = store.batches
    assert first.id == second.id == third.id != fourth.id
    assert sorted((await store.load()).records, key=lambda one: one.id) == sorted(
        driver.view.jobs.values(), key=lambda one: one.id
    )


@pytest.mark.parametrize("fate", [LOST, LANDED])
async def test_an_unknown_outcome_is_told_and_settled_by_asking_again(
    store: FaultyStore, fate: str
) -> None:
    driver = a_driver(store)
    async with running(driver):
        store.commits.extend([fate] * driver_module.COMMIT_TRIES)
        (task,) = start(driver, a_command("job_a", request_id="r1"))
        assert await reason_of(task) is Reason.STORE_UNAVAILABLE
        again = a_command("job_b", request_id="r1")
        reply = await until_it_leads(driver, again)
    assert reply.job is not None
    assert reply.job.job_id == ("job_a" if fate == LANDED else "job_b")
    assert reply.replayed is (fate == LANDED)
    assert len(driver.view.jobs) == 1


async def until_it_leads(driver: Driver, command: Command) -> Reply:
    async with asyncio.timeout(60):
        while True:
            try:
                return await driver.submit(command)
            except Refusal as refusal:
                if refusal.reason is not Reason.STORE_UNAVAILABLE:
                    raise
            await asyncio.sleep(0)


async def test_a_store_that_is_down_for_long_loses_nothing_that_was_acknowledged(
    store: FaultyStore,
) -> None:
    driver = a_driver(store)
    async with running(driver):
        await asyncio.gather(*start(driver, *(a_command(f"job_{n}") for n in range(5))))
        before, epoch = dict(driver.view.jobs), driver.view.epoch
        store.commits.extend([LOST] * driver_module.COMMIT_TRIES)
        store.loads.extend([LOST] * 20)
        (task,) = start(driver, a_command("job_x"))
        assert await reason_of(task) is Reason.STORE_UNAVAILABLE
        assert driver.view.jobs == before
        (early,) = start(driver, a_command("job_y"))
        assert await reason_of(early) is Reason.STORE_UNAVAILABLE
        await until_it_leads(driver, a_command("job_z"))
    assert driver.view.jobs.keys() == {*before, "job_z"}
    assert driver.view.epoch == epoch
    assert driver.figures.reloads_total == 2


async def test_what_waits_behind_a_failed_commit_is_decided_after_the_reload(
    store: FaultyStore,
) -> None:
    driver = a_driver(store)
    async with running(driver):
        store.hold()
        store.commits.extend([LOST] * driver_module.COMMIT_TRIES)
        (first,) = start(driver, a_command("job_a"))
        await store.arrived.wait()
        (second,) = start(driver, a_command("job_b"))
        await asyncio.sleep(0)
        store.let_go.set()
        assert await reason_of(first) is Reason.STORE_UNAVAILABLE
        await second
    assert list(driver.view.jobs) == ["job_b"]


async def test_a_fenced_leader_stops_and_leaves_nobody_waiting(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver) as task:
        await store.acquire("another")
        waiting = start(driver, a_command("job_a"), a_command("job_b"))
        for one in waiting:
            assert await reason_of(one) is Reason.STORE_UNAVAILABLE
        with pytest.raises(Fenced):
            await task
        (late,) = start(driver, a_command("job_c"))
        assert await reason_of(late) is Reason.NOT_LEADER
    assert driver.view.jobs == {}


class Doubtful(Core):
    """A core that doubts its state when it is asked for `job_bad`."""

    def step(self, command: Command, now_ms: int) -> Decision:
        decision = super().step(command, now_ms)
        if getattr(command, "job_id", "") == "job_bad":
            raise InvariantViolation("a device is leased twice")
        return decision


async def test_a_core_that_doubts_its_state_hands_out_nothing_more(store: FaultyStore) -> None:
    driver = a_driver(store, make_core=Doubtful)
    async with running(driver) as task:
        await driver.submit(a_sync(1))
        offered = len(store.batches)
        waiting = start(driver, a_command("job_good"), a_command("job_bad"))
        for one in waiting:
            assert await reason_of(one) is Reason.STORE_UNAVAILABLE
        with pytest.raises(InvariantViolation):
            await task
    assert len(store.batches) == offered
    assert (driver.view.jobs, driver.view.desired_of_node("n1")) == ({}, [])


async def test_a_restart_comes_back_with_everything_and_a_higher_epoch(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        await driver.submit(a_sync(1))
        await asyncio.gather(*start(driver, a_command("job_a"), a_command("job_b")))
    another = a_driver(store)
    async with running(another):
        assert another.view.jobs == driver.view.jobs
        assert another.view.leases_by_node == driver.view.leases_by_node
        assert another.view.nodes == driver.view.nodes
        assert another.view.epoch == driver.view.epoch + 1


async def test_a_report_that_says_nothing_new_is_not_written(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        await driver.submit(a_sync(1))
        written = len(store.batches)
        await driver.submit(a_sync(2))
        assert len(store.batches) == written
        assert "n1" in driver.view.heard_ms


async def test_a_refusal_is_counted_and_writes_nothing(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        await driver.submit(a_command("job_a", request_id="r1"))
        written = len(store.batches)
        again = a_command("job_b", request_id="r1")
        other = replace(again, caller=replace(again.caller, digest="other"))
        (task,) = start(driver, other)
        assert await reason_of(task) is Reason.REQUEST_ID_REUSED
    assert len(store.batches) == written
    assert driver.figures.rejected_total == {Reason.REQUEST_ID_REUSED: 1}


async def test_a_caller_that_goes_away_hurts_nobody(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        store.hold()
        gone, stays = start(driver, a_command("job_a"), a_command("job_b"))
        await store.arrived.wait()
        gone.cancel()
        store.let_go.set()
        await stays
        await asyncio.wait([gone])
    assert gone.cancelled()
    assert sorted(driver.view.jobs) == ["job_a", "job_b"]


async def test_a_deadline_passes_without_a_command(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        watch = driver.view.watch(Kind.JOB, "job_a")
        soon_ms = time.time_ns() // 1_000_000 + 50
        await driver.submit(a_command("job_a", start_after_ms=soon_ms))
        async with asyncio.timeout(60):
            while driver.view.jobs["job_a"].status is not JobStatus.QUEUED:
                await watch.wait(10)


async def test_nothing_is_taken_before_it_leads() -> None:
    driver = a_driver(MemoryStore())
    (task,) = start(driver, a_command("job_a"))
    assert await reason_of(task) is Reason.NOT_LEADER


async def test_recovery_hears_every_node_anew(store: FaultyStore) -> None:
    driver = a_driver(store)
    async with running(driver):
        await driver.submit(a_sync(1))
    another = a_driver(store)
    await lead(another)
    assert set(another.view.heard_ms) == {"n1"}


async def test_a_driver_that_is_cancelled_with_work_at_hand_ends(store: FaultyStore) -> None:
    for _ in range(100):
        driver = a_driver(store)
        async with asyncio.timeout(60), running(driver):
            await driver.submit(a_sync(driver.view.epoch))
