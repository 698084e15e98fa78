"""What must hold, one property to a class. They see the truth of the world and every durable fact."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.placement import place
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    WHOLE,
    Job,
    JobStatus,
    Kind,
    Lease,
    LeaseAction,
    LeaseState,
    Node,
    OnTimeout,
    Record,
    StopCause,
)
from coordinator.core.retry import HANG, NODE_LOST
from coordinator.core.tables import ASIDE, BORN, JOB, RUNNING, may_become
from tests.sim.clock import START_MS
from tests.sim.coordinator import SimCoordinator
from tests.sim.kept import RecordsKept
from tests.sim.people import People
from tests.sim.plans import Plan
from tests.sim.truth import Checker, Going, SimFailure, Truth
from tests.sim.turns import is_for_another


class NoDeviceTwice(Checker):
    """A device never runs ranks of leases that hold more of it together than all of it."""

    def __init__(self) -> None:
        self._on: dict[str, list[Lease]] = {}

    def started(self, going: Going) -> None:
        for device_id in going.lease.device_ids:
            found = self._on.setdefault(device_id, [])
            found.append(going.lease)
            _check_sum(device_id, found, "runs")

    def ended(self, going: Going) -> None:
        for device_id in going.lease.device_ids:
            self._on[device_id].remove(going.lease)


class OneAttemptAtATime(Checker):
    """Of one job never two attempts run at once, and a lease never runs twice at once.

    `is_orphan` names leases of which the coordinator cannot know: of batches that the store has lost,
    and of a machine whose node a clone has taken over. They are being stopped.
    """

    def __init__(self, is_orphan: Callable[[Lease], bool]) -> None:
        self._running: dict[str, list[Lease]] = {}
        self._is_orphan = is_orphan

    def started(self, going: Going) -> None:
        lease = going.lease
        for other in self._running.setdefault(lease.job_id, []):
            if self._is_orphan(other) or self._is_orphan(lease):
                continue
            same = other.attempt == lease.attempt and other.epoch == lease.epoch
            if not same or other.lease_id == lease.lease_id:
                raise SimFailure(f"{other.lease_id} and {lease.lease_id} run at once", lease.job_id)
        self._running[lease.job_id].append(lease)

    def ended(self, going: Going) -> None:
        self._running[going.lease.job_id].remove(going.lease)


class LegalMoves(Checker):
    """Only edges of the tables; versions rise by one; what is final stays as it is."""

    facts = (Job, Lease)

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._leases: dict[tuple[str, int], Lease] = {}

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        if isinstance(event.record, Job):
            self._job(event.record, event.cause)
        elif isinstance(event.record, Lease):
            self._lease(event.record)

    def _job(self, job: Job, cause: Reason) -> None:
        before = self._jobs.get(job.job_id)
        self._jobs[job.job_id] = job
        if before is None:
            if job.status not in BORN or job.version != 1:
                raise SimFailure(f"{job.job_id} is born {job.status}", job.job_id)
            return
        if before.is_final:
            booked = replace(before, spent=job.spent, version=job.version)
            if cause is not Reason.BOOKED or booked != job:
                raise SimFailure(f"{job.job_id} was final and changed", job.job_id)
        if job.version != before.version + 1:
            raise SimFailure(f"{job.job_id}: version {before.version}, {job.version}", job.job_id)
        if job.status is not before.status and JOB.get((before.status, cause)) is not job.status:
            text = f"{job.job_id} went {before.status} to {job.status} by {cause}"
            raise SimFailure(text, job.job_id)

    def rewound(self, store: RecordsKept) -> None:
        records = list(store.live.values())
        self._jobs = {job.job_id: job for job in records if isinstance(job, Job)} | store.history
        self._leases = {(x.lease_id, x.epoch): x for x in records if isinstance(x, Lease)}

    def _lease(self, lease: Lease) -> None:
        before = self._leases.get((lease.lease_id, lease.epoch))
        self._leases[lease.lease_id, lease.epoch] = lease
        moved = before is not None and before.state is not lease.state
        if before is not None and moved and not may_become(before.state, lease.state):
            raise SimFailure(f"{lease.lease_id} went back", lease.job_id)


class CancelIsFinal(Checker):
    """After a cancel is durable nothing is granted, and nothing starts that was not on its way."""

    facts = (Job, Lease)

    def __init__(self) -> None:
        self._cancelled: dict[str, int] = {}
        self._rewound = False

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        record = event.record
        if isinstance(record, Job) and record.status is JobStatus.CANCELLED:
            self._cancelled.setdefault(record.job_id, number)
        granted = isinstance(record, Lease) and event.cause is Reason.LEASE_GRANTED
        if granted and isinstance(record, Lease) and record.job_id in self._cancelled:
            raise SimFailure(f"{record.lease_id} granted after cancel", record.job_id)

    def rewound(self, store: RecordsKept) -> None:
        kept = [job for job in store.live.values() if isinstance(job, Job)]
        final = {job.job_id for job in (*kept, *store.history.values()) if job.is_final}
        self._rewound = True
        self._cancelled = {id: n for id, n in self._cancelled.items() if id in final}

    def started(self, going: Going) -> None:
        number = self._cancelled.get(going.lease.job_id)
        if number is not None and going.told_at_commit >= number:
            raise SimFailure(f"{going.lease.lease_id} starts after cancel", going.lease.job_id)

    def acknowledged(self, what: str, id: str, number: int) -> None:
        if what == "cancel" and id not in self._cancelled and not self._rewound:
            raise SimFailure(f"cancel of {id} acknowledged and not done", id)


class DrainedStaysEmpty(Checker):
    """A node that is drained or out of contact is granted nothing; a bad device to nobody."""

    facts = (Node, Lease)

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def rewound(self, store: RecordsKept) -> None:
        self._nodes = {x.node_id: x for x in store.live.values() if isinstance(x, Node)}

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        record = event.record
        if isinstance(record, Node):
            self._nodes[record.node_id] = record
        granted = isinstance(record, Lease) and event.cause is Reason.LEASE_GRANTED
        if granted and isinstance(record, Lease):
            node = self._nodes[record.node_id]
            good = {device.device_id for device in node.offer.devices if device.healthy}
            closed = node.drain or node.unreachable_since_ms
            if closed or not good.issuperset(record.device_ids):
                text = f"{record.lease_id} granted on {record.node_id}, which takes nothing"
                raise SimFailure(text, record.job_id, record.node_id)


class FreedByEvidence(Checker):
    """Devices are granted anew only after the agent said, or the machine showed, that they are free."""

    facts = (Lease,)

    def __init__(self) -> None:
        self._held: dict[str, dict[str, Lease]] = {}  # by device and lease

    def rewound(self, store: RecordsKept) -> None:
        self._held.clear()
        for record in store.live.values():
            if isinstance(record, Lease):
                self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed) and isinstance(event.record, Lease):
            self._take(event.record)
            for device_id in event.record.device_ids:
                _check_sum(device_id, self._held[device_id].values(), "is granted to")

    def _take(self, lease: Lease) -> None:
        for device_id in lease.device_ids:
            holders = self._held.setdefault(device_id, {})
            if lease.state is LeaseState.ENDED:
                holders.pop(lease.lease_id, None)
            else:
                holders[lease.lease_id] = lease


class Alone(Checker):
    """Who asked for its nodes for itself shares them with nobody."""

    facts = (Job, Lease)

    def __init__(self) -> None:
        self._on: dict[str, dict[str, str]] = {}  # by node: live leases, and their jobs
        self._exclusive: set[str] = set()

    def rewound(self, store: RecordsKept) -> None:
        self._on.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed):
            self._take(event.record)
            if isinstance(event.record, Lease):
                jobs = sorted(set(self._on[event.record.node_id].values()))
                if len(jobs) > 1 and not self._exclusive.isdisjoint(jobs):
                    raise SimFailure(f"{event.record.node_id} holds {' and '.join(jobs)}", *jobs)

    def _take(self, record: Record) -> None:
        if isinstance(record, Job) and record.demand.exclusive:
            self._exclusive.add(record.job_id)
        if isinstance(record, Lease):
            leases = self._on.setdefault(record.node_id, {})
            if record.state is LeaseState.ENDED:
                leases.pop(record.lease_id, None)
            else:
                leases[record.lease_id] = record.job_id


class GivenUpAfterProof(Checker):
    """What is given up because its node is silent, or was removed, does not run any more."""

    facts = (Lease,)

    def __init__(self, truth: Truth) -> None:
        self._truth = truth

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed) or not isinstance(event.record, Lease):
            return
        lease = event.record
        if event.cause in (Reason.NODE_FENCED, Reason.NODE_REMOVED):
            self._truth.asked.lost.add((lease.job_id, lease.attempt))
            if (lease.lease_id, lease.epoch) in self._truth.going:
                raise SimFailure(f"{lease.lease_id} is given up and runs", lease.job_id)


class FewAtOnce(Checker):
    """No node is given up while more than a third of the nodes are silent by surprise."""

    facts = (Node, Retired)

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def rewound(self, store: RecordsKept) -> None:
        self._nodes = {x.node_id: x for x in store.live.values() if isinstance(x, Node)}

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired) and event.kind is Kind.NODE:
            self._nodes.pop(event.id, None)
        if not isinstance(event, Changed) or not isinstance(event.record, Node):
            return
        if event.cause is Reason.NODE_FENCED:
            known = [node for node in self._nodes.values() if not node.fenced_at_ms]
            silent = [x for x in known if x.unreachable_since_ms and x.drain is None]
            heard = [x for x in known if not x.unreachable_since_ms]
            if len(silent) > 1 and len(silent) > len(heard) / 2:
                names = [node.node_id for node in silent]
                raise SimFailure(f"{names} are silent, and one is given up", *names)
        self._nodes[event.record.node_id] = event.record


class GangsWhole(Checker):
    """An attempt gets all of its devices in one commit, of one type, or none."""

    facts = (Job,)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed) and event.cause is Reason.PLACED:
            job = event.record
            assert isinstance(job, Job)
            assert job.attempt is not None
            shares = job.attempt.shares
            count = sum(len(share.device_ids) for share in shares)
            # what a rank cannot have of an instance of a partitioned GPU: others beside it, or a part of it
            is_many = job.demand.devices_per_rank > 1 or job.demand.thousandths < WHOLE
            wrong = (
                count != job.demand.device_count
                or any(share.thousandths != job.demand.thousandths for share in shares)
                or len({share.device_type for share in shares}) != 1
                or len({share.node_id for share in shares}) != len(shares)
                or (job.demand.node_count and len(shares) != job.demand.node_count)
                or any(len(s.device_ids) % job.demand.devices_per_rank for s in shares)
                or (is_many and any("g." in share.device_type for share in shares))
            )
            if wrong:
                raise SimFailure(f"{job.job_id} is not placed as it asked", job.job_id)


class NothingLost(Checker):
    """What was acknowledged is there; the same request never gives two jobs."""

    facts = (Job,)

    def __init__(self, coordinator: SimCoordinator) -> None:
        self._coordinator = coordinator
        self._jobs: dict[str, str] = {}
        self._acknowledged: set[str] = set()
        self._rewound = False

    def rewound(self, store: RecordsKept) -> None:
        kept = [job for job in store.live.values() if isinstance(job, Job)]
        self._jobs = {job.name: job.job_id for job in (*kept, *store.history.values())}
        self._acknowledged &= set(self._jobs.values())
        self._rewound = True

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed) and event.cause is Reason.ACCEPTED:
            job = event.record
            if isinstance(job, Job) and job.parent_job_id:
                return
            if isinstance(job, Job) and self._jobs.setdefault(job.name, job.job_id) != job.job_id:
                raise SimFailure(f"one request gave {self._jobs[job.name]} and {job.job_id}")

    def acknowledged(self, what: str, id: str, number: int) -> None:
        lost = self._rewound and id not in self._jobs.values()  # told before its batch was lost
        if what == "submit" and not lost:
            self._acknowledged.add(id)
            self.settled()

    def settled(self) -> None:
        for job_id in sorted(self._acknowledged):
            if self._coordinator.job(job_id) is None:
                raise SimFailure(f"{job_id} was acknowledged and is lost", job_id)


class StoppedForAReason(Checker):
    """Ranks that run well are stopped only for a wish of people, the time limit or their gang."""

    facts = (Lease,)

    def __init__(
        self, truth: Truth, coordinator: SimCoordinator, is_orphan: Callable[[Lease], bool]
    ) -> None:
        self._truth = truth
        self._coordinator = coordinator
        self._is_orphan = is_orphan
        self._to_stop: set[tuple[str, int]] = set()
        self._forgotten: set[tuple[str, int]] = set()  # asked to stop in a batch that may be lost

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed) or not isinstance(event.record, Lease):
            return
        lease = event.record
        if lease.action is LeaseAction.STOP:
            self._to_stop.add((lease.lease_id, lease.epoch))
        # of two machines with one name, what the other one runs is not on the one that is heard;
        # and what a lost batch had asked to stop has stopped though nobody remembers
        odd = self._truth.clones or self._truth.rewinds
        if odd and lease.failure is not None and lease.failure.category == NODE_LOST:
            self._truth.asked.lost.add((lease.job_id, lease.attempt))

    def rewound(self, store: RecordsKept) -> None:
        self._forgotten |= self._to_stop

    def stopped(self, going: Going) -> None:
        lease = going.lease
        if self._is_orphan(lease) or (lease.lease_id, lease.epoch) in self._forgotten:
            return
        job = self._coordinator.job(lease.job_id)
        cause = job.attempt.stop if job is not None and job.attempt is not None else None
        if job is None or not self._fair(job, lease, going, cause):
            raise SimFailure(
                f"{lease.lease_id} is stopped though it runs well: {cause}", lease.job_id
            )

    def _fair(self, job: Job, lease: Lease, going: Going, cause: StopCause | None) -> bool:
        assert job.attempt is not None
        asked = self._truth.asked
        attempt = (lease.job_id, lease.attempt)
        if job.attempt.number != lease.attempt:
            return attempt in asked.lost
        match cause:
            case StopCause.CANCELLED:
                return job.job_id in asked.cancels
            case StopCause.PAUSED:
                return job.job_id in asked.pauses
            case StopCause.PREEMPTED:
                return job.job_id in asked.preempts or is_for_another(job)
            case StopCause.DRAINED:
                nodes = [share.node_id for share in job.attempt.shares]
                return any(node_id in asked.emptied for node_id in nodes)
            case StopCause.TIME_LIMIT:
                now_ms = self._coordinator.loop.now_ms
                ran_ms = now_ms - going.started_ms
                if self._coordinator.jumped:
                    # it followed by a tenth a clock that was set wrong; a restart takes it back at once
                    ran_ms += (now_ms - START_MS) // 10
                # a clock may go a tenth too fast, and a tenth faster to meet the wall clock
                return 0 < job.policy.max_runtime_ms <= ran_ms * 1.25
            case StopCause.RANK_FAILED:
                return attempt in asked.failed or self._hangs(job)
            case StopCause.NODE_LOST | None:  # None: the coordinator does not know of it yet
                return attempt in asked.lost

    def _hangs(self, job: Job) -> bool:
        assert job.attempt is not None
        is_told = job.failure is not None and job.failure.category == HANG
        return is_told and (job.job_id, job.attempt.number) in self._truth.asked.hung


class HonestOutcomes(Checker):
    """COMPLETED was true, FAILED was deserved, and only the job's own failures are counted."""

    facts = (Job, Lease)

    def __init__(self, truth: Truth, plans: Mapping[str, Plan]) -> None:
        self._truth = truth
        self._plans = plans
        self._ended: set[tuple[str, int]] = set()  # grants of which ranks ran and have ended
        self._epochs: dict[str, int] = {}

    def ended(self, going: Going) -> None:
        self._ended.add((going.lease.lease_id, going.lease.epoch))

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Changed) and isinstance(event.record, Lease):
            self._epochs[event.record.lease_id] = event.record.epoch
        if not isinstance(event, Changed) or not isinstance(event.record, Job):
            return
        job = event.record
        bad = self._truth.asked.failed | self._truth.asked.hung.keys()
        failed = [x for x in bad if x[0] == job.job_id]
        if job.failures_count > len(failed):
            raise SimFailure(f"{job.job_id}: {job.failures_count} failures counted", job.job_id)
        if job.attempt is None:
            return
        key = (job.job_id, job.attempt.number)
        if job.status is JobStatus.COMPLETED:
            ids = [f"{job.job_id}.{job.attempt.number}.{n}" for n in range(len(job.attempt.shares))]
            ran = all((id, self._epochs[id]) in self._ended for id in ids)
            if key in self._truth.asked.failed or not ran:
                raise SimFailure(f"{job.job_id} is COMPLETED and did not end well", job.job_id)
        blamed = job.status is JobStatus.FAILED and event.cause is Reason.RANK_FAILED
        if blamed and key not in bad:
            raise SimFailure(f"{job.job_id} is FAILED and did not fail", job.job_id)


