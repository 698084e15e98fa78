"""A forecast plays the agents and lets the real core decide; it is right where durations are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.core.commands import DrainNode, ObservedLease, PreemptJob, PutQueue
from coordinator.core.core import Core, CoreSettings
from coordinator.core.explain import alter, changes, explain
from coordinator.core.forecast import SAVE_MS, START_MS, STOP_MS, Forecast, Limits, settings_for
from coordinator.core.reasons import Reason
from coordinator.core.records import Checkpoint, JobStatus, LeaseState, Queue
from tests.unit.core.conftest import Bench, caller

HOUR_MS = 3_600_000
FAR = Limits()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def copy_of(bench: Bench) -> Core:
    """A core that holds the same records, to be used up."""
    core = Core(settings_for(CoreSettings()))
    core.load(bench.core.state.records())
    return core


def waits_ms(bench: Bench, job_id: str, limits: Limits = FAR) -> int | None:
    core = copy_of(bench)
    at_ms = Forecast(core, bench.now_ms).run(limits=limits, wanted=job_id)
    core.check_invariants()
    return None if at_ms is None else at_ms - bench.now_ms


def runs(bench: Bench, job_id: str, node_id: str = "n1") -> None:
    """All of the job's leases run."""
    leases = [
        bench.seen(lease.lease_id, LeaseState.RUNNING)
        for lease in bench.core.state.leases_on(node_id)
        if not lease.is_ended
    ]
    bench.report(node_id, *leases)
    assert bench.job(job_id).status is JobStatus.TRAINING


def test_a_job_starts_when_the_one_before_it_ends(bench: Bench) -> None:
    bench.node("n1", 4)
    bench.submit("first", 4, expected_duration_ms=2 * HOUR_MS)
    runs(bench, "first")
    bench.submit("second", 4, expected_duration_ms=HOUR_MS)
    bench.submit("third", 1)
    bench.now_ms += HOUR_MS
    assert waits_ms(bench, "second") == HOUR_MS
    assert waits_ms(bench, "third") == 2 * HOUR_MS + START_MS
    assert bench.core.state.jobs["second"].status is JobStatus.QUEUED


