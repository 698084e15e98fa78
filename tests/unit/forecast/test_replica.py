"""What the forecaster learns from: forecasts of jobs that wait, for as long as they wait."""

from __future__ import annotations

from coordinator.core.commands import CancelJob
from coordinator.core.core import CoreSettings
from coordinator.forecast.replica import Replica
from tests.unit.core.conftest import Bench, caller

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


def replica_of(bench: Bench) -> Replica:
    replica = Replica(CoreSettings())
    replica.core.load(bench.core.state.records())
    return replica


def full_node() -> Bench:
    """One that runs on all devices, and one that waits for them."""
    bench = Bench()
    bench.node("n1", 4)
    bench.submit("first", 4)
    bench.submit("second", 4)
    return bench


def test_of_who_runs_nothing_is_foretold_and_nothing_learnt() -> None:
    """It may be preempted in a look ahead, and start once more there."""
    bench = full_node()
    replica = replica_of(bench)
    later_ms = bench.now_ms + MINUTE_MS
    foreseen = replica.note({"first": later_ms, "second": later_ms, "gone": later_ms}, bench.now_ms)
    assert foreseen.starts_ms.keys() == {"second"}
    replica.calibration.forget("second")
    knowing_nothing = Replica(CoreSettings()).calibration.range_ms(
        MINUTE_MS, bench.now_ms + HOUR_MS
    )
    assert replica.calibration.range_ms(MINUTE_MS, bench.now_ms + HOUR_MS) == knowing_nothing


def test_who_is_cancelled_while_it_waits_is_waited_for_no_more() -> None:
    bench = full_node()
    replica, other = replica_of(bench), replica_of(bench)
    for one in (replica, other):
        one.note({"second": bench.now_ms + MINUTE_MS}, bench.now_ms)
    replica.feed(bench.step(CancelJob(caller=caller(), job_id="second")).events)
    later_ms = bench.now_ms + HOUR_MS
    knowing_nothing = Replica(CoreSettings()).calibration.range_ms(MINUTE_MS, later_ms)
    assert replica.calibration.range_ms(MINUTE_MS, later_ms) == knowing_nothing
    assert other.calibration.range_ms(MINUTE_MS, later_ms) > knowing_nothing


def test_until_a_jobs_own_time_comes_its_wait_is_sure() -> None:
    bench = full_node()
    bench.submit("later", 4, start_after_ms=bench.now_ms + HOUR_MS)
    replica = replica_of(bench)
    job = replica.core.state.jobs["later"]
    assert replica.range_ms(job, HOUR_MS, now_ms=bench.now_ms) == (HOUR_MS, HOUR_MS)
    median_ms, late_ms = replica.calibration.range_ms(MINUTE_MS, bench.now_ms)
    found = replica.range_ms(job, HOUR_MS + MINUTE_MS, now_ms=bench.now_ms)
    assert found == (HOUR_MS + median_ms, HOUR_MS + late_ms)
    replica.note({"later": bench.now_ms + HOUR_MS}, bench.now_ms)
    knowing_nothing = Replica(CoreSettings()).calibration
    later_ms = bench.now_ms + 20 * HOUR_MS
    assert replica.calibration.range_ms(MINUTE_MS, later_ms) == knowing_nothing.range_ms(
        MINUTE_MS, later_ms
    )
