"""Answers from a look ahead that is kept are those of the scheduler run ahead for the job alone."""

from __future__ import annotations

import random
import selectors
import time
from collections.abc import Iterator

import pytest

from coordinator.core.core import Core, CoreSettings
from coordinator.core.explain import alter, changes
from coordinator.core.forecast import Forecast, Limits, settings_for
from coordinator.core.records import JobStatus
from coordinator.forecast import explainer as room
from coordinator.forecast.explainer import Explainer
from coordinator.forecast.replica import Replica
from coordinator.forecast.terms import Explain, Explained, Foresee, Foreseen, Found
from tests.unit.core.conftest import Bench

MINUTE_MS = 60_000
FAR = Limits(steps=150)
LIMIT_S = 60.0


MADE: list[Desk] = []


class Desk:
    """An explainer with a replica of a bench, as the forecaster's process has it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.replica = Replica(CoreSettings())
        self.replica.core.load(bench.core.state.records())
        self.selector = selectors.DefaultSelector()
        self.answers: dict[int, Found | None] = {}
        self.explainer = Explainer(self.answers.__setitem__, self._watch)
        MADE.append(self)

    def explain(self, job_id: str) -> Explained:
        """The answer, whenever it comes."""
        self.replica.settle()
        question = Explain(job_id, self.bench.now_ms)
        self.explainer.explain(self.replica, 1, question=question)
        found = self.answer(1)
        assert isinstance(found, Explained)
        return found

    def answer(self, number: int) -> Found | None:
        end_s = time.monotonic() + LIMIT_S
        while number not in self.answers:
            assert time.monotonic() < end_s
            self.selector.select(self.explainer.due_s())
            self.explainer.hear(self.replica)
        return self.answers.pop(number)

    def changed(self) -> None:
        """The bench is not as it was."""
        self.replica = Replica(CoreSettings())
        self.replica.core.load(self.bench.core.state.records())
        self.explainer.changed()

    def _watch(self, fd: int, on: bool) -> None:
        if on:
            self.selector.register(fd, selectors.EVENT_READ)
        else:
            self.selector.unregister(fd)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A busy machine does not cut answers short; what was forked ends with the test."""
    monkeypatch.setattr(room, "PATIENCE_S", LIMIT_S)
    monkeypatch.setattr(room, "WITHIN_S", LIMIT_S)
    monkeypatch.setattr(room, "QUICK_S", LIMIT_S)
    yield
    while MADE:
        MADE.pop().explainer.close()


def crowd(dice: random.Random) -> Bench:
    """Some nodes, jobs of all sizes on them, and more that wait."""
    bench = Bench()
    for number in range(dice.randrange(1, 4)):
        bench.node(f"n{number}", dice.choice((2, 4, 8)))
    for number in range(dice.randrange(4, 14)):
        bench.now_ms += dice.randrange(MINUTE_MS)
        bench.submit(
            f"j{number}",
            dice.choice((1, 1, 2, 3, 4)),
            expected_duration_ms=dice.choice((0, 10, 45, 200)) * MINUTE_MS,
            priority=dice.randrange(1, 4),
        )
    return bench


def full(bench: Bench, job_id: str) -> tuple[int | None, dict[str, int]]:
    """(The job's start, its start with each change), each by the scheduler run for it alone."""

    def run(change: object = None) -> int | None:
        core = Core(settings_for(CoreSettings()))
        core.load(bench.core.state.records())
        core.follow()
        forecast = Forecast(core, bench.now_ms)
        if change is not None:
            alter(core.state, change, now_ms=bench.now_ms)  # type: ignore[arg-type]
        return forecast.run(limits=FAR, wanted=job_id)

    wishes = changes(bench.core.state, bench.job(job_id))
    found = {one.text: at_ms for one in wishes if (at_ms := run(one)) is not None}
    return run(), found


@pytest.mark.parametrize("seed", range(12))
def test_what_is_told_is_what_the_scheduler_says_when_it_runs_for_each_question_alone(
    seed: int,
) -> None:
    bench = crowd(random.Random(seed))
    desk = Desk(bench)
    waiting = [x.job_id for x in bench.core.state.jobs.values() if x.status is JobStatus.QUEUED]
    for job_id in waiting[-2:]:
        found = desk.explain(job_id)
        at_ms, changed_ms = full(bench, job_id)
        assert at_ms is not None
        assert found.wait_p50_ms == at_ms - bench.now_ms
        assert found.untried == 0
        told = {one.change: one.wait_ms + bench.now_ms for one in found.sooner}
        assert told.items() <= changed_ms.items()
        worth = [
            text
            for text, one_ms in changed_ms.items()
            if room._is_worth(one_ms - bench.now_ms, at_ms - bench.now_ms)
        ]
        assert set(worth[: room.MOST_SOONER]) <= told.keys() or len(worth) > room.MOST_SOONER


