"""Every pair of the tables: the allowed ones lead where they say, all others are errors."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from coordinator.core.invariants import InvariantViolation
from coordinator.core.reasons import Reason
from coordinator.core.records import FINAL, Drain, JobStatus, LeaseState, Node
from coordinator.core.tables import BORN, JOB, RUNNING, check_node, may_become, next_status
from tests.unit.core.conftest import offer

NODE = Node(node_id="n1", generation=1, incarnation="a", offer=offer("n1", 1))
SHAPES = {
    "ready": NODE,
    "drained": replace(NODE, drain=Drain(requested_at_ms=1)),
    "silent": replace(NODE, unreachable_since_ms=1),
    "silent and drained": replace(NODE, drain=Drain(requested_at_ms=1), unreachable_since_ms=1),
}
CAUSES = [reason for reason in Reason if reason.startswith(("NODE", "DRAIN", "LEASE"))]
ALLOWED = {
    ("ready", "ready", Reason.NODE_CHANGED),
    ("drained", "drained", Reason.NODE_CHANGED),
    ("ready", "drained", Reason.DRAIN_REQUESTED),
    ("drained", "drained", Reason.DRAIN_REQUESTED),
    ("silent", "silent and drained", Reason.DRAIN_REQUESTED),
    ("silent and drained", "silent and drained", Reason.DRAIN_REQUESTED),
    ("drained", "ready", Reason.NODE_ENABLED),
    ("ready", "ready", Reason.NODE_ENABLED),  # maintenance that was planned is taken back
    ("silent", "silent", Reason.NODE_ENABLED),
    ("silent and drained", "silent", Reason.NODE_ENABLED),
    ("ready", "silent", Reason.NODE_UNREACHABLE),
    ("drained", "silent and drained", Reason.NODE_UNREACHABLE),
    ("silent", "silent", Reason.NODE_FENCED),
    ("silent and drained", "silent and drained", Reason.NODE_FENCED),
    ("silent", "ready", Reason.NODE_BACK),
    ("silent and drained", "drained", Reason.NODE_BACK),
}


@pytest.mark.parametrize("status", JobStatus)
def test_a_job_moves_only_along_the_edges_of_its_table(status: JobStatus) -> None:
    for cause in Reason:
        if (status, cause) in JOB:
            assert next_status(status, cause) is JOB[status, cause]
        else:
            with pytest.raises(InvariantViolation):
                next_status(status, cause)


def test_no_edge_leaves_a_final_status_and_every_other_status_can_end() -> None:
    starts = {status for status, _ in JOB}
    assert not starts & FINAL
    for status in (*BORN, *RUNNING):
        assert next_status(status, Reason.CANCELLED_BY_USER) is JobStatus.CANCELLED


@pytest.mark.parametrize(("before", "after"), list(product(LeaseState, LeaseState)))
def test_a_lease_may_skip_states_and_never_goes_back(before: LeaseState, after: LeaseState) -> None:
    assert may_become(before, after) is (after > before)


@pytest.mark.parametrize(("before", "after", "cause"), list(product(SHAPES, SHAPES, CAUSES)))
def test_contact_and_duty_of_a_node_move_apart(before: str, after: str, cause: Reason) -> None:
    if (before, after, cause) in ALLOWED:
        check_node(SHAPES[before], SHAPES[after], cause=cause)
    else:
        with pytest.raises(InvariantViolation):
            check_node(SHAPES[before], SHAPES[after], cause=cause)
