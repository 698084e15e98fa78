"""Which situations a world has seen. One that no seed ever sees is a fault of the simulator."""

from __future__ import annotations

from coordinator.core.decision import Changed, Event
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Lease, LeaseState, Node
from coordinator.core.tables import CONTACT, DUTY, JOB, contact, duty
from tests.sim.truth import Checker


def expected() -> set[str]:
    """Everything that the seeds together must see."""
    jobs = {f"job {status} {cause}" for status, cause in JOB}
    nodes = {f"node {fact} {cause}" for fact, cause in (*CONTACT, *DUTY)}
    states = {f"lease {state.name}" for state in LeaseState}
    return jobs | nodes | states


class Situations(Checker):
    """Notes every edge that is taken."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._jobs: dict[str, Job] = {}
        self._nodes: dict[str, Node] = {}

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        match event.record:
            case Job() as job:
                before = self._jobs.get(job.job_id)
                self._jobs[job.job_id] = job
                if before is not None and before.status is not job.status:
                    self.seen.add(f"job {before.status} {event.cause}")
            case Lease() as lease:
                self.seen.add(f"lease {lease.state.name}")
            case Node() as node:
                known = self._nodes.get(node.node_id)
                self._nodes[node.node_id] = node
                if known is not None:
                    self._node(known, event.cause)

    def _node(self, before: Node, cause: Reason) -> None:
        self.seen.add(f"node {contact(before)} {cause}")
        self.seen.add(f"node {duty(before)} {cause}")