def test_what_would_save_most_of_a_short_wait_is_told_too() -> None:
    bench = Bench()
    bench.node("n1", 4)
    for job_id in ("runs", "next", "waits"):
        bench.submit(job_id, 4, expected_duration_ms=20_000)
    found = Desk(bench).explain("waits")
    assert found.wait_p50_ms is not None
    assert found.wait_p50_ms > 40_000
    assert [one.change for one in found.sooner if one.wait_ms < 25_000] == ["priority=10"]


def full_node() -> Bench:
    """An hour's training on all devices, and one that waits for them."""
    bench = Bench()
    bench.node("n1", 4)
    bench.submit("first", 4, expected_duration_ms=60 * MINUTE_MS)
    bench.submit("second", 4, expected_duration_ms=60 * MINUTE_MS)
    return bench


def test_what_a_change_comes_to_is_corrected_by_what_was_learnt_as_the_wait_is() -> None:
    bench = Bench()
    bench.node("n1", 8)
    for name, minutes in (("a", 10), ("b", 40)):
        bench.submit(name, 4, expected_duration_ms=minutes * MINUTE_MS)
    bench.submit("w", 8, expected_duration_ms=MINUTE_MS)
    desk = Desk(bench)
    calibration, then_ms = desk.replica.calibration, bench.now_ms - 40 * MINUTE_MS
    for number in range(60):  # all started after a tenth of what was foretold
        calibration.tell(f"x{number}", then_ms, wait_ms=40 * MINUTE_MS)
    for number in range(60):
        calibration.start(f"x{number}", then_ms + 4 * MINUTE_MS)
    found = desk.explain("w")
    told = {one.change: one.wait_ms for one in found.sooner}
    assert found.wait_p50_ms is not None
    assert found.wait_p50_ms < 10 * MINUTE_MS
    assert told["gpu_count=4"] == pytest.approx(found.wait_p50_ms / 4, rel=0.01)


def test_a_look_that_costs_little_is_made_anew_when_something_has_changed() -> None:
    bench = full_node()
    desk = Desk(bench)
    before = desk.explain("second")
    bench.submit("urgent", 4, expected_duration_ms=60 * MINUTE_MS, priority=9)
    bench.now_ms += MINUTE_MS
    desk.changed()
    after = desk.explain("second")
    assert (before.age_ms, after.age_ms) == (0, 0)
    assert before.wait_p50_ms is not None
    assert after.wait_p50_ms is not None
    assert after.wait_p50_ms > before.wait_p50_ms + 50 * MINUTE_MS


def test_one_that_costs_much_is_kept_tells_its_age_and_tries_jobs_that_came_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "QUICK_S", -1.0)
    bench = full_node()
    desk = Desk(bench)
    assert desk.explain("second").age_ms == 0
    bench.submit("new", 4, expected_duration_ms=60 * MINUTE_MS)
    bench.now_ms += MINUTE_MS
    desk.changed()
    second, new = desk.explain("second"), desk.explain("new")
    assert (second.age_ms, new.age_ms) == (MINUTE_MS, MINUTE_MS)
    assert second.wait_p50_ms is not None
    assert new.wait_p50_ms is not None
    assert new.wait_p50_ms >= second.wait_p50_ms + 60 * MINUTE_MS
    assert new.after_job_ids == ("second",)


def test_what_is_not_tried_in_time_is_counted_and_told_to_who_asks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "QUICK_S", -1.0)
    desk = Desk(full_node())
    desk.replica.settle()
    desk.explainer.foresee(desk.replica, 7, question=Foresee(desk.bench.now_ms))
    desk.answer(7)
    monkeypatch.setattr(room, "WITHIN_S", 0.0)
    first = desk.explain("second")
    assert first.untried > 0
    monkeypatch.setattr(room, "WITHIN_S", LIMIT_S)
    assert desk.explain("second").untried == 0


def test_a_look_at_all_jobs_and_a_question_share_one_look() -> None:
    desk = Desk(full_node())
    desk.replica.settle()
    desk.explainer.foresee(desk.replica, 7, question=Foresee(desk.bench.now_ms))
    found, foreseen = desk.explain("second"), desk.answer(7)
    assert isinstance(foreseen, Foreseen)
    assert found.wait_p50_ms == foreseen.starts_ms["second"] - desk.bench.now_ms
