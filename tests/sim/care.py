"""What wears out: devices that go bad, and what must hold of what is known of them."""

from __future__ import annotations

from random import Random

from coordinator.core.commands import ObservedCanary
from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.faults import Fault
from coordinator.core.health import NODE, HealthState
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, JobStatus, Kind, Lease, Node
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure

CODES = ("XID_13", "XID_13", "XID_31", "XID_63", "XID_48", "XID_79", "NOT_ANSWERING", "XID_4711")
NOT_BLAMED = ("CONFIG", "NODE_LOST")
Reported = tuple[str, tuple[Fault, ...]]  # a device, and what was seen of it


class Wear:
    """What an agent has seen of its devices since it started, and how a canary on them ends."""

    def __init__(self, rng: Random, device_ids: list[str]) -> None:
        self._rng = rng
        self._device_ids = device_ids
        self._faults: dict[str, dict[str, int]] = {}
        self._reported: tuple[Reported, ...] | None = None
        self._rotten: set[str] = set()
        self.done: ObservedCanary | None = None

    def see(self) -> None:
        """One more fault of any device; some devices stay bad for a while."""
        device_id, code = self._rng.choice(self._device_ids), self._rng.choice(CODES)
        counts = self._faults.setdefault(device_id, {})
        counts[code] = counts.get(code, 0) + 1
        self._reported = None
        if self._rng.random() < 0.3:
            self._rotten ^= {device_id}

    def restart(self) -> None:
        """The agent has started anew, and counts from the beginning."""
        self._faults.clear()
        self._reported = self.done = None

    def mend(self) -> None:
        """Nothing is bad any more."""
        self._rotten.clear()

    def faults(self) -> tuple[Reported, ...]:
        """As they are reported, of every device."""
        if self._reported is None:
            self._reported = tuple((id, self._of(id)) for id in self._device_ids)
        return self._reported

    def _of(self, device_id: str) -> tuple[Fault, ...]:
        found = self._faults.get(device_id, {})
        return tuple(Fault(code, count) for code, count in sorted(found.items()))

    def run_canary(self, number: int, device_ids: tuple[str, ...]) -> None:
        """A canary has come to its end."""
        failed = tuple((id, "it computes wrongly") for id in device_ids if id in self._rotten)
        self.done = ObservedCanary(number=number, failed=failed)


class OutTakesNothing(Checker):
    """What is out for its health is given nothing, comes back only as it may, and costs nobody a retry."""

    facts = (Node, Lease, Job, Retired)

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._jobs: dict[str, Job] = {}

    def rewound(self, store: RecordsKept) -> None:
        records = list(store.live.values())
        self._nodes = {x.node_id: x for x in records if isinstance(x, Node)}
        self._jobs = {x.job_id: x for x in records if isinstance(x, Job)}

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired) and event.kind is Kind.NODE:
            self._nodes.pop(
                event.id, None
            )  # whoever removes a node forgets what was held against it
        if not isinstance(event, Changed):
            return
        record = event.record
        match record:
            case Node():
                self._look_at_node(record, event.cause)
                self._nodes[record.node_id] = record
            case Lease() if event.cause is Reason.LEASE_GRANTED:
                if self._nodes[record.node_id].health.bars(record.device_ids):
                    text = f"{record.lease_id} is granted what is out for its health"
                    raise SimFailure(text, record.job_id, record.node_id)
            case Job():
                self._look_at_job(record, event.cause)
                self._jobs[record.job_id] = record

    def _look_at_node(self, node: Node, cause: Reason) -> None:
        before = self._nodes.get(node.node_id)
        if before is None or before.health == node.health:
            return
        for id in {NODE, *dict(before.health.devices), *dict(node.health.devices)}:
            old, new = before.health.grade(id), node.health.grade(id)
            returns = old.is_out and not new.is_out
            said = cause is Reason.HEALTH_SET and new.state is HealthState.HEALTHY
            tried = cause is Reason.CANARY_ANSWERED and old.state is HealthState.PROBATION
            if returns and not said and not (tried and new.is_suspect):
                raise SimFailure(f"{id or node.node_id} comes back by {cause}", node.node_id)

    def _look_at_job(self, job: Job, cause: Reason) -> None:
        before = self._jobs.get(job.job_id)
        attempt = job.attempt
        if cause not in (Reason.RETRYING, Reason.RANK_FAILED) or before is None or attempt is None:
            return
        node = self._nodes.get(attempt.stopped_by)
        if node is None or job.failure is None or job.failure.category in NOT_BLAMED:
            return
        held = [id for x in attempt.shares if x.node_id == node.node_id for id in x.device_ids]
        grades = [node.health.grade(id) for id in (NODE, *held)]
        paid = job.failures_count > before.failures_count or job.status is JobStatus.FAILED
        if paid and any(x.is_out and x.notes[-1].code != "SET_BY_ADMIN" for x in grades):
            raise SimFailure(f"{job.job_id} pays for what is out", job.job_id, node.node_id)