class SavedBeforeStopped(Checker):
    """What is said to be saved was; a pause that keeps running without a checkpoint stops nothing."""

    facts = (Job, Lease)

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._leases: dict[str, Lease] = {}
        self._jobs: dict[str, Job] = {}

    def rewound(self, store: RecordsKept) -> None:
        records = list(store.live.values())
        self._leases = {x.lease_id: x for x in records if isinstance(x, Lease)}
        self._jobs = {x.job_id: x for x in records if isinstance(x, Job)}

    def committed(self, event: Event, number: int) -> None:
        if not isinstance(event, Changed):
            return
        if isinstance(event.record, Lease):
            lease = self._leases[event.record.lease_id] = event.record
            key = (lease.lease_id, lease.epoch, lease.saved)
            if lease.saved and key not in self._truth.proven:
                raise SimFailure(f"{lease.lease_id} is said to have saved", lease.job_id)
        elif isinstance(event.record, Job):
            before = self._jobs.get(event.record.job_id)
            self._jobs[event.record.job_id] = event.record
            self._job(before, event.record)

    def _job(self, before: Job | None, job: Job) -> None:
        running = [x for x, _ in self._truth.going if x.split(".")[0] == job.job_id]
        if job.status is JobStatus.PAUSED and running and not self._excused(job):
            raise SimFailure(f"{job.job_id} is {job.status} and runs", job.job_id)
        was = before.attempt.ask if before is not None and before.attempt is not None else None
        stop = job.attempt.stop if job.attempt is not None else None
        keeps = was is not None and was.on_timeout is OnTimeout.KEEP_RUNNING
        if stop is not StopCause.PAUSED or not keeps or self._truth.rewinds:
            return
        first = self._leases[f"{job.job_id}.{job.attempt.number}.0"] if job.attempt else None
        modes = self._truth.asked.pauses.get(job.job_id, set())
        if first is not None and first.saved < first.save and modes == {"KEEP_RUNNING"}:
            raise SimFailure(f"{job.job_id} is stopped and has saved nothing", job.job_id)

    def _excused(self, job: Job) -> bool:
        """Whether the coordinator has lost sight of some attempt for good."""
        lost = any(job_id == job.job_id for job_id, _ in self._truth.asked.lost)
        return lost or self._truth.rewinds > 0 or bool(self._truth.clones)


