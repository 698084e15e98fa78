"""What readers see: the records as of the last commit.

The core runs ahead of the store while a batch is being committed; nobody may see that. The driver
applies a batch's events here once it is durable, so that reads need no lock and no turn in the
driver's queue. Records are immutable and shared with the core: the view costs pointers.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from coordinator.core.decision import Changed, Event, Heard, Retired
from coordinator.core.known import kept_for
from coordinator.core.records import (
    Documents,
    Entry,
    History,
    Job,
    JobStatus,
    Key,
    Kind,
    Lease,
    Mix,
    Node,
    Queue,
    Record,
    RollingDrain,
    Ruling,
    Usage,
)
from coordinator.core.times import Use
from coordinator.runtime.queues import Queues
from coordinator.runtime.rulings import Rulings

Rule = Queue | Usage | History | Mix | RollingDrain
RECENT_FINAL_JOBS = 10_000
MOST_FORESEEN = 256
BOOKED_QUEUES = 500  # that are counted apart; users may name more


class Watch:
    """Wakes its holder when the watched thing has changed; remembers one wake-up, never more."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Something has changed."""
        self._event.set()

    async def wait(self, timeout_s: float) -> None:
        """Returns at the first change since the last wait, or after the timeout."""
        if not self._event.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._event.wait()
        self._event.clear()


@dataclass(frozen=True, slots=True)
class Unknown:
    """Leases that a node holds and nobody knows, and since when it holds any."""

    since_ms: int
    lease_ids: tuple[str, ...]


