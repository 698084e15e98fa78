"""No priority starves: who has waited for long behind others is raised, and stays so while it runs."""

from __future__ import annotations

import pytest

from coordinator.core import aging
from coordinator.core.commands import PutQueue, Tick
from coordinator.core.deadlines import Due
from coordinator.core.records import ROOT, JobStatus, Order, Queue
from tests.unit.core.conftest import caller
from tests.unit.core.test_turns import HOUR_MS, OneNode, steps_until_its_turn

WEEK_MS = 7 * 24 * HOUR_MS


class Cluster(OneNode):
    """Time that passes is noticed."""

    def hear(self, *, done: bool = False) -> None:
        for _ in range(64):
            due_ms = self.core.next_deadline_ms()
            if due_ms is None or due_ms > self.now_ms:
                break
            self.step(Tick())
            self.schedule()
        super().hear(done=done)


@pytest.mark.parametrize("order", list(Order))
def test_in_every_order_a_low_priority_has_its_turn(order: Order) -> None:
    cluster = Cluster(Queue(name="default", order=order))
    cluster.submit("first", priority=10)
    cluster.hear()
    cluster.submit("waits", priority=8)
    passed = steps_until_its_turn(cluster, every_ms=6 * HOUR_MS, rival={"priority": 10})
    assert 2 * 28 - 1 <= passed <= 2 * 28 + 3, "two priorities are two weeks"


def test_those_it_was_raised_to_do_not_take_its_devices() -> None:
    cluster = Cluster(Queue(name="default", preempts=True))
    cluster.submit("first", priority=6)
    cluster.hear()
    cluster.submit("waits", priority=5)
    cluster.now_ms += WEEK_MS
    cluster.hear(done=True)
    assert cluster.running() == "waits"
    cluster.submit("rival", priority=6)
    cluster.now_ms += HOUR_MS
    cluster.hear()
    assert cluster.running() == "waits"
    cluster.submit("above", priority=7)
    cluster.hear()
    assert cluster.running() == "above"


@pytest.mark.parametrize(("order", "raised"), [(Order.PRIORITY_FIFO, 1), (Order.FAIR, 0)])
def test_queues_are_beside_each_other_by_priority_or_by_use(order: Order, raised: int) -> None:
    cluster = Cluster(Queue(name=ROOT, order=order))
    for name in ("high", "low"):
        cluster.step(PutQueue(caller=caller(), queue=Queue(name=name)))
    cluster.submit("first", priority=6, queue_name="high")
    cluster.hear()
    cluster.submit("waits", priority=5, queue_name="low")
    cluster.now_ms += WEEK_MS + HOUR_MS
    cluster.hear()
    assert cluster.core.state.jobs["waits"].aged == raised


def test_more_than_are_raised_at_once_are_raised_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aging, "MOST_RAISED", 3)
    cluster = Cluster(Queue(name="default"))
    cluster.submit("first", priority=6)
    cluster.hear()
    names = [f"waits{number}" for number in range(8)]
    for name in names:
        cluster.submit(name, priority=5)
    cluster.now_ms += WEEK_MS
    for _ in range(3):
        cluster.now_ms += 1
        cluster.hear()
    assert all(cluster.core.state.jobs[name].aged == 1 for name in names)


def test_a_cluster_of_one_priority_raises_nobody_and_looks_seldom() -> None:
    cluster = Cluster(Queue(name="default"))
    cluster.submit("first")
    cluster.hear()
    cluster.submit("waits")
    wanted, looks = cluster.core.state.deadlines.wanted, 0
    for _ in range(3 * 28):
        cluster.now_ms += WEEK_MS // 28
        due_ms = wanted.get((Due.AGE, ""))
        cluster.hear()
        looks += wanted.get((Due.AGE, "")) != due_ms
    job = cluster.core.state.jobs["waits"]
    assert (job.aged, job.status) == (0, JobStatus.QUEUED)
    assert looks <= 2 * 28 + 1
