"""What changes would come to: the same core, with them and without."""

from __future__ import annotations

import pytest

from coordinator.core.commands import DrainNode, PauseJob, PutQueue, SubmitJob
from coordinator.core.core import Core, CoreSettings
from coordinator.core.decision import Rejected
from coordinator.core.forecast import SAVE_MS, START_MS, STOP_MS, settings_for
from coordinator.core.outlook import Change, NewNodes, Outlook, outlook
from coordinator.core.reasons import Reason
from coordinator.core.records import Demand, LeaseState, Policy, Queue
from tests.unit.core.conftest import Bench, caller

HOUR_MS = 3_600_000


@pytest.fixture
def bench() -> Bench:
    """One node, full for two hours; one job waits."""
    bench = Bench()
    bench.node("n1", 4)
    bench.submit("runs", 4, expected_duration_ms=2 * HOUR_MS)
    bench.report("n1", bench.seen("runs.1.0", LeaseState.RUNNING))
    bench.submit("waits", 2, expected_duration_ms=HOUR_MS)
    return bench


def ahead(bench: Bench, *changes: Change, horizon_ms: int = 24 * HOUR_MS) -> Outlook:
    core = Core(settings_for(CoreSettings()))
    core.load(bench.core.state.records())
    found = outlook(core, bench.now_ms, changes=changes, horizon_ms=horizon_ms)
    core.check_invariants()
    return found


def a_submit(job_id: str, devices: int, **policy: int) -> SubmitJob:
    return SubmitJob(
        caller=caller(),
        job_id=job_id,
        name=job_id,
        demand=Demand(device_count=devices),
        policy=Policy(**policy),  # type: ignore[arg-type]
        document=b"",
    )


def test_as_it_is_the_job_starts_when_the_one_before_it_ends(bench: Bench) -> None:
    found = ahead(bench)
    assert found.starts_ms == {"waits": bench.now_ms + 2 * HOUR_MS}
    assert found.empty_ms == bench.now_ms + 3 * HOUR_MS + START_MS
    assert (found.ended_count, found.lost_ms, found.refused) == (2, 0, ())


def test_new_nodes_let_it_start_at_once(bench: Bench) -> None:
    found = ahead(bench, NewNodes(like="n1", count=1))
    assert found.starts_ms == {"waits": bench.now_ms}
    assert found.empty_ms == bench.now_ms + 2 * HOUR_MS


def test_a_drain_moves_and_delays(bench: Bench) -> None:
    drain = DrainNode(caller=caller(), node_id="n1", move=True)
    found = ahead(bench, drain)
    assert (found.starts_ms, found.empty_ms) == ({}, None)
    assert (found.drained_count, found.lost_ms) == (1, 4 * STOP_MS)
    found = ahead(bench, NewNodes(like="n1", count=2), drain)
    assert found.starts_ms == {
        "waits": bench.now_ms,
        "runs": bench.now_ms + SAVE_MS + STOP_MS,
    }


def test_more_jobs_wait_behind_and_what_is_refused_is_told(bench: Bench) -> None:
    changes = (
        a_submit("big", 400),
        a_submit("more", 4, expected_duration_ms=HOUR_MS),
        PutQueue(caller=caller(), queue=Queue(name="default", parent="nobody")),
        NewNodes(like="nobody", count=1),
    )
    found = ahead(bench, *changes)
    assert set(found.starts_ms) == {"waits", "more"}
    assert found.devices == {"waits": 2, "more": 4}
    assert [(place, refused.reason) for place, refused in found.refused] == [
        (0, Reason.NEVER_FITS),
        (2, Reason.QUEUE_REFUSED),
        (3, Reason.NODE_NOT_FOUND),
    ]
    assert all(isinstance(refused, Rejected) for _, refused in found.refused)


def test_who_is_paused_keeps_nothing_from_being_empty(bench: Bench) -> None:
    bench.step(PauseJob(caller=caller(), job_id="waits"))
    found = ahead(bench)
    assert (found.starts_ms, found.empty_ms) == ({}, bench.now_ms + 2 * HOUR_MS)


def test_it_looks_no_farther_than_was_asked(bench: Bench) -> None:
    found = ahead(bench, horizon_ms=HOUR_MS)
    assert (found.starts_ms, found.empty_ms) == ({}, None)