class View:
    """The published records, by id, with the few indexes that readers need."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.queues = Queues()
        self.nodes: dict[str, Node] = {}
        self.heard_ms: dict[str, int] = {}
        self.unknown: dict[str, Unknown] = {}  # by node; only where there are any
        self.keys: dict[str, Key] = {}
        self.keys_by_sha256: dict[str, Key] = {}
        self.rules: dict[tuple[Kind, str], Rule] = {}
        """What decides beside jobs, leases and nodes: how queues are set, what was learnt."""
        self.leases_by_job: dict[str, dict[str, Lease]] = {}
        self.leases_by_node: dict[str, dict[str, Lease]] = {}
        self.rulings = Rulings()
        self.epoch = 0
        self.version = 0  # of the store, as of which this is
        self.booked: Counter[tuple[str, Use]] = Counter()
        """Device-microseconds of leases that have ended in this process, by queue and class."""
        self.closed = False
        self.tap: Callable[[Iterable[Event] | None], None] = _nobody
        """Told of what is published, after it is; None where everything was replaced."""
        self._expected: dict[str, dict[str, None]] = {}  # by node: jobs that wait for its devices
        self._awaited: dict[str, dict[str, None]] = {}  # by job: these nodes
        self._foreseen: dict[str, tuple[str, ...]] = {}  # by job: hints, where nothing is set aside
        self._recent: OrderedDict[str, Job] = OrderedDict()
        self._revisions: dict[str, int] = {}
        self._counter = 0
        self._watches: dict[tuple[Kind, str], dict[Watch, None]] = {}

    def reset(self, records: Iterable[Record], *, epoch: int) -> None:
        """Replaces everything, after a start or a reload; watchers are woken, not lost."""
        for table in (self.jobs, self.nodes, self.keys, self.keys_by_sha256):
            table.clear()
        self.queues.clear()
        self.rules.clear()
        self.rulings.clear()
        self.leases_by_job.clear()
        self.leases_by_node.clear()
        self._recent.clear()
        for awaited in (self._expected, self._awaited, self._foreseen):
            awaited.clear()
        self.unknown.clear()
        self.epoch = epoch
        for record in records:
            self._put(record)
        for node_id in self.nodes:
            self._revise(node_id)
        self._wake_all()
        self.tap(None)

    def close(self) -> None:
        """The coordinator stops: wakes everyone who waits here, and lets nobody wait again."""
        self.closed = True
        self._wake_all()

    def apply(self, events: Sequence[Event]) -> None:
        """Publishes the events of a committed batch, in order."""
        for event in events:
            if isinstance(event, Changed):
                if not isinstance(event.record, Documents):  # is asked of the store
                    self._put(event.record)
            elif isinstance(event, Heard):
                self._hear(event)
            else:
                self._retire(event)
        self.tap(events)

    def foresee(self, foreseen: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """Takes on which nodes jobs will fit first; the first word counts for as long as a job waits."""
        for job_id, node_ids in foreseen:
            if len(self._foreseen) < MOST_FORESEEN and job_id not in self._foreseen:
                self._foreseen[job_id] = node_ids
                self._expect(job_id, self.jobs.get(job_id))

    def records(self) -> Iterator[Record]:
        """The live jobs, nodes and leases, and what else decides about them."""
        yield from self.rules.values()
        yield from self.jobs.values()
        yield from self.nodes.values()
        for leases in self.leases_by_node.values():
            yield from leases.values()

    def job(self, job_id: str) -> Job | None:
        """A live job or one that ended lately; None says only that the store must be asked."""
        return self.jobs.get(job_id) or self._recent.get(job_id)

    def held(self) -> Iterator[Lease]:
        """The leases that are not ended: what they name is not free."""
        for leases in self.leases_by_node.values():
            yield from (lease for lease in leases.values() if not lease.is_ended)

    def leases_of_job(self, job_id: str) -> list[Lease]:
        """The job's leases whose agents still report them."""
        return list(self.leases_by_job.get(job_id, {}).values())

    def desired_of_node(self, node_id: str) -> list[Lease]:
        """The leases that the node's agent shall know, by id."""
        leases = self.leases_by_node.get(node_id, {})
        return [leases[key] for key in sorted(leases) if not leases[key].is_ended]

    def expected_on(self, node_id: str) -> list[Job]:
        """Jobs that will take devices of a node and name something that is to be brought there, by age."""
        found = map(self.jobs.__getitem__, self._expected.get(node_id, ()))
        return sorted(found, key=lambda job: job.sequence)

    def revision(self, node_id: str) -> int:
        """Changes whenever the node's desired list does; differs between epochs."""
        return (self.epoch << 32) + self._revisions.get(node_id, 0)

    def watch(self, kind: Kind, id: str) -> Watch:
        """Watches one job (its leases included) or one node (its desired list)."""
        watch = Watch()
        if self.closed:
            watch.wake()
        self._watches.setdefault((kind, id), {})[watch] = None
        return watch

    def unwatch(self, kind: Kind, id: str, watch: Watch) -> None:
        """Ends a watch."""
        watches = self._watches.get((kind, id))
        if watches:
            watches.pop(watch, None)
            if not watches:
                del self._watches[kind, id]

    def _put(self, record: Record) -> None:
        match record:
            case Job():
                self.queues.put(self.jobs.get(record.job_id), record)
                self.jobs[record.job_id] = record
                if kept_for(record) or record.job_id in self._awaited:
                    self._expect(record.job_id, record)
                self._wake(Kind.JOB, record.job_id)
            case Lease():
                self._put_lease(record)
            case Queue() | Usage() | History() | Mix() | RollingDrain():
                self.rules[record.kind, record.id] = record
                if isinstance(record, Queue):
                    self.queues.put_order(record, self.jobs)
            case Ruling():
                self.rulings.put(record)
            case Node():
                known = self.nodes.get(record.node_id)
                self.nodes[record.node_id] = record
                if known is not None and known.health.asked != record.health.asked:
                    self._revise(record.node_id)
            case Entry():
                self._book(record)
            case Key():
                self.keys[record.key_id] = record
                if not record.node_id:
                    self.keys_by_sha256[record.sha256] = record

    def _expect(self, job_id: str, job: Job | None) -> None:
        """Files on which nodes a job waits for devices."""
        were = self._awaited.pop(job_id, {})
        if job is None or job.status is not JobStatus.QUEUED or not job.wants:
            self._foreseen.pop(job_id, None)
            are: dict[str, None] = {}
        else:
            kept = [share.node_id for share in kept_for(job)]
            are = dict.fromkeys(kept or self._foreseen.get(job_id, ()))
        if are:
            self._awaited[job_id] = are
        if were == are:
            return
        for node_id in were:
            del self._expected[node_id][job_id]
            if not self._expected[node_id]:
                del self._expected[node_id]
        for node_id in are:
            self._expected.setdefault(node_id, {})[job_id] = None
        for node_id in {**were, **are}:
            self._revise(node_id)

    def _book(self, entry: Entry) -> None:
        known = (entry.queue_name, Use.IDLE) in self.booked
        full = len(self.booked) >= BOOKED_QUEUES * len(Use)
        name = entry.queue_name if known or not full else ""
        for day in entry.days:
            for use in Use:
                self.booked[name, use] += day.spent[use] * entry.milli

    def _hear(self, event: Heard) -> None:
        self.heard_ms[event.node_id] = event.at_ms
        if event.unknown:
            before = self.unknown.get(event.node_id)
            since_ms = before.since_ms if before else event.at_ms
            self.unknown[event.node_id] = Unknown(since_ms, event.unknown)
        elif not event.renewed:
            self.unknown.pop(event.node_id, None)

    def _put_lease(self, lease: Lease) -> None:
        on_node = self.leases_by_node.setdefault(lease.node_id, {})
        before = on_node.get(lease.lease_id)
        on_node[lease.lease_id] = lease
        self.leases_by_job.setdefault(lease.job_id, {})[lease.lease_id] = lease
        if _desired(before) != _desired(lease):
            self._revise(lease.node_id)
        self._wake(Kind.JOB, lease.job_id)

    def _retire(self, event: Retired) -> None:
        if event.kind is Kind.JOB:
            job = self.jobs.pop(event.id, None)
            if job is not None:
                self.queues.put(job, None)
                self._expect(event.id, None)
                self._recent[event.id] = job
                if len(self._recent) > RECENT_FINAL_JOBS:
                    self._recent.popitem(last=False)
            self._wake(Kind.JOB, event.id)
        elif event.kind is Kind.LEASE:
            self._retire_lease(event.id)
        elif event.kind is Kind.RULING:
            self.rulings.drop(event.id)
        elif event.kind is Kind.NODE:
            self.nodes.pop(event.id, None)
            self.heard_ms.pop(event.id, None)
            self.unknown.pop(event.id, None)
        elif (event.kind, event.id) in self.rules:
            del self.rules[event.kind, event.id]
            if event.kind is Kind.QUEUE:
                self.queues.drop_order(event.id, self.jobs)
        elif event.kind is Kind.KEY:
            key = self.keys.pop(event.id, None)
            if key is not None and not key.node_id:
                del self.keys_by_sha256[key.sha256]

    def _retire_lease(self, lease_id: str) -> None:
        job_id = lease_id.split(".", 1)[0]
        lease = self.leases_by_job.get(job_id, {}).pop(lease_id, None)
        if lease is None:
            return
        if not self.leases_by_job[job_id]:
            del self.leases_by_job[job_id]
        on_node = self.leases_by_node[lease.node_id]
        del on_node[lease_id]
        if not on_node:
            del self.leases_by_node[lease.node_id]
        if _desired(lease) is not None:
            self._revise(lease.node_id)
        self._wake(Kind.JOB, job_id)

    def _revise(self, node_id: str) -> None:
        self._counter += 1
        self._revisions[node_id] = self._counter
        self._wake(Kind.NODE, node_id)

    def _wake(self, kind: Kind, id: str) -> None:
        for watch in self._watches.get((kind, id), ()) if self._watches else ():
            watch.wake()

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()


def _nobody(_: Iterable[Event] | None) -> None:
    pass


def _desired(lease: Lease | None) -> tuple[object, ...] | None:
    """What an agent is told of a lease; None for a lease that it shall not know."""
    if lease is None or lease.is_ended:
        return None
    return lease.epoch, lease.action, lease.grace_ms, lease.save


def node_status(node: Node, *, busy: bool) -> str:
    """Name of the public status of a node; `busy` when leases are desired on it."""
    if node.unreachable_since_ms:
        return "UNREACHABLE"
    if node.drain is None:
        return "READY"
    return "DRAINING" if busy else "DRAINED"
