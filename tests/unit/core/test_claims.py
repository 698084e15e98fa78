"""Who is next in line gets its devices when they were promised, whoever else uses them until then."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coordinator.core.commands import SubmitJob
from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Decision
from coordinator.core.forecast import SAVE_MS, START_MS, STOP_MS, Forecast, Limits, settings_for
from coordinator.core.records import Demand, JobStatus, LeaseState, Policy
from tests.unit.core.conftest import Bench, caller

MINUTE_MS = 60_000
SLACK_MS = 2 * (START_MS + SAVE_MS + STOP_MS)  # forecasts count starts and stops, claims do not
Small = tuple[int, int, bool, bool]  # devices, minutes, whether it can be preempted, is limited

running = st.lists(st.tuples(st.integers(1, 4), st.integers(5, 200)), min_size=2, max_size=6)
small = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 300), st.booleans(), st.booleans()), max_size=12
)


def full_cluster(jobs: list[tuple[int, int]]) -> Bench:
    """Two nodes on which jobs run; one that asks for both of them whole."""
    bench = Bench()
    for node_id in ("n1", "n2"):
        bench.node(node_id, 8)
    for number, (count, minutes) in enumerate(jobs):
        bench.submit(f"r{number}", count, expected_duration_ms=minutes * MINUTE_MS)
    for node_id in ("n1", "n2"):
        leases = bench.core.state.leases_on(node_id)
        bench.report(node_id, *(bench.seen(x.lease_id, LeaseState.RUNNING) for x in leases))
    bench.submit("head", 16, expected_duration_ms=60 * MINUTE_MS)
    return bench


def submit_small(bench: Bench, jobs: list[Small]) -> None:
    for number, (count, minutes, preemptible, limited) in enumerate(jobs):
        duration_ms = minutes * MINUTE_MS
        bench.submit(
            f"s{number}",
            count,
            expected_duration_ms=duration_ms,
            preemptible=preemptible,
            max_runtime_ms=duration_ms if limited else 0,
        )


def start_ms(bench: Bench, job_id: str) -> int:
    core = Core(settings_for(CoreSettings()))
    core.load(bench.core.state.records())
    at_ms = Forecast(core, bench.now_ms).run(limits=Limits(), wanted=job_id)
    core.check_invariants()
    assert at_ms is not None
    return at_ms


@settings(max_examples=60, deadline=None)
@given(running, small)
def test_whoever_is_lent_devices_the_claim_is_met(
    jobs: list[tuple[int, int]], others: list[Small]
) -> None:
    bench = full_cluster(jobs)
    assume(all(bench.job(f"r{n}").status is JobStatus.TRAINING for n in range(len(jobs))))
    alone_ms = start_ms(bench, "head")
    claim = bench.job("head").claim
    submit_small(bench, others)
    bench.core.check_invariants()
    assert start_ms(bench, "head") <= alone_ms + SLACK_MS
    if claim is not None:
        assert start_ms(bench, "head") <= claim.from_ms + SLACK_MS


def test_small_jobs_fill_the_gap_and_long_ones_wait() -> None:
    bench = full_cluster([(4, 10), (4, 120)])
    submit_small(bench, [(8, 90, True, False), (4, 300, True, False), (2, 30, False, False)])
    assert bench.job("s0").status is JobStatus.SCHEDULING
    attempt = bench.job("s0").attempt
    assert attempt is not None
    assert attempt.lent_by == "head"
    assert bench.job("s1").status is JobStatus.QUEUED  # it would not be over
    assert bench.job("s2").status is JobStatus.QUEUED  # nobody could make it be over


def test_a_job_of_higher_priority_takes_what_is_claimed() -> None:
    bench = full_cluster([(4, 120)])
    bench.submit("urgent", 8, priority=9, expected_duration_ms=600 * MINUTE_MS)
    assert bench.job("urgent").status is JobStatus.SCHEDULING
    bench.schedule()
    claim = bench.job("head").claim
    assert claim is not None
    assert claim.from_ms > bench.now_ms + 500 * MINUTE_MS


def test_a_claim_ends_with_its_job() -> None:
    bench = full_cluster([(4, 120)])
    assert bench.job("head").claim is not None
    bench.submit("long", 8, expected_duration_ms=600 * MINUTE_MS)
    assert bench.job("long").status is JobStatus.QUEUED
    bench.cancel("head")
    bench.schedule()
    assert bench.job("long").status is JobStatus.SCHEDULING


def test_the_next_in_line_claims_when_the_first_has_gone() -> None:
    bench = full_cluster([(4, 120)])
    bench.submit("second", 16, expected_duration_ms=60 * MINUTE_MS)
    assert bench.job("second").claim is None
    bench.cancel("head")
    bench.schedule()
    assert bench.job("second").claim is not None


def test_who_stands_before_the_claim_starts_first_though_its_devices_are_free_at_once() -> None:
    bench = full_cluster([(8, 120), (4, 10)])
    claim = bench.job("head").claim
    assert claim is not None
    bench.submit("urgent", 8, priority=9, expected_duration_ms=MINUTE_MS)
    bench.now_ms += MINUTE_MS
    for node_id in ("n1", "n2"):
        leases = bench.core.state.leases_on(node_id)
        ended = [bench.seen(x.lease_id, LeaseState.ENDED, done=True) for x in leases]
        bench.report(node_id, *ended)
    bench.schedule()
    assert bench.job("urgent").status is JobStatus.SCHEDULING
    assert bench.job("head").status is JobStatus.QUEUED


def test_where_a_single_attempt_is_to_end_first_nothing_is_claimed_and_the_node_is_foreseen() -> (
    None
):
    bench = Bench()
    for node_id, minutes in (("n1", 60), ("n2", 10), ("n3", 60 * 72)):
        bench.node(node_id, 8)
        bench.submit(f"on-{node_id}", 8, expected_duration_ms=minutes * MINUTE_MS)
    asked = [("plain", 8, ()), ("reads", 8, ("corpus",))]
    found: list[Decision] = []
    for job_id, count, wants in asked:
        demand = Demand(device_count=count, cpu_count=len(found))  # a group of its own
        bench.step(
            SubmitJob(
                caller=caller(),
                job_id=job_id,
                name=job_id,
                demand=demand,
                policy=Policy(),
                document=b"",
                wants=wants,
            )
        )
        found.append(bench.schedule())
    assert [dict(one.foreseen) for one in found] == [{}, {"reads": ("n2",)}]
    assert bench.job("reads").claim is None
    assert not found[-1].events, "it is a hint, and no fact"