def test_what_nobody_said_the_length_of_runs_about_as_long_again(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.submit("first", 1)
    runs(bench, "first")
    bench.submit("second", 1)
    bench.now_ms += 5 * HOUR_MS
    found = waits_ms(bench, "second")
    assert found is not None
    assert 3 * HOUR_MS < found < 12 * HOUR_MS


def test_a_time_limit_ends_what_is_expected_to_run_longer(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.submit("first", 1, expected_duration_ms=9 * HOUR_MS, max_runtime_ms=HOUR_MS)
    runs(bench, "first")
    bench.submit("second", 1)
    found = waits_ms(bench, "second")
    assert found is not None
    assert HOUR_MS <= found <= HOUR_MS + 60_000 + STOP_MS


def holds_all(bench: Bench, name: str) -> None:
    """A job runs on all devices that there are."""
    bench.node("n1", 4)
    bench.submit(name, 4, expected_duration_ms=HOUR_MS, grace_ms=120_000)
    runs(bench, name)


def gives_way(bench: Bench, name: str) -> None:
    """It is asked to save and stop, and another waits for that."""
    bench.submit("waits", 4, priority=9)
    bench.step(PreemptJob(caller=caller(), job_id=name))


@pytest.mark.parametrize(("waited_s", "left_s"), [(0, 30), (20, 10), (40, 40), (80, 40)])
def test_who_has_not_saved_for_long_is_not_expected_to_save_soon(
    bench: Bench, waited_s: int, left_s: int
) -> None:
    holds_all(bench, "deaf")
    gives_way(bench, "deaf")
    bench.now_ms += waited_s * 1000
    assert waits_ms(bench, "waits") == left_s * 1000 + STOP_MS


@pytest.mark.parametrize(("every_s", "saves_in_s"), [(4, 4), (600, SAVE_MS // 1000)])
def test_who_saves_often_is_expected_to_save_as_soon(
    bench: Bench, every_s: int, saves_in_s: int
) -> None:
    holds_all(bench, "saves")
    proven = []
    for step in (1, 2, 3):
        bench.now_ms += every_s * 1000
        proven.append(
            Checkpoint(
                checkpoint_id=f"saves.1.0-{step}",
                step=step,
                uri="",
                size_bytes=0,
                digest="",
                created_at_ms=bench.now_ms,
                attempt=1,
            )
        )
    seen = bench.seen("saves.1.0", LeaseState.RUNNING, checkpoints=tuple(proven))
    bench.report("n1", seen)
    assert len(bench.job("saves").checkpoints) == 3
    gives_way(bench, "saves")
    assert waits_ms(bench, "waits") == saves_in_s * 1000 + STOP_MS


def test_a_start_time_is_waited_for(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.submit("later", 1, start_after_ms=bench.now_ms + HOUR_MS)
    assert bench.job("later").status is JobStatus.PENDING
    assert waits_ms(bench, "later") == HOUR_MS


def test_what_depends_on_a_job_waits_for_its_end(bench: Bench) -> None:
    bench.node("n1", 2)
    bench.submit("first", 1, expected_duration_ms=HOUR_MS)
    runs(bench, "first")
    bench.submit("second", 1, depends_on=("first",))
    assert waits_ms(bench, "second") == HOUR_MS


def test_nobody_knows_when_a_node_out_of_contact_gives_its_devices_back(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.submit("first", 1, expected_duration_ms=HOUR_MS)
    runs(bench, "first")
    node = bench.core.state.nodes["n1"]
    core = copy_of(bench)
    core.state.nodes["n1"] = type(node)(
        node_id="n1",
        generation=1,
        incarnation="a",
        offer=node.offer,
        unreachable_since_ms=bench.now_ms,
    )
    bench.submit("second", 1)
    assert Forecast(core, bench.now_ms).run(limits=FAR, wanted="second") is None


def test_a_forecast_is_bounded(bench: Bench) -> None:
    bench.node("n1", 1)
    for number in range(4):
        bench.submit(f"j{number}", 1, expected_duration_ms=HOUR_MS)
    assert waits_ms(bench, "j3", Limits(steps=2)) is None
    assert waits_ms(bench, "j3", Limits(horizon_ms=HOUR_MS)) is None
    assert waits_ms(bench, "j3") is not None


def test_a_change_that_helps_starts_as_it_was_foretold(bench: Bench) -> None:
    bench.node("n1", 4)
    bench.submit("first", 2, expected_duration_ms=HOUR_MS)
    runs(bench, "first")
    bench.submit("second", 4)
    found = {}
    for change in changes(bench.core.state, bench.job("second")):
        core = copy_of(bench)
        alter(core.state, change, now_ms=bench.now_ms)
        found[change.text] = Forecast(core, bench.now_ms).run(limits=FAR, wanted="second")
        core.check_invariants()
    assert found["gpu_count=2"] == bench.now_ms
    assert found["priority=10"] == bench.now_ms + HOUR_MS
    assert bench.submit("smaller", 2).job.status is JobStatus.QUEUED  # type: ignore[union-attr]
    assert bench.job("smaller").attempt is not None


def test_the_blockers_say_what_is_missing(bench: Bench) -> None:
    bench.node("n1", 4)
    bench.node("n2", 4)
    for number in range(2):
        bench.submit(f"three-{number}", 3)
    bench.submit("two", 2, node_count=1)
    bench.submit("next", 2, node_count=1)
    found = explain(bench.core.state, bench.job("next"), now_ms=bench.now_ms)
    assert [one.reason for one in found.blockers] == [Reason.DEVICES_SCATTERED, Reason.JOBS_AHEAD]
    assert "at most 1 on one node" in found.blockers[0].message
    assert found.position == 2
    assert {one.node_id: one.reason for one in found.verdicts} == {
        "n1": Reason.DEVICES_BUSY,
        "n2": Reason.DEVICES_BUSY,
    }


def test_a_node_that_holds_what_the_job_names_comes_first_and_says_so(bench: Bench) -> None:
    for node_id, holds in (("n1", ()), ("n2", ("corpus",))):
        bench.node(node_id, 4)
        bench._offers[node_id] = replace(bench._offers[node_id], holds=holds)
        bench.report(node_id)
    for number in range(2):
        bench.submit(f"full-{number}", 4)
    bench.submit("next", 4, wants=("corpus", "image"))
    found = explain(bench.core.state, bench.job("next"), now_ms=bench.now_ms)
    assert [one.node_id for one in found.verdicts] == ["n2", "n1"]
    assert "it holds 1 of the 2 data sets and images" in found.verdicts[0].message
    assert "holds" not in found.verdicts[1].message


def test_nodes_that_take_no_jobs_are_named_where_they_would_help(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.submit("first", 1)
    bench.node("n2", 1)
    node = bench.core.state.nodes["n2"]
    unhealthy = type(node.offer)(
        devices=(
            type(node.offer.devices[0])(device_id="n2-0", index=0, type="H100", healthy=False),
        )
    )
    bench._offers["n2"] = unhealthy
    bench.report("n2")
    bench.submit("second", 1)
    found = explain(bench.core.state, bench.job("second"), now_ms=bench.now_ms)
    assert [one.reason for one in found.blockers] == [Reason.DEVICES_BUSY, Reason.DEVICES_AWAY]
    assert found.verdicts[1].reason is Reason.DEVICES_UNHEALTHY


def test_a_node_that_is_to_be_out_says_so_to_who_would_not_be_over(bench: Bench) -> None:
    bench.node("n1", 2)
    bench.submit("first", 1)
    at_ms = bench.now_ms + HOUR_MS
    bench.step(DrainNode(caller=caller(), node_id="n1", from_ms=at_ms))
    bench.submit("long", 1, preemptible=False)
    bench.submit("large", 2, node_count=1, preemptible=False)
    found = explain(bench.core.state, bench.job("long"), now_ms=bench.now_ms)
    who = "who can be moved, or is over by then by its max_runtime_seconds"
    text = f"is to be out in 3600 s, and takes only {who}"
    assert [(one.reason, one.message) for one in found.blockers] == [
        (
            Reason.WINDOW_PLANNED,
            f"nodes that are to be out could hold it, but not until then: n1 {text}",
        )
    ]
    (verdict,) = found.verdicts
    assert (verdict.reason, verdict.message) == (Reason.WINDOW_PLANNED, f"it {text}")
    found = explain(bench.core.state, bench.job("large"), now_ms=bench.now_ms)
    assert [one.reason for one in found.blockers] == [Reason.DEVICES_BUSY, Reason.JOBS_AHEAD]
    assert found.verdicts[0].message == "1 of its 2 fitting devices is free, 2 are needed"


def test_who_wants_nodes_for_itself_is_told_of_such(bench: Bench) -> None:
    bench.node("n1", 2)
    bench.submit("first", 1)
    bench.submit("alone", 1, exclusive=True)
    found = explain(bench.core.state, bench.job("alone"), now_ms=bench.now_ms)
    text = "it needs 1 x any device on nodes that nobody else uses; 0 of 2 are free there"
    assert [(one.reason, one.message) for one in found.blockers] == [(Reason.DEVICES_BUSY, text)]


def test_who_needs_more_than_a_limit_ever_lets_is_told_so(bench: Bench) -> None:
    bench.node("n1", 4)
    queue = Queue(name="small", max_devices=2, tenant_limits=(("acme", 1),))
    bench.step(PutQueue(caller=caller(), queue=queue))
    bench.submit("wide", 3, queue_name="small")
    bench.submit("other", 2, queue_name="small")
    said = [
        explain(bench.core.state, bench.job(job_id), now_ms=bench.now_ms).blockers[0].message
        for job_id in ("wide", "other")
    ]
    assert said == [
        "it needs 3 devices, and queue small may hold 2: as it is it never starts",
        "it needs 2 devices, and its tenant in queue small may hold 1: as it is it never starts",
    ]


def test_a_restored_state_says_that_it_waits_for_nodes_and_forecasts_that_they_are_heard(
    bench: Bench,
) -> None:
    bench.node("n1", 1)
    bench.submit("first", 1, expected_duration_ms=HOUR_MS)
    runs(bench, "first")
    bench.submit("second", 1)
    core = copy_of(bench)
    core.load([replace(core.state.nodes["n1"], restored=True)])
    found = explain(core.state, bench.job("second"), now_ms=bench.now_ms)
    assert found.blockers[0].reason is Reason.NODES_AWAITED
    at_ms = Forecast(core, bench.now_ms).run(limits=FAR, wanted="second")
    assert at_ms == bench.now_ms + HOUR_MS


def test_a_job_of_which_a_node_holds_what_nobody_knows_says_so(bench: Bench) -> None:
    bench.node("n1", 1)
    bench.node("n2", 1)
    unknown = ObservedLease(lease_id="next.1.0", epoch=1, state=LeaseState.RUNNING)
    bench.report("n1", unknown)
    bench.submit("next", 1)
    assert bench.job("next").status is JobStatus.QUEUED
    found = explain(bench.core.state, bench.job("next"), now_ms=bench.now_ms)
    assert [one.reason for one in found.blockers] == [Reason.LEASES_UNKNOWN]
    assert {one.node_id: one.reason for one in found.verdicts}["n1"] is Reason.LEASES_UNKNOWN
    bench.report("n1")
    bench.schedule()
    assert bench.job("next").status is JobStatus.SCHEDULING
