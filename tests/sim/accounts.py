"""What every leased device was used for adds up to exactly what was leased: reckoned anew, from the facts."""

from __future__ import annotations

from itertools import pairwise

from coordinator.core.decision import Changed, Event, Retired
from coordinator.core.reasons import Reason
from coordinator.core.records import Entry, Job, JobStatus, Kind, Lease, LeaseState, StopCause
from tests.sim.kept import RecordsKept
from tests.sim.truth import Checker, SimFailure

DAY_MS = 24 * 3600 * 1000
CLASSES = ("starting", "productive", "checkpointing", "redone", "idle", "paused")
Moments = list[tuple[int, str]]


class LedgerIsExact(Checker):
    """Each lease is booked once, from its grant to its end, class by class; a job's sum is of them."""

    facts = (Lease, Job, Entry, Retired)

    def __init__(self) -> None:
        self._granted: dict[str, tuple[int, int]] = {}  # by lease: when, thousandths of devices
        self._fenced: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._unbooked: set[str] = set()  # that have ended
        self._booked: dict[str, Entry] = {}
        self._sums: dict[str, tuple[int, ...]] = {}  # by job
        self._moments: dict[
            tuple[str, int], Moments
        ] = {}  # by attempt: from when on it was used how

    def committed(self, event: Event, number: int) -> None:
        if isinstance(event, Retired) and event.kind is Kind.LEASE:
            self._check_booked(event.id)
        if not isinstance(event, Changed):
            return
        match event.record:
            case Lease():
                self._lease(event.record, event)
            case Job():
                self._job(event.record, event)
            case Entry():
                self._entry(event.record)

    def rewound(self, store: RecordsKept) -> None:
        leases = {x.lease_id: x for x in store.live.values() if isinstance(x, Lease)}
        self._granted |= {id: (x.granted_at_ms, _milli(x)) for id, x in leases.items()}
        for id, lease in leases.items():  # what goes again may be fenced and end again
            if not lease.is_ended:
                self._ended.pop(id, None)
            if not lease.fenced_at_ms:
                self._fenced.pop(id, None)
        self._booked = dict(store.entries)
        self._unbooked = {id for id, lease in leases.items() if lease.is_ended} - {*self._booked}
        self._moments.clear()
        self._sums.clear()
        for entry in self._booked.values():
            self._add(entry)

    def settled(self) -> None:
        for lease_id in sorted(self._unbooked):
            self._check_booked(lease_id)

    def _lease(self, lease: Lease, event: Changed) -> None:
        id = lease.lease_id
        if event.cause is Reason.LEASE_GRANTED:
            self._granted[id] = event.at_ms, _milli(lease)
            self._ended.pop(id, None)
            self._fenced.pop(id, None)
        if lease.fenced_at_ms:
            self._fenced.setdefault(id, event.at_ms)
        if lease.state is LeaseState.ENDED:
            self._ended.setdefault(id, event.at_ms)
            self._unbooked.add(id)

    def _job(self, job: Job, event: Changed) -> None:
        if tuple(job.spent) != self._sums.get(job.job_id, (0,) * len(CLASSES)):
            raise SimFailure(f"{job.job_id} has another sum than its leases", job.job_id)
        if job.attempt is None:
            return
        if job.status is JobStatus.COMPLETED:
            lost = [loss for loss in job.losses if loss.attempt == job.attempt.number]
            if lost:
                raise SimFailure(f"{job.job_id} is COMPLETED and lost {lost}", job.job_id)
        key = job.job_id, job.attempt.number
        if event.cause is Reason.PLACED:
            self._moments[key] = []
        if key in self._moments:
            self._moments[key].append((event.at_ms, _use(job)))

    def _entry(self, entry: Entry) -> None:
        id = entry.lease_id
        if id in self._booked:
            raise SimFailure(f"{id} is booked twice", entry.job_id)
        granted_ms, milli = self._granted[id]
        if id not in self._ended:
            raise SimFailure(f"{id} is booked and has not ended", entry.job_id)
        leased_ms = max(0, self._ended[id] - granted_ms)
        found = [sum(parts) for parts in zip(*(day.spent for day in entry.days), strict=True)]
        if sum(found) != leased_ms or entry.milli != milli:
            text = f"{id} was leased for {leased_ms} ms and used for {sum(found)}"
            raise SimFailure(text, entry.job_id)
        if min(min(day.spent) for day in entry.days) < 0 or bool(found[3]) != bool(entry.cause):
            raise SimFailure(f"{id} is booked as {found} because of {entry.cause}", entry.job_id)
        self._check_classes(entry, found)
        self._booked[id] = entry
        self._unbooked.discard(id)
        self._add(entry)

    def _check_classes(self, entry: Entry, found: list[int]) -> None:
        """Class by class and day by day, where the clock went forward all the time."""
        job_id, attempt, _ = entry.lease_id.split(".")
        moments = self._moments.get((job_id, int(attempt)))
        if moments is None:
            return
        fenced = self._fenced.get(entry.lease_id)
        end_ms = self._ended[entry.lease_id]
        times = [at for at, _ in moments]
        if times != sorted(times) or (fenced is not None and not times[0] <= fenced <= end_ms):
            return
        if fenced is not None:
            moments = [*(one for one in moments if one[0] < fenced), (fenced, "idle")]
        elif times[-1] > end_ms:
            moments = [one for one in moments if one[0] <= end_ms]
        expected = dict.fromkeys(CLASSES, 0)
        for (from_ms, use), (to_ms, _) in pairwise([*moments, (end_ms, "")]):
            expected[use] += to_ms - from_ms
        shown = dict(zip(CLASSES, found, strict=True))
        shown["productive"] += shown.pop("redone")
        del expected["redone"]
        if shown != expected:
            raise SimFailure(f"{entry.lease_id} was {expected}, not {shown}", job_id)
        for day, spent in entry.days:
            within = min(end_ms, (day + 1) * DAY_MS) - max(moments[0][0], day * DAY_MS)
            if sum(spent) != within:
                raise SimFailure(f"{entry.lease_id} has {within} ms of day {day}", job_id)

    def _add(self, entry: Entry) -> None:
        before = self._sums.get(entry.job_id, (0,) * len(CLASSES))
        for day in entry.days:
            parts = zip(before, day.spent, strict=True)
            before = tuple(had + part * entry.milli for had, part in parts)
        self._sums[entry.job_id] = before

    def _check_booked(self, lease_id: str) -> None:
        granted_ms, _ = self._granted[lease_id]
        if lease_id in self._unbooked and self._ended[lease_id] > granted_ms:
            raise SimFailure(f"{lease_id} is over and was never booked", lease_id.split(".")[0])


def _milli(lease: Lease) -> int:
    return lease.thousandths * len(lease.device_ids)


def _use(job: Job) -> str:
    attempt = job.attempt
    if attempt is None or attempt.ended_at_ms or job.is_final:
        return "idle"
    if attempt.stop is not None:
        return "paused" if attempt.stop is StopCause.PAUSED else "idle"
    known = {JobStatus.TRAINING: "productive", JobStatus.CHECKPOINTING: "checkpointing"}
    return known.get(job.status, "starting")
