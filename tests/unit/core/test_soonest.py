"""What can be said at once of when a new job starts, beside what a forecast says of it."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core.commands import PutQueue
from coordinator.core.records import LeaseState, Queue
from coordinator.core.soonest import soonest_ms
from tests.unit.core.conftest import NOW_MS, Bench, caller, offer
from tests.unit.core.test_claims import MINUTE_MS, SLACK_MS, start_ms


def running(bench: Bench, *minutes: int, devices: int = 4) -> None:
    """One node, full of jobs of one device each."""
    bench.node("n1", devices)
    for number, one in enumerate(minutes):
        bench.submit(f"r{number}", expected_duration_ms=one * MINUTE_MS)
    leases = bench.core.state.leases_on("n1")
    bench.report("n1", *(bench.seen(one.lease_id, LeaseState.RUNNING) for one in leases))


def told_ms(bench: Bench, *line: str) -> int | None:
    return soonest_ms(bench.core.state, bench.now_ms, line=line)


def test_the_first_in_line_starts_when_enough_of_what_runs_has_ended(bench: Bench) -> None:
    running(bench, 10, 20, 30, 40)
    bench.submit("two", 2)
    bench.submit("all", 4)
    assert told_ms(bench, "two") == NOW_MS + 20 * MINUTE_MS
    assert told_ms(bench, "all") == NOW_MS + 40 * MINUTE_MS


def test_a_line_gets_devices_one_after_another_and_gives_them_back_as_the_forecast_has_it(
    bench: Bench,
) -> None:
    running(bench, 10, 20, 30, 40)
    line = [f"w{number}" for number in range(9)]
    for number, name in enumerate(line):
        bench.submit(name, expected_duration_ms=(5 + number) * MINUTE_MS)
    for number in range(len(line)):
        found_ms = told_ms(bench, *line[: number + 1])
        assert found_ms is not None
        assert abs(found_ms - start_ms(bench, line[number])) < (number + 2) * SLACK_MS


def test_only_devices_of_types_that_the_job_accepts_are_counted(bench: Bench) -> None:
    bench.node("big", 1)
    bench.node(
        "other", 4, devices=tuple(replace(x, type="A100") for x in offer("other", 4).devices)
    )
    bench.submit("big", device_type="H100", expected_duration_ms=30 * MINUTE_MS)
    bench.submit("other", 4, device_type="A100", expected_duration_ms=10 * MINUTE_MS)
    bench.submit("first", device_type="A100")
    for wanted, minutes in (("A100", 10), ("H100", 30), ("A100|H100", 10), ("", 10)):
        bench.submit(f"for {wanted}", device_type=wanted)
        assert told_ms(bench, f"for {wanted}") == NOW_MS + minutes * MINUTE_MS
    assert told_ms(bench, *["first"] * 5, "for H100") == NOW_MS + 30 * MINUTE_MS


def test_nothing_is_told_of_what_a_limit_keeps_or_of_what_is_not_to_be_seen(bench: Bench) -> None:
    running(bench, 10, 10, 10, 10)
    bench.step(PutQueue(caller=caller(), queue=Queue(name="full", max_devices=1)))
    bench.submit("kept", 2, queue_name="full")
    assert told_ms(bench, "kept") is None
    bench.submit("all", 4)
    assert told_ms(bench, "all") == NOW_MS + 10 * MINUTE_MS
    assert told_ms(bench, "r0") is None, "it runs"
    bench.submit("next", 4)
    assert (told_ms(bench, "all", "next") or 0) > NOW_MS + 10 * MINUTE_MS
    bench.cancel("next")
    assert told_ms(bench, "all", "next") is None, "it is gone"