class MemoryIsBounded(Checker):
    """What is over leaves the live state."""

    facts = (Retired,)

    def __init__(self, coordinator: SimCoordinator) -> None:
        self._coordinator = coordinator

    def committed(self, event: Event, number: int) -> None:
        left = isinstance(event, Retired) and event.kind is Kind.JOB
        if left and isinstance(event, Retired):
            if self._coordinator.store.history[event.id].is_final:
                return
            raise SimFailure(f"{event.id} retired before its end", event.id)

    def settled(self) -> None:
        for kind, id in self._coordinator.store.live:
            if kind is Kind.LEASE:
                raise SimFailure(f"lease {id} is still live at rest", *_jobs(id))


class EverythingRan(Checker):
    """Once faults have ceased, everything that can run has run, and queues are empty."""

    def __init__(
        self, coordinator: SimCoordinator, people: People, job_names: Callable[[str], str]
    ) -> None:
        self._coordinator = coordinator
        self._people = people
        self._job_names = job_names

    def settled(self) -> None:
        if self._people.waiting:
            raise SimFailure("somebody still waits for an answer")
        state = self._coordinator.store.reload(self._coordinator.settings).state
        for job in self._coordinator.jobs():
            if job.is_final:
                continue
            if job.status in (*RUNNING, *ASIDE) or place(state.free, job.demand) is not None:
                raise SimFailure(f"{job.job_id} is {job.status} for ever", job.job_id)


def _check_sum(device_id: str, leases: Iterable[Lease], verb: str) -> None:
    found = list(leases)
    if sum(lease.thousandths for lease in found) > WHOLE:
        names = [lease.lease_id for lease in found]
        raise SimFailure(f"{device_id} {verb} {' and '.join(names)}", *_jobs(*names))


def _jobs(*lease_ids: str) -> list[str]:
    return [lease_id.split(".", 1)[0] for lease_id in lease_ids]
