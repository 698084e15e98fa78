"""Properties of claims: what is set aside for who is next in line is lent to none who would delay it."""

from __future__ import annotations

from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import Job, Kind, Lease, Queue, Record, Share
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure


class NobodyDelaysAClaim(Checker):
    """Of a claim only those get something who are held to being over in time; they are, or they go."""

    facts = (Job, Lease, Queue, Retired)

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._queues: dict[str, Queue] = {}
        self._leases: dict[str, Lease] = {}
        self._claimed: dict[str, str] = {}  # device → job

    def rewound(self, store: RecordsKept) -> None:
        for table in (self._jobs, self._queues, self._leases, self._claimed):
            table.clear()
        for record in store.live.values():
            self._take(record)

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired) and event.kind is Kind.LEASE:
            self._leases.pop(event.id, None)
        if not isinstance(event, Changed):
            return
        record = event.record
        if isinstance(record, Lease) and event.cause is Reason.LEASE_GRANTED:
            self._check_lent(record, event.at_ms)
        if isinstance(record, Job) and event.cause is Reason.ROOM_CLAIMED:
            self._check_put_off(record)
        self._take(record)

    def _check_lent(self, lease: Lease, at_ms: int) -> None:
        job = self._jobs[lease.job_id]
        attempt = job.attempt
        for claimant_id in {self._claimed.get(x, job.job_id) for x in lease.device_ids}:
            claimant = self._jobs[claimant_id]
            if claimant_id == job.job_id or claimant.claim is None:
                continue
            text = f"{job.job_id} gets what is set aside for {claimant_id}"
            if attempt is None or attempt.lent_by != claimant_id:
                raise SimFailure(text, job.job_id, claimant_id)
            left_ms = claimant.claim.from_ms - at_ms
            if not self._is_over_in(job, left_ms):
                raise SimFailure(f"{text}, and is not over in time", job.job_id, claimant_id)

    def _is_over_in(self, job: Job, left_ms: int) -> bool:
        policy, queue = job.policy, self._queues.get(job.queue_name)
        if policy.max_runtime_ms and policy.max_runtime_ms <= left_ms:
            return True
        if not policy.preemptible:
            return False
        if queue is not None and queue.preempts:
            return True  # it can be preempted anyway
        given_ms = policy.expected_duration_ms
        return not given_ms or given_ms - job.served_ms <= left_ms

    def _check_put_off(self, job: Job) -> None:
        """A claim is put off only for those who were there before."""
        before = self._jobs[job.job_id].claim
        if before is None or job.claim is None:
            return
        held = [
            x for x in self._leases.values() if not x.is_ended and self._is_of(x, before.shares)
        ]
        holders = {lease.job_id: self._jobs[lease.job_id].attempt for lease in held}
        if all(one and one.lent_by == job.job_id for one in holders.values()):
            for job_id, one in holders.items():
                firm = not self._jobs[job_id].policy.preemptible
                if one is not None and not one.stop and not one.ask and not firm:
                    raise SimFailure(f"{job_id} keeps what {job.job_id} claims", job_id)

    @staticmethod
    def _is_of(lease: Lease, shares: tuple[Share, ...]) -> bool:
        devices = {device_id for share in shares for device_id in share.device_ids}
        return not devices.isdisjoint(lease.device_ids)

    def _take(self, record: Record) -> None:
        match record:
            case Queue():
                self._queues[record.name] = record
            case Lease():
                self._leases[record.lease_id] = record
            case Job():
                self._jobs[record.job_id] = record
                if record.job_id in self._claimed.values():
                    own = [k for k, v in self._claimed.items() if v == record.job_id]
                    for key in own:
                        del self._claimed[key]
                for share in record.claim.shares if record.claim else ():
                    self._claimed.update(dict.fromkeys(share.device_ids, record.job_id))

    def settled(self) -> None:
        if self._claimed:
            raise SimFailure(f"devices stay claimed: {self._claimed}", *self._claimed.values())
