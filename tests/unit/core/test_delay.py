"""Who waits for a node that holds its data, for how long, and that it is never much worse for it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.commands import Tick
from coordinator.core.core import Core, CoreSettings
from coordinator.core.delay import LEAST_MS
from coordinator.core.explain import explain
from coordinator.core.forecast import Forecast, Limits, settings_for
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, JobStatus, LeaseState
from tests.unit.core.conftest import NOW_MS, Bench

SECOND_MS = 1_000
RATE = 100_000_000  # bytes per second
CORPUS = "corpus"
QUIET: dict[str, Any] = {"unreachable_after_ms": 1 << 50, "replace_after_ms": 1 << 51}
"""Nobody falls silent while time passes."""


def holding(fetch_s: float) -> dict[str, Any]:
    """What a node offers that holds what takes others so long to fetch."""
    return {"holds": (CORPUS,), "holds_bytes": (int(fetch_s * RATE),), "fetch_bytes_per_s": RATE}


def cluster(
    fetch_s: float, *expected_s: float, rates: tuple[int, int] = (RATE, RATE), **more: Any
) -> Bench:
    """`near` has four devices and holds the corpus, and jobs of one device run there that are expected to
    end after so long; `free` has four as well. `rates` are theirs."""
    bench = Bench(CoreSettings(**{**QUIET, **more}))
    bench.node("near", 4, **{**holding(fetch_s), "fetch_bytes_per_s": rates[0]})
    for number, left_s in enumerate(expected_s):
        bench.submit(f"r{number}", expected_duration_ms=int(left_s * SECOND_MS))
    report(bench)
    bench.node("free", 4, fetch_bytes_per_s=rates[1])
    return bench


def place_of(job: Job) -> str:
    """The node on which it runs, or which it waits for, or nothing."""
    shares = job.attempt.shares if job.attempt else job.reserved
    return ("on " if job.attempt else "for ") + shares[0].node_id if shares else ""


def report(bench: Bench, *, ended: str = "") -> None:
    """All that is granted on `near` runs, but for the one that has ended."""
    found = [
        bench.seen(one.lease_id, LeaseState.RUNNING)
        if one.job_id != ended
        else bench.seen(one.lease_id, LeaseState.ENDED, done=True, ended_at_ms=bench.now_ms)
        for one in bench.core.state.leases_on("near")
        if not one.is_ended
    ]
    bench.report("near", *found)
    bench.schedule()


def wait(bench: Bench, for_ms: int) -> None:
    """Time passes; what is due is done."""
    bench.now_ms += for_ms
    bench.step(Tick())
    bench.schedule()


def placed_by(bench: Bench, ends_s: tuple[float, ...]) -> tuple[int, str]:
    """When `job` starts, and where, if those that run end after so long."""
    for at_ms, number in sorted((int(x * SECOND_MS), n) for n, x in enumerate(ends_s)):
        while bench.job("job").attempt is None:
            due_ms = bench.core.next_deadline_ms()
            if due_ms is None or due_ms > NOW_MS + at_ms:
                break
            wait(bench, max(0, due_ms - bench.now_ms))
        if bench.job("job").attempt is not None:
            break
        bench.now_ms = max(bench.now_ms, NOW_MS + at_ms)
        report(bench, ended=f"r{number}")
    return bench.now_ms - NOW_MS, place_of(bench.job("job"))


@given(
    fetch_s=st.floats(1, 2000),
    jobs=st.lists(st.tuples(st.floats(1, 3000), st.floats(0, 5)), min_size=1, max_size=4),
    count=st.integers(1, 4),
    most_s=st.sampled_from([0, 60, 600, 3600]),
)
@settings(max_examples=150, deadline=None)
def test_with_what_it_waited_it_never_takes_twice_as_long_as_to_fetch_at_once(
    fetch_s: float, jobs: list[tuple[float, float]], count: int, most_s: int
) -> None:
    bench = cluster(fetch_s, *(x for x, _ in jobs), near_data_ms=most_s * SECOND_MS)
    bench.submit("job", count, wants=(CORPUS,))
    waits = bench.job("job").awaits is not None
    started_ms, where = placed_by(bench, tuple(x * factor for x, factor in jobs))
    fetch_ms = int(fetch_s * RATE) * 1000 // RATE
    took_ms = started_ms + (fetch_ms if where == "on free" else 0)
    assert where in ("on free", "on near")
    assert started_ms <= most_s * SECOND_MS
    assert took_ms <= 2 * fetch_ms
    if all(factor <= 1 for _, factor in jobs):  # what was expected is true, or better
        assert took_ms <= fetch_ms
    assert not waits or fetch_ms >= LEAST_MS
    bench.core.check_invariants()


@given(expected_s=st.floats(1, 600), fetch_s=st.floats(1, 900))
@settings(max_examples=60, deadline=None)
def test_it_waits_where_that_is_expected_to_take_half_of_what_is_saved(
    expected_s: float, fetch_s: float
) -> None:
    bench = cluster(fetch_s, expected_s)
    bench.submit("job", 4, wants=(CORPUS,))
    job = bench.job("job")
    fetch_ms = int(fetch_s * RATE) * 1000 // RATE
    worth = fetch_ms >= LEAST_MS and 2 * int(expected_s * SECOND_MS) <= min(fetch_ms, 600_000)
    assert place_of(job) == ("for near" if worth else "on free")
    if job.awaits is not None:
        assert job.awaits.until_ms == NOW_MS + min(fetch_ms, 600_000)


def test_a_node_that_holds_it_and_is_free_is_taken_though_that_leaves_a_gap() -> None:
    bench = cluster(300)
    bench.node("tight", 1, fetch_bytes_per_s=RATE)
    bench.submit("small", wants=("something else",))
    assert place_of(bench.job("small")) == "on tight"
    bench.cancel("small")
    bench.report("tight", bench.seen("small.1.0", LeaseState.ENDED, stopped=True))
    bench.submit("job", wants=(CORPUS,))
    assert place_of(bench.job("job")) == "on near"


@pytest.mark.parametrize("rates", [(0, 0), (RATE, 0), (0, RATE)])
def test_nobody_waits_where_it_is_not_known_how_fast_nodes_fetch(rates: tuple[int, int]) -> None:
    bench = cluster(300, 10, rates=rates)
    bench.submit("job", 4, wants=(CORPUS,))
    assert place_of(bench.job("job")) == ("for near" if any(rates) else "on free")


def test_who_waited_in_vain_does_not_wait_again_until_it_has_run() -> None:
    bench = cluster(300, 10)
    bench.submit("job", 4, wants=(CORPUS,))
    bench.node("free", 4, fetch_bytes_per_s=RATE, cpu_count=0)  # takes nobody for the moment
    bench.submit("other", 4, cpu_count=1)
    wait(bench, 300 * SECOND_MS)
    job = bench.job("job")
    assert place_of(job) == "on free"
    assert job.awaits is None


def test_of_a_gang_the_slowest_node_counts() -> None:
    bench = cluster(300, 10)
    bench.node("slow", 4, fetch_bytes_per_s=RATE // 2)
    bench.submit("gang", 8, node_count=2, wants=(CORPUS,))
    job = bench.job("gang")
    assert job.attempt is not None  # one node has to fetch it anyhow, and half as fast as the other
    bench = cluster(300, 10)
    bench.node("near too", 4, **holding(300))
    bench.submit("gang", 8, node_count=2, wants=(CORPUS,))
    assert {x.node_id for x in bench.job("gang").reserved} == {"near", "near too"}


@pytest.mark.parametrize(("racks", "are_near"), [("aa", True), ("ab", False)])
def test_a_gang_is_not_spread_farther_to_be_near_its_data(racks: str, are_near: bool) -> None:
    bench = Bench(CoreSettings(**QUIET))
    for number, rack in enumerate(racks):
        bench.node(f"near{number}", 2, **holding(300), labels=(("rack", rack),))
    for number in range(2):
        bench.node(f"free{number}", 2, fetch_bytes_per_s=RATE, labels=(("rack", "f"),))
    bench.submit("gang", 4, node_count=2, wants=(CORPUS,))
    assert place_of(bench.job("gang")) == ("on near0" if are_near else "on free0")


def test_who_fits_on_one_node_does_not_go_to_several_that_hold_its_data() -> None:
    bench = Bench(CoreSettings(**QUIET))
    for number in range(4):
        bench.node(f"near{number}", 1, **holding(300))
    bench.node("free", 4, fetch_bytes_per_s=RATE)
    bench.submit("gang", 4, wants=(CORPUS,))
    assert place_of(bench.job("gang")) == "on free"


def test_why_it_waits_and_when_it_starts_is_told() -> None:
    bench = cluster(300, 100)
    bench.submit("job", 4, wants=(CORPUS,))
    job = bench.job("job")
    told = explain(bench.core.state, job, now_ms=bench.now_ms)
    assert [one.reason for one in told.blockers] == [Reason.DATA_AWAITED]
    assert "near" in told.blockers[0].message
    core = Core(settings_for(CoreSettings(**QUIET)))
    core.load(bench.core.state.records())
    at_ms = Forecast(core, bench.now_ms).run(limits=Limits(), wanted="job")
    assert at_ms == NOW_MS + 100 * SECOND_MS
    assert bench.job("job").status is JobStatus.QUEUED
