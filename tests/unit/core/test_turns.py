"""Whoever waits has a turn, whatever comes after it; who runs is preempted within bounds, and gets on."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.core.commands import ObservedLease, PutQueue
from coordinator.core.known import DAY_MS, MOST_DOUBLINGS
from coordinator.core.records import Checkpoint, Lease, LeaseAction, LeaseState, Order, Queue
from coordinator.core.settings import CoreSettings
from tests.unit.core.conftest import Bench, caller

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
SETTINGS = CoreSettings(unreachable_after_ms=1 << 50, replace_after_ms=1 << 51)


class OneNode(Bench):
    """One node, whose agent saves and stops at once what is to save and stop."""

    def __init__(self, queue: Queue, *, count: int = 1) -> None:
        super().__init__(SETTINGS)
        self.step(PutQueue(caller=caller(), queue=queue))
        self.node("n1", count)
        self._saved = 0

    def running(self) -> str:
        """The job that has devices, or one of them; "" for none."""
        return next((x.job_id for x in self.core.state.leases_on("n1") if not x.is_ended), "")

    def hear(self, *, done: bool = False) -> None:
        """The agent is heard, until it has nothing new to say; `done` is whether what runs is over."""
        for _ in range(4):
            leases = [x for x in self.core.state.leases_on("n1") if not x.is_ended]
            self.report("n1", *[self._observe(lease, done=done) for lease in leases])
            self.schedule()
            done = False

    def _observe(self, lease: Lease, *, done: bool) -> ObservedLease:
        stops = lease.action is LeaseAction.STOP
        more: dict[str, Any] = {"done": done, "stopped": stops and not done, "saved": lease.save}
        if lease.save > lease.saved:
            self._saved += 1
            one = Checkpoint(
                checkpoint_id=f"c{self._saved}",
                step=self._saved,
                uri="c",
                size_bytes=0,
                digest="",
                created_at_ms=self.now_ms,
                attempt=lease.attempt,
            )
            more["checkpoints"] = (one,)
        state = LeaseState.ENDED if done or stops else LeaseState.RUNNING
        return self.seen(lease.lease_id, state, **more)


def steps_until_its_turn(cluster: OneNode, *, every_ms: int, rival: dict[str, Any]) -> int:
    """How many jobs like the rival pass the job `waits`; there is always one more of them."""
    for number in range(1_000):
        cluster.now_ms += every_ms
        of = dict(rival)
        if "deadline_ms" in of:
            of["deadline_ms"] += cluster.now_ms
        cluster.submit(f"rival{number}", **of)
        cluster.hear(done=True)
        if cluster.running() == "waits":
            return number
    raise AssertionError("it starves")


def test_in_a_queue_by_work_a_long_job_is_passed_only_for_as_long_as_its_work_says() -> None:
    cluster = OneNode(Queue(name="default", order=Order.SHORTEST, aging_permille=200))
    cluster.submit("first", expected_duration_ms=HOUR_MS)
    cluster.hear()
    cluster.submit("waits", expected_duration_ms=100 * MINUTE_MS)
    short = {"expected_duration_ms": 10 * MINUTE_MS}
    passed = steps_until_its_turn(cluster, every_ms=10 * MINUTE_MS, rival=short)
    assert 40 <= passed <= 46, "(100 - 10) minutes / 0.2 are 45 times ten minutes"


def test_in_a_queue_by_time_nobody_is_passed_for_more_than_a_day() -> None:
    cluster = OneNode(Queue(name="default"))
    cluster.submit("first")
    cluster.hear()
    cluster.submit("waits")
    passed = steps_until_its_turn(cluster, every_ms=HOUR_MS, rival={"deadline_ms": 1})
    assert 20 <= passed <= 25


def test_in_a_fair_queue_who_used_much_is_passed_until_others_have_used_as_much() -> None:
    cluster = OneNode(Queue(name="default", order=Order.FAIR))
    much = caller(user_id="much")
    cluster.submit("first", caller=much)
    cluster.hear()
    cluster.now_ms += 10 * HOUR_MS
    cluster.submit("waits", caller=much)
    passed = steps_until_its_turn(cluster, every_ms=HOUR_MS, rival={"caller": caller(user_id="b")})
    assert 5 <= passed <= 13


def test_of_what_a_user_held_the_resource_counts_of_which_that_was_the_largest_part() -> None:
    """Ada held a quarter of the devices and most of the CPUs, Bob half of the devices."""
    ada, bob = caller(user_id="ada"), caller(user_id="bob")
    cluster = OneNode(Queue(name="default", order=Order.FAIR), count=4)
    cluster.submit("a1", caller=ada, cpu_count=60)
    cluster.submit("b1", 2, caller=bob, cpu_count=1)
    cluster.hear()
    cluster.now_ms += HOUR_MS
    cluster.submit("a2", 4, caller=ada)
    cluster.submit("b2", 4, caller=bob)
    cluster.hear(done=True)
    assert cluster.running() == "b2"


@pytest.mark.parametrize(("idle_ms", "first"), [(HOUR_MS, "b2"), (8 * DAY_MS, "a2")])
def test_what_was_used_is_forgotten_by_half_in_a_week(idle_ms: int, first: str) -> None:
    """Ada has used ten hours before the pause, Bob six after it."""
    ada, bob = caller(user_id="ada"), caller(user_id="bob")
    cluster = OneNode(Queue(name="default", order=Order.FAIR))
    for job_id, user, hours, pause_ms in (("a1", ada, 10, idle_ms), ("b1", bob, 6, 0)):
        cluster.submit(job_id, caller=user)
        cluster.hear()
        cluster.now_ms += hours * HOUR_MS
        if not pause_ms:
            cluster.submit("b2", caller=bob)
            cluster.submit("a2", caller=ada)
        cluster.hear(done=True)
        cluster.now_ms += pause_ms
    assert cluster.running() == first


@pytest.mark.parametrize("order", [Order.PRIORITY_FIFO, Order.SHORTEST])
def test_whoever_is_preempted_again_and_again_gets_on_in_between_and_not_more_often_than_a_day_allows(
    order: Order,
) -> None:
    """Whenever it runs a short job of a higher priority comes, and takes two minutes."""
    cluster = OneNode(Queue(name="default", order=order, preempts=True))
    cluster.submit("long", expected_duration_ms=100 * HOUR_MS, priority=1)
    cluster.hear()
    began_ms, ran_ms, went_ms = cluster.now_ms, [], []
    for number in range(30 * 30):
        cluster.now_ms += 2 * MINUTE_MS
        before = cluster.job("long")
        is_rival = cluster.running() != "long"
        if not is_rival and not cluster.core.state.queue.group_of:
            cluster.submit(f"short{number}", expected_duration_ms=MINUTE_MS, priority=5)
        cluster.hear(done=is_rival)
        after = cluster.job("long")
        if after.preempted_at_ms[-1:] != before.preempted_at_ms[-1:]:
            assert before.attempt is not None
            ran_ms.append(cluster.now_ms - before.attempt.started_at_ms)
            went_ms.append(cluster.now_ms)
    least_ms = SETTINGS.min_run_ms
    assert len(went_ms) > 3
    for number, ran in enumerate(ran_ms):
        today = sum(went_ms[number] - at_ms < DAY_MS for at_ms in went_ms[:number])
        assert ran >= least_ms << min(today, MOST_DOUBLINGS), "each time it has run for longer"
    first_day = sum(at_ms - began_ms < DAY_MS for at_ms in went_ms)
    assert first_day <= SETTINGS.max_preemptions_per_day
