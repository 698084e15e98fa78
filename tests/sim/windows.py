"""Properties of planned maintenance: who is put on a node that is to be out later does not mind."""

from __future__ import annotations

from coordinator.core.decision import Changed, Event
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Lease, Node
from coordinator.core.window import Window
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure


class NobodyOutlivesAWindow(Checker):
    """A node that is to be out later is given to who is over by then, or can be preempted."""

    facts = (Job, Node, Lease)

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._nodes: dict[str, Node] = {}

    def rewound(self, store: RecordsKept) -> None:
        self._jobs.clear()
        self._nodes.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        self._take(event.record)
        if isinstance(event.record, Lease) and event.cause is Reason.LEASE_GRANTED:
            self._check(event.record, event.at_ms)

    def _check_expected(self, lease: Lease, window: Window, *, at_ms: int) -> None:
        """Where nobody is moved who is expected to be there still is not put there."""
        job = self._jobs[lease.job_id]
        given_ms = job.policy.expected_duration_ms
        left_ms = given_ms - job.served_ms if given_ms else 0
        if not (window.move or window.force) and at_ms + left_ms > window.from_ms:
            text = f"{lease.job_id} is expected to run on when {lease.node_id} is to be out"
            raise SimFailure(text, lease.job_id, lease.node_id)

    def _take(self, record: object) -> None:
        if isinstance(record, Job):
            self._jobs[record.job_id] = record
        elif isinstance(record, Node):
            self._nodes[record.node_id] = record

    def _check(self, lease: Lease, at_ms: int) -> None:
        window = self._nodes[lease.node_id].window
        policy = self._jobs[lease.job_id].policy
        if window is None:
            return
        if policy.preemptible:
            self._check_expected(lease, window, at_ms=at_ms)
            return
        if not policy.max_runtime_ms or at_ms + policy.max_runtime_ms > window.from_ms:
            text = f"{lease.job_id} is not over when {lease.node_id} is to be out"
            raise SimFailure(text, lease.job_id, lease.node_id)
