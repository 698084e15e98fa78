"""What the coordinator believes: the live records, and indexes that follow from them.

Rules of this file: `apply` is the only thing that changes a ClusterState, live and in recovery alike;
it decides nothing. Everything but the six tables of records can be computed from them, in whatever order
they were loaded. The one method beside it, `set_aside`, keeps a memo that no decision depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from coordinator.core.capacity import Capacity, Room, pools_of
from coordinator.core.contact import Contacts, is_missing
from coordinator.core.deadlines import Deadlines, Due
from coordinator.core.decision import Changed, Event, Heard, Retired
from coordinator.core.invariants import ensure
from coordinator.core.queue import Group, Queue
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    Document,
    Job,
    JobStatus,
    Key,
    Kind,
    Lease,
    Node,
    OnUnreachable,
    Record,
    Request,
)
from coordinator.core.settings import CoreSettings
from coordinator.core.tables import RUNNING


class ClusterState:
    """The live records by id, and their indexes."""

    def __init__(self, settings: CoreSettings) -> None:
        self.jobs: dict[str, Job] = {}
        self.leases: dict[str, Lease] = {}
        self.nodes: dict[str, Node] = {}
        self.keys: dict[str, Key] = {}
        self.requests: dict[str, Request] = {}
        self.heard: dict[str, Heard] = {}
        self.last_sequence = 0
        self.leases_of_node: dict[str, dict[str, None]] = {}
        self.leases_of_job: dict[str, dict[str, None]] = {}
        self.dependents: dict[str, dict[str, None]] = {}  # job → jobs that name it and have not run
        self.free = Capacity()  # what may be given to jobs now
        self.total = Capacity()  # everything that known nodes offer
        self.queue = Queue()
        self.contacts = Contacts()
        self.deadlines = Deadlines()
        self._settings = settings

    def apply(self, event: Event) -> None:
        """Takes over one fact."""
        match event:
            case Heard():
                self._hear(event)
            case Retired():
                self._retire(event)
            case Changed():
                self._put(event.record, event.at_ms)

    def set_aside(self, group: Group) -> None:
        """Remembers that a group of waiting jobs finds no room, until devices appear for it."""
        self.queue.set_aside(group)

    def leases_on(self, node_id: str) -> list[Lease]:
        """The node's live leases, by id."""
        return [self.leases[key] for key in sorted(self.leases_of_node.get(node_id, ()))]

    def attempt_leases(self, job: Job) -> list[Lease]:
        """The leases of the job's newest attempt, by node rank."""
        number = job.attempt.number if job.attempt else 0
        found = [self.leases[key] for key in self.leases_of_job.get(job.job_id, ())]
        return sorted((x for x in found if x.attempt == number), key=lambda x: x.node_rank)

    def fence_after_ms(self, job: Job) -> int:
        """Silence after which an agent stops leases of the job by itself; 0 is never."""
        replaces = job.policy.on_unreachable is OnUnreachable.REPLACE
        return self._settings.fence_after_ms if replaces else 0

    def records(self) -> Iterator[Record]:
        """All durable records, by kind and id."""
        for table in (self.jobs, self.keys, self.leases, self.nodes, self.requests):
            for id in sorted(table):
                yield table[id]

    def digest(self) -> str:
        """Of the durable records; equal states have equal digests, in every process."""
        sum = hashlib.sha256()
        for record in self.records():
            sum.update(repr(record).encode())
        return sum.hexdigest()

    def _put(self, record: Record, at_ms: int) -> None:
        match record:
            case Job():
                self._put_job(record)
            case Lease():
                self._put_lease(record)
            case Node():
                self._put_node(record, at_ms)
            case Key():
                self.keys[record.id] = record
            case Request():
                self.requests[record.id] = record
                self.deadlines.set(Due.FORGET, record.id, at_ms=record.expires_at_ms)
            case Document():
                pass  # only the store keeps documents

    def _retire(self, event: Retired) -> None:
        match event.kind:
            case Kind.JOB:
                job = self.jobs.pop(event.id)
                ensure(job.is_final, "only a final job retires", event.id)
                ensure(event.id not in self.leases_of_job, "it has no lease left", event.id)
            case Kind.LEASE:
                self._drop_lease(self.leases.pop(event.id))
            case Kind.NODE:
                del self.nodes[event.id]
                self.heard.pop(event.id, None)
                self.deadlines.set(Due.SILENCE, event.id, at_ms=0)
                self.deadlines.set(Due.DRAIN, event.id, at_ms=0)
                self._note_contact(event.id, event.at_ms)
                self.total.put(event.id, None)
                self._refresh(event.id)
            case Kind.KEY:
                del self.keys[event.id]
            case Kind.REQUEST:
                del self.requests[event.id]
                self.deadlines.set(Due.FORGET, event.id, at_ms=0)
            case Kind.DOCUMENT:
                pass

    def _put_job(self, job: Job) -> None:
        before = self.jobs.get(job.job_id)
        self.jobs[job.job_id] = job
        self.last_sequence = max(self.last_sequence, job.sequence)
        eligible = job.status is JobStatus.QUEUED and not job.not_before_ms
        if eligible != (job.job_id in self.queue.group_of):
            if eligible:
                self.queue.add(job)
            else:
                self.queue.remove(job.job_id)
        was_told = before is not None and is_told(before)
        if was_told != is_told(job):
            self._index_dependencies(job, add=not was_told)
        self._set_job_deadlines(job)

    def _index_dependencies(self, job: Job, *, add: bool) -> None:
        for needed in dict.fromkeys(job.policy.depends_on):
            if add:
                self.dependents.setdefault(needed, {})[job.job_id] = None
                continue
            waiting = self.dependents[needed]
            del waiting[job.job_id]
            if not waiting:
                del self.dependents[needed]

    def _set_job_deadlines(self, job: Job) -> None:
        waits = job.status is JobStatus.PENDING and job.reason == Reason.WAITING_FOR_START_TIME
        start_ms = job.policy.start_after_ms if waits else 0
        self.deadlines.set(Due.START, job.job_id, at_ms=start_ms)
        backoff_ms = job.not_before_ms if job.status is JobStatus.QUEUED else 0
        self.deadlines.set(Due.BACKOFF, job.job_id, at_ms=backoff_ms)
        limit_ms = 0
        attempt = job.attempt
        runs = attempt is not None and attempt.stop is None and job.status in RUNNING
        ask = attempt.ask if attempt and runs else None
        if runs and attempt and attempt.started_at_ms and job.policy.max_runtime_ms and not ask:
            limit_ms = attempt.started_at_ms + job.policy.max_runtime_ms
        self.deadlines.set(Due.TIME_LIMIT, job.job_id, at_ms=limit_ms)
        self.deadlines.set(Due.ASK, job.job_id, at_ms=ask.due_ms if ask else 0)

    def _put_lease(self, lease: Lease) -> None:
        before = self.leases.get(lease.lease_id)
        ensure(
            before is None or before.state <= lease.state, "a lease never goes back", lease.lease_id
        )
        if before is None and not lease.is_ended:
            self._check_free(lease)
        self.leases[lease.lease_id] = lease
        self.leases_of_node.setdefault(lease.node_id, {})[lease.lease_id] = None
        self.leases_of_job.setdefault(lease.job_id, {})[lease.lease_id] = None
        if before is None or before.is_ended != lease.is_ended:
            self._refresh(lease.node_id)

    def _check_free(self, lease: Lease) -> None:
        for lease_id in self.leases_of_node.get(lease.node_id, ()):
            other = self.leases[lease_id]
            shared = not other.is_ended and not set(other.device_ids).isdisjoint(lease.device_ids)
            ensure(not shared, "a device is in one lease", lease_id, lease.lease_id)

    def _drop_lease(self, lease: Lease) -> None:
        ensure(lease.is_ended, "only an ended lease retires", lease.lease_id)
        for index, key in (
            (self.leases_of_node, lease.node_id),
            (self.leases_of_job, lease.job_id),
        ):
            del index[key][lease.lease_id]
            if not index[key]:
                del index[key]

    def _put_node(self, node: Node, at_ms: int) -> None:
        before = self.nodes.get(node.node_id)
        self.nodes[node.node_id] = node
        self._note_contact(node.node_id, at_ms)
        if before is None or before.offer != node.offer:
            offer = node.offer
            self.total.put(
                node.node_id,
                Room(
                    labels=offer.labels,
                    pools=pools_of(offer.devices),
                    cpu_count=offer.cpu_count,
                    memory_bytes=offer.memory_bytes,
                    disk_bytes=offer.disk_bytes,
                ),
            )
        drain_ms = node.drain.deadline_ms if node.drain and not node.drain.force else 0
        self.deadlines.set(Due.DRAIN, node.node_id, at_ms=drain_ms)
        if node.unreachable_since_ms:
            self.deadlines.set(Due.SILENCE, node.node_id, at_ms=0)
        self._refresh(node.node_id)

    def _hear(self, event: Heard) -> None:
        self.heard[event.node_id] = event
        # a leader that starts, or was held up, gives everyone time to be heard
        grace_ms = self._settings.recovery_grace_ms if event.renewed else 0
        if self.nodes[event.node_id].unreachable_since_ms:
            self._arm_fence(event.node_id, event.at_ms + grace_ms)
            return
        at_ms = event.at_ms + self._settings.unreachable_after_ms + grace_ms
        self.deadlines.set(Due.SILENCE, event.node_id, at_ms=at_ms)

    def _note_contact(self, node_id: str, at_ms: int) -> None:
        """Files whether the node is in contact; what freezes or thaws concerns all that are not."""
        contacts = self.contacts
        was_frozen, was_missing = contacts.frozen, node_id in contacts.missing
        contacts.put(node_id, self.nodes.get(node_id))
        if contacts.frozen != was_frozen:
            for missing_id in contacts.missing:
                self._arm_fence(missing_id, at_ms)
        if was_missing != (node_id in contacts.missing):
            self._arm_fence(node_id, at_ms)

    def _arm_fence(self, node_id: str, at_ms: int) -> None:
        node = self.nodes.get(node_id)
        due_ms = 0
        if node is not None and is_missing(node) and not self.contacts.frozen:
            left_ms = self._settings.replace_after_ms - self._settings.unreachable_after_ms
            due_ms = max(node.unreachable_since_ms, at_ms) + left_ms
        self.deadlines.set(Due.FENCED, node_id, at_ms=due_ms)

    def _refresh(self, node_id: str) -> None:
        """Files anew what the node has free, and tries again who waits for it."""
        before = self.free.rooms.get(node_id)
        after = self.free_room(node_id)
        if after == before:
            return
        self.free.put(node_id, after)
        if after is None or (before is not None and not _grew(before, after)):
            return
        for device_class, _ in after.pools:
            free = self.free.devices_by_type[device_class.type]
            self.queue.devices_appeared(device_class.type, free)

    def free_room(self, node_id: str) -> Room | None:
        """What the node could give to jobs now, computed from the records; None for nothing."""
        node = self.nodes.get(node_id)
        if node is None or node.drain or node.unreachable_since_ms:
            return None
        held = map(self.leases.__getitem__, self.leases_of_node.get(node_id, ()))
        holding = [lease for lease in held if not lease.is_ended]
        taken = {device_id for lease in holding for device_id in lease.device_ids}
        devices = [d for d in node.offer.devices if d.healthy and d.device_id not in taken]
        if not devices:
            return None
        return Room(
            labels=node.offer.labels,
            pools=pools_of(devices),
            cpu_count=node.offer.cpu_count - sum(x.cpu_count for x in holding),
            memory_bytes=node.offer.memory_bytes - sum(x.memory_bytes for x in holding),
            disk_bytes=node.offer.disk_bytes - sum(x.disk_bytes for x in holding),
        )


def is_told(job: Job) -> bool:
    """Whether a job is to be told what becomes of those that it depends on."""
    held = job.status is JobStatus.PAUSED and job.attempt is None
    return job.status is JobStatus.PENDING or held


def _grew(before: Room, after: Room) -> bool:
    """Whether a job might fit after that did not fit before."""
    counts = {device_class: len(ids) for device_class, ids in before.pools}
    return (
        before.labels != after.labels
        or any(len(ids) > counts.get(one, 0) for one, ids in after.pools)
        or after.cpu_count > before.cpu_count
        or after.memory_bytes > before.memory_bytes
        or after.disk_bytes > before.disk_bytes
    )
