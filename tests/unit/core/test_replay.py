"""What is kept of a preemption is enough to decide it again, as it was and as it might have been."""

from __future__ import annotations

from random import Random

import pytest

from coordinator.core.commands import PutQueue
from coordinator.core.records import Considered, LeaseState, Queue, Ruling
from coordinator.core.replay import Otherwise, decide, is_same, spared, thin
from coordinator.core.settings import CoreSettings
from tests.unit.core.conftest import Bench, caller
from tests.unit.core.test_passes import Cluster

MINUTE_MS = 60_000
Running = tuple[int, int, int, bool]  # devices, priority, minutes that it runs, preemptible


def world(running: list[Running], wanted: int) -> tuple[Ruling | None, tuple[str, ...]]:
    """Jobs run on one node of eight devices; another one of priority 5 comes and wants some. What was
    ruled, and who went."""
    bench = Bench(CoreSettings(unreachable_after_ms=1 << 50, replace_after_ms=1 << 51))
    bench.step(PutQueue(caller=caller(), queue=Queue(name="default", preempts=True)))
    bench.node("n1", 8)
    began_ms = bench.now_ms
    longest = max(minutes for _, _, minutes, _ in running)
    order = sorted(range(len(running)), key=lambda number: -running[number][2])
    told = []
    for number in order:
        count, priority, minutes, preemptible = running[number]
        bench.now_ms = began_ms + (longest - minutes) * MINUTE_MS
        bench.submit(f"j{number}", count, priority=priority, preemptible=preemptible)
        told.append(bench.seen(f"j{number}.1.0", LeaseState.RUNNING))
        bench.report("n1", *told)
    bench.now_ms = began_ms + (longest + 6) * MINUTE_MS
    bench.report("n1", *told)
    bench.submit("new", wanted, priority=5)
    rulings = list(bench.core.state.rulings.values())
    went = sorted(job.job_id for job in bench.core.state.jobs.values() if job.preempted_at_ms)
    return (rulings[0] if rulings else None), tuple(went)


def some_jobs(dice: Random) -> list[Running]:
    found: list[Running] = []
    while (left := 8 - sum(count for count, *_ in found)) and len(found) < 6:
        count = min(left, dice.choice((1, 1, 2, 3)))
        found.append((count, dice.randrange(5), dice.randrange(1, 200), True))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_of_those_of_one_priority_the_ones_go_that_lose_least(seed: int) -> None:
    dice = Random(seed)
    minutes = dice.sample(range(1, 200), 8)
    wanted = dice.randrange(1, 8)
    _, went = world([(1, 2, one, True) for one in minutes], wanted)
    newest = sorted(range(8), key=lambda number: minutes[number])
    assert set(went) == {f"j{number}" for number in newest[:wanted]}


@pytest.mark.parametrize("seed", range(60))
def test_a_decision_made_again_is_the_same_and_otherwise_is_as_the_scheduler_would_have_decided(
    seed: int,
) -> None:
    dice = Random(seed)
    running = some_jobs(dice)
    ruling, went = world(running, dice.randrange(1, 5))
    if ruling is None:
        assert not went
        return
    wanted = ruling.devices_milli // 1000
    assert decide(ruling) == went
    assert is_same(ruling)
    for job_id in went:
        number = int(job_id.removeprefix("j"))
        count, _, minutes, _ = running[number]
        higher = list(running)
        higher[number] = count, ruling.priority + 1, minutes, True
        bound = list(running)
        bound[number] = count, running[number][1], minutes, False
        for changed, otherwise in (
            (higher, Otherwise(priority=ruling.priority + 1)),
            (bound, Otherwise(preemptible=False)),
        ):
            assert (decide(ruling, changed={job_id: otherwise}) or ()) == world(changed, wanted)[1]


@pytest.mark.parametrize("seed", [3, 43])
def test_every_decision_of_random_hours_comes_out_the_same_again(seed: int) -> None:
    cluster = Cluster(seed)
    for _ in range(150):
        cluster.go_on()
        cluster.rest()
    rulings = cluster.core.state.rulings
    assert rulings
    assert [ruling for ruling in rulings.values() if is_same(ruling) is not True] == []


def a_ruling(
    *considered: tuple[str, int, bool], rule: str, instead: tuple[int, ...] | None = None
) -> Ruling:
    return Ruling(
        job_id="new",
        at_ms=1,
        queue_name="default",
        priority=5,
        devices_milli=1_000,
        node_ids=("n1",),
        considered=tuple(
            Considered(
                job_id=name,
                attempt=1,
                rule=rule,
                loss_ms=loss_ms,
                goes=goes,
                instead=instead if goes else None,
            )
            for name, loss_ms, goes in considered
        ),
    )


def test_who_would_have_lost_more_is_asked_last() -> None:
    ruling = a_ruling(("a", 1_000, True), ("b", 2_000, False), instead=(1,), rule="PRIORITY")
    assert is_same(ruling)
    assert decide(ruling, changed={"a": Otherwise(loss_ms=3_000)}) == ("b",)
    assert decide(ruling, changed={"b": Otherwise(loss_ms=0)}) == ("b",)


def test_what_would_have_kept_it_is_told_with_who_would_have_gone_instead() -> None:
    ruling = a_ruling(("a", 1_000, True), ("b", 2_000, False), instead=(1,), rule="LESS_TO_DO")
    told = [(one.change, one.instead) for one in spared(ruling, "a")]
    assert told == [("priority=6", ("b",)), ("preemptible=false", ("b",))]
    alone = a_ruling(("a", 1_000, True), instead=(), rule="GUARANTEE")
    assert [(one.change, one.instead) for one in spared(alone, "a")] == [("preemptible=false", ())]


@pytest.mark.parametrize("rule", ["LENT", "DRAIN", "REQUEST"])
def test_where_there_was_no_choice_nothing_would_have_kept_it(rule: str) -> None:
    ruling = a_ruling(("a", 1_000, True), rule=rule)
    assert (is_same(ruling), spared(ruling, "a")) == (True, [])


def test_of_what_was_kept_before_that_could_be_done_nothing_is_told() -> None:
    ruling = a_ruling(("a", 1_000, True), rule="PRIORITY")
    assert (is_same(ruling), spared(ruling, "a")) == (None, [])


def test_the_dearest_are_asked_first_whether_they_may_stay() -> None:
    asked: list[str] = []

    def may_stay(name: str) -> bool:
        asked.append(name)
        return name == "b"

    assert thin({"a": 1, "b": 3, "c": 3}, may_stay) == ["c", "a"]
    assert asked == ["b", "c", "a"]
