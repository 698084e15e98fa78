"""How facts change what the coordinator knows.

Rules of this file: `apply` is the only thing that changes a ClusterState, live and in recovery alike
(`apply_like` is a shorter way to the same); it decides nothing. Everything but the tables of records can be
computed from them, in whatever order they were loaded. Beside it, two memos are kept on which no decision
depends (which groups of jobs are set aside, and what free room is searched by), and `advance` brings what
follows from records and the time up to the time.
"""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.core.contact import is_missing
from coordinator.core.deadlines import Due
from coordinator.core.decision import Changed, Event, Heard, Retired
from coordinator.core.health import due_ms
from coordinator.core.invariants import ensure
from coordinator.core.known import (
    Known,
    is_doubted,
    is_eligible,
    is_told,
    kept_for,
    may_be_preempted,
)
from coordinator.core.order import least_level, level_of, waits_since_ms
from coordinator.core.placement import Placement
from coordinator.core.queue import Group
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    IDLE,
    WHOLE,
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
    Order,
    Queue,
    Record,
    Request,
    RollingDrain,
    Ruling,
    Share,
    Usage,
)
from coordinator.core.room import Room, grew, pools_of
from coordinator.core.running import Filed
from coordinator.core.share import Charge, Limit, charge_of_lease, charge_of_room
from coordinator.core.suppose import Supposed
from coordinator.core.tables import RUNNING


class ClusterState(Known):
    """What is known, and how facts change it."""

    def apply(self, event: Event) -> None:
        """Takes over one fact."""
        match event:
            case Changed():
                self._put(event.record, event.at_ms)
            case Heard():
                self._hear(event)
            case Retired():
                self._retire(event)

    def apply_like(self, event: Changed, job: Job, *, first: Job) -> None:
        """Takes over a new job that differs from another, which came before it in the same command, in
        nothing by which jobs are filed but its age."""
        job_id = job.job_id
        waits = first.job_id in self.queue.group_of and self.jobs[first.job_id] is first
        if not waits or job_id in self.leases_of_job or is_doubted(self, job):
            self.apply(event)
            return
        self.jobs[job_id] = job
        self.last_sequence = job.sequence
        self.unlearnt[job_id] = None
        self.queue.add_like(job, first)

    def set_aside(self, group: Group, limit: Limit | None = None) -> None:
        """Remembers that a group of waiting jobs finds no room, until devices appear for it, or that
        a limit keeps it back, until less is held below that."""
        self.queue.set_aside(group, limit)

    def look_at_ages(self, at_ms: int) -> None:
        """Remembers when somebody may have waited for long; 0 is never."""
        self.deadlines.set(Due.AGE, "", at_ms=at_ms)

    def advance(self, now_ms: int) -> None:
        """Brings the index of running attempts up to the time."""
        for job_id in self.running.due(now_ms):
            self._file(self.jobs[job_id], now_ms)

    def next_change_ms(self) -> int | None:
        """When `advance` would change what those who wait may take; None for never."""
        return self.running.next_ms() if len(self.queue) else None

    def place_without(
        self, job: Job, *, unkept: str = "", planned: Iterable[str] = ()
    ) -> Placement | None:
        """Where the job would fit if nothing were set aside for the job that `unkept` names; for the
        job itself nothing is, unless another is named. `planned` are nodes that are taken though they
        are to be out later."""
        with self.supposing(job, unkept=unkept, planned=planned) as supposed:
            return supposed.place(job.demand)

    def supposing(self, job: Job, *, unkept: str = "", planned: Iterable[str] = ()) -> Supposed:
        """Lets what is free be as if it were so; see `place_without`."""
        own = job.job_id if job.claim else ""
        return Supposed(self, unkept=unkept or own, planned=planned)

    def _put(self, record: Record, at_ms: int) -> None:
        match record:
            case Job():
                self._put_job(record, at_ms)
            case Lease():
                self._put_lease(record)
            case Node():
                self._put_node(record, at_ms)
            case Key():
                self.keys[record.id] = record
            case Request():
                self.requests[record.id] = record
                self.deadlines.set(Due.FORGET, record.id, at_ms=record.expires_at_ms)
            case Queue():
                self._put_queue(record)
            case Usage():
                self.shares.note(record)
            case History():
                self.estimates.put(record)
            case Mix():
                self.mix = record
                through = record.through_sequence
                left = [id for id in self.unlearnt if self.jobs[id].sequence > through]
                self.unlearnt = dict.fromkeys(left)
            case RollingDrain():
                self.rolls.put(record)
            case Ruling():
                self.rulings[record.id] = record
            case Documents() | Entry():
                pass  # only the store keeps them

    def _retire(self, event: Retired) -> None:
        match event.kind:
            case Kind.JOB:
                job = self.jobs.pop(event.id)
                self.unlearnt.pop(event.id, None)
                ensure(job.is_final, "only a final job retires", event.id)
                ensure(event.id not in self.leases_of_job, "it has no lease left", event.id)
            case Kind.LEASE:
                self._drop_lease(self.leases.pop(event.id))
            case Kind.NODE:
                self.rolls.put_node(self.nodes.pop(event.id), None)
                self.near.put(event.id, {})
                self.heard.pop(event.id, None)
                freed = self.doubt.jobs_on(event.id)
                self.doubt.put(event.id, None)
                self._wait_all(freed)
                self.deadlines.set(Due.SILENCE, event.id, at_ms=0)
                self.deadlines.set(Due.DRAIN, event.id, at_ms=0)
                self.deadlines.set(Due.WINDOW, event.id, at_ms=0)
                self.deadlines.set(Due.HEALTH, event.id, at_ms=0)
                self.planned.pop(event.id, None)
                self._note_contact(event.id, event.at_ms)
                self.total.put(event.id, None)
                self.shares.put_machine(event.id, None)
                self._refresh(event.id)
            case Kind.KEY:
                del self.keys[event.id]
            case Kind.REQUEST:
                del self.requests[event.id]
                self.deadlines.set(Due.FORGET, event.id, at_ms=0)
            case Kind.QUEUE:
                del self.queues[event.id]
                self._queues_changed()
            case Kind.USAGE:
                del self.shares.usages[event.id]
            case Kind.HISTORY:
                self.estimates.drop(event.id)
            case Kind.ROLLING_DRAIN:
                self.rolls.drop(event.id)
            case Kind.RULING:
                del self.rulings[event.id]
            case Kind.MIX | Kind.DOCUMENT | Kind.ENTRY:
                pass

    def _put_queue(self, queue: Queue) -> None:
        self.queues[queue.name] = queue
        self._queues_changed()

    def _queues_changed(self) -> None:
        """Files anew everything that depends on how queues are set."""
        self.shares.changed()
        for jobs in self.kept.values():
            self.queue.opened.touch(jobs)
        waiting = [*self.queue.group_of]
        for job_id in waiting:
            self.queue.remove(job_id)
        for job_id in waiting:
            self._wait(self.jobs[job_id])  # in a new group: what kept the old one back may be gone

    def _charge(self, key: str, charge: Charge | None) -> None:
        for limit in self.shares.put(key, charge):
            self.queue.room_below(limit)

    def _charge_leases(self, job: Job) -> None:
        """What a job holds is charged to the queue in which it is now."""
        for lease_id in self.leases_of_job.get(job.job_id, ()):
            self._charge_lease(self.leases[lease_id])

    def _charge_lease(self, lease: Lease) -> None:
        job = self.jobs.get(lease.job_id)
        holds = job is not None and not lease.is_ended
        self._charge(lease.lease_id, charge_of_lease(job, lease) if job and holds else None)
        if job is not None:
            self.shares.leaving.put(job.job_id, job.queue_name, milli=self.leaving_milli(job))

    def _put_job(self, job: Job, at_ms: int) -> None:
        before = self.jobs.get(job.job_id)
        self.jobs[job.job_id] = job
        if job.sequence > self.last_sequence:
            self.last_sequence = job.sequence
        if before is None and job.sequence > self.mix.through_sequence:
            self.unlearnt[job.job_id] = None
        if before is None and job.attempt is None and job.claim is None and is_eligible(job):
            self._put_new(job)
            return
        kept = kept_for(before) if before else ()
        if kept != kept_for(job):
            self._keep(job, kept)
        if before is None or before.queue_name != job.queue_name:
            self._charge_leases(job)
        if job.reserved or (before is not None and before.reserved):
            self._charge(f"room of {job.job_id}", charge_of_room(job))
            if before is None or before.status is not job.status:
                self.queue.opened.touch([job.job_id])  # it may be free already
        if before is not None or job.attempt is not None:
            self.shares.leaving.put(job.job_id, job.queue_name, milli=self.leaving_milli(job))
        self._wait(job, before)
        was_told = before is not None and is_told(before)
        if was_told != is_told(job):
            self._index_dependencies(job, add=not was_told)
        self._put_claim(before, job)
        self._put_attempt(before, job, at_ms=at_ms)
        self._set_job_deadlines(job)

    def _put_new(self, job: Job) -> None:
        """A job that may be placed, as most come: it holds nothing, and nothing of it is due."""
        if job.job_id in self.leases_of_job:
            self._charge_leases(job)
        if not is_doubted(self, job):
            self._enter(job)

    def _wait(self, job: Job, before: Job | None = None) -> None:
        """Lets a job stand in the queue, or not; `before` is as it was."""
        eligible = is_eligible(job) and not is_doubted(self, job)
        if eligible != (job.job_id in self.queue.group_of):
            if eligible:
                self._enter(job)
            else:
                self.queue.remove(job.job_id)
        elif eligible:
            account, path = self.shares.account_of(job), self.shares.path(job.queue_name)
            queue = self.queue_of(job)
            is_moved = self.queue.file_again(job, queue, account=account, path=path)
            if is_moved or (before is not None and before.policy != job.policy):
                self._look_again(self.queue.group_of[job.job_id])

    def _enter(self, job: Job) -> None:
        """Lets a job stand in the queue that did not."""
        account, path = self.shares.account_of(job), self.shares.path(job.queue_name)
        group = self.queue.add(job, self.queue_of(job), account=account, path=path)
        of_age_ms = waits_since_ms(job) + self.settings.aging_ms
        if of_age_ms < self.deadlines.wanted.get((Due.AGE, ""), of_age_ms + 1):
            self.look_at_ages(of_age_ms)
        self._look_again(group)  # those before it are perhaps not over in time

    def _look_again(self, group: Group) -> None:
        """One of a group that was set aside may claim devices, or be over before those of a claim, or a
        node, are to be free."""
        if (self.claims or self.planned) and group.is_blocked:
            self.queue.try_again([group])

    def _wait_all(self, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            if job_id in self.jobs:
                self._wait(self.jobs[job_id])
                if kept_for(self.jobs[job_id]):
                    self.queue.opened.touch([job_id])

    def _forget_idle(self, job_id: str) -> None:
        self._idle.pop(job_id, None)
        self.lender_ids = None

    def _put_claim(self, before: Job | None, job: Job) -> None:
        had = before if before and before.claim else None
        if had is not None or job.claim is not None:
            self.lender_ids = None
        if had is not None and (job.claim is None or had.queue_name != job.queue_name):
            del self.claims[had.queue_name][job.job_id]
            if not self.claims[had.queue_name]:
                del self.claims[had.queue_name]
            self._next_in_line(had.queue_name)
        if job.claim is not None:
            self.claims.setdefault(job.queue_name, {})[job.job_id] = None
            if before is None or before.claim != job.claim:
                self.queue.opened.claimants[job.job_id] = (
                    None  # who was not over in time may be now
                )
        due_ms = job.claim.from_ms if job.claim else 0
        if job.awaits is not None and job.awaits.shares:
            due_ms = job.awaits.until_ms
        self.deadlines.set(Due.CLAIM, job.job_id, at_ms=due_ms)

    def _next_in_line(self, queue_name: str) -> None:
        """Lets the first that found no room be looked at: it may claim some now."""
        blocked = [x for x in self.queue.groups_of(queue_name) if x.is_blocked]
        if blocked:
            self.queue.try_again([min(blocked, key=Group.first)])

    def _keep(self, job: Job, before: tuple[Share, ...]) -> None:
        """Sets devices aside for a job, instead of those that were before."""
        self._forget_idle(job.job_id)
        for share in before:
            on_node = self.kept[share.node_id]
            del on_node[job.job_id]
            if not on_node:
                del self.kept[share.node_id]
            self.queue.opened.grow(share.device_type, share.node_id)  # also for who would preempt
        for share in kept_for(job):
            self.kept.setdefault(share.node_id, {})[job.job_id] = share
        granted = job.attempt.shares if job.attempt and job.status is JobStatus.SCHEDULING else ()
        held = {share.node_id for share in granted}  # of these the leases come next
        for share in (*before, *kept_for(job)):
            if share.node_id not in held:
                self._refresh(share.node_id)

    def _put_attempt(self, before: Job | None, job: Job, *, at_ms: int) -> None:
        """Files the attempt by when it is expected to end, and by whether it may be preempted."""
        holds = job.attempt is not None and not job.attempt.ended_at_ms and not job.is_final
        if not holds:
            self.ends.remove(job.job_id)
        elif job.job_id not in self.ends.filed:
            self.ends.put(job.job_id, self.expected_end_ms(job, at_ms))
        if not may_be_preempted(job):
            self.running.remove(job.job_id)
        elif job.job_id not in self.running.filed or before is None or _looks_else(before, job):
            self._file(job, at_ms)

    def _file(self, job: Job, at_ms: int) -> None:
        rank = job.queue_name, job.standing
        known = self.running.filed.get(job.job_id)
        was_young = known is None or known.level is None
        mature_ms = self.mature_at_ms(job)
        if at_ms < mature_ms:
            self.running.put(job.job_id, Filed(rank, None, mature_ms))
            return
        level = level_of(self.work_ms(job, now_ms=at_ms))
        steady_ms = self.estimates.steady_ms(job, self.age_ms(job, at_ms))
        count = job.demand.device_count
        self.running.put(job.job_id, Filed(rank, level, at_ms + steady_ms, count))
        if self.shares.guarantees and was_young:
            self.queue.opened.owed = True
        if self.queue_of(job).preempts:
            if was_young:  # it may be moved from now on
                for share in job.attempt.shares if job.attempt else ():
                    self.queue.opened.grow(share.device_type, share.node_id)
            groups = self.queue.groups_of(job.queue_name)
            self.queue.try_again(
                [g for g in groups if g.is_blocked and self._takes(g, job, level=level)]
            )

    def _takes(self, group: Group, job: Job, *, level: int) -> bool:
        """Whether the first of a group may take what a running job of this level holds."""
        first = self.jobs[group.first()[-1]]
        if first.standing != job.standing:
            return first.standing > job.standing
        return self.queue_of(job).order is Order.SHORTEST and least_level(first) <= level

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
        is_bounded = ask is not None and ask.due_ms  # it ends by then, or goes on without the ask
        if (
            runs
            and attempt
            and attempt.started_at_ms
            and job.policy.max_runtime_ms
            and not is_bounded
        ):
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
            self._charge_lease(lease)
            self._refresh(lease.node_id)
            self.rolls.touch(self.nodes.get(lease.node_id))
            if lease.is_ended:
                self._lend_again(lease.node_id)

    def _lend_again(self, node_id: str) -> None:
        """Something of a claim or of a node that is to be out may be idle: who is over in time is
        tried again."""
        node = self.nodes.get(node_id) if node_id in self.planned else None
        for device in node.offer.devices if node else ():
            self.queue.opened.windows[device.type] = None
        for job_id in self.kept.get(node_id, ()):
            self.queue.opened.claimants[job_id] = None
            group = self.queue.group_of.get(job_id)
            if group is not None and group.is_blocked:
                self.queue.try_again([group])  # it may have to preempt fewer now

    def _check_free(self, lease: Lease) -> None:
        taken = dict.fromkeys(lease.device_ids, lease.thousandths)
        for lease_id in self.leases_of_node.get(lease.node_id, ()):
            other = self.leases[lease_id]
            for device_id in () if other.is_ended else other.device_ids:
                if device_id in taken:
                    taken[device_id] += other.thousandths
                    within = taken[device_id] <= WHOLE
                    ensure(within, "no device is given away twice", lease_id, lease.lease_id)

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
        self.rolls.put_node(before, node)
        self._note_contact(node.node_id, at_ms)
        self.doubt.put(node.node_id, node)
        self._wait_all(self.doubt.jobs_on(node.node_id))
        if before is None or before.offer != node.offer:
            offer = node.offer
            self.shares.put_machine(node.node_id, offer)
            self.near.put(node.node_id, offer.held)
            self.total.put(
                node.node_id,
                Room(
                    labels=(*offer.labels, IDLE),
                    pools=pools_of(offer.devices),
                    cpu_count=offer.cpu_count,
                    memory_bytes=offer.memory_bytes,
                    disk_bytes=offer.disk_bytes,
                ),
            )
        self._put_window(node)
        heals_ms = due_ms(node.health, rules=self.settings.health)
        self.deadlines.set(Due.HEALTH, node.node_id, at_ms=heals_ms)
        drain_ms = node.drain.deadline_ms if node.drain and not node.drain.force else 0
        self.deadlines.set(Due.DRAIN, node.node_id, at_ms=drain_ms)
        if node.unreachable_since_ms:
            self.deadlines.set(Due.SILENCE, node.node_id, at_ms=0)
        self._refresh(node.node_id)

    def _put_window(self, node: Node) -> None:
        self.planned.pop(node.node_id, None)
        window, due_ms = node.window, 0
        if window is not None:
            since_ms = node.drain.requested_at_ms if node.drain else 0
            due_ms = window.until_ms if window.is_on(since_ms) else window.from_ms
            if node.drain is None:
                self.planned[node.node_id] = window.from_ms
        self.deadlines.set(Due.WINDOW, node.node_id, at_ms=due_ms)

    def _hear(self, event: Heard) -> None:
        doubt, node_id = self.doubt, event.node_id
        was_barred, held = doubt.bars(node_id), doubt.jobs_on(node_id)
        doubt.hear(event, is_first=node_id not in self.heard)
        if was_barred or doubt.bars(node_id):
            self.rolls.touch(self.nodes.get(node_id))
            self._wait_all((*held, *doubt.jobs_on(node_id)))
            self._refresh(node_id)
        self.heard[event.node_id] = event
        self.contacts.hear(event)
        # a leader that starts, or was held up, gives everyone time to be heard
        grace_ms = self.settings.recovery_grace_ms if event.renewed else 0
        if self.nodes[event.node_id].unreachable_since_ms:
            self._arm_fence(event.node_id, event.at_ms + grace_ms)
            return
        at_ms = event.at_ms + self.settings.unreachable_after_ms + grace_ms
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
            left_ms = self.settings.replace_after_ms - self.settings.unreachable_after_ms
            due_ms = max(node.unreachable_since_ms, at_ms) + left_ms
        self.deadlines.set(Due.FENCED, node_id, at_ms=due_ms)

    def _refresh(self, node_id: str) -> None:
        """Files anew what the node has free, and tries again who waits for it."""
        for job_id in self.kept.get(node_id, ()):
            self.queue.opened.touch([job_id])
            self._forget_idle(job_id)
        before = self.free.rooms.get(node_id)
        after = self.free_room(node_id)
        if after == before:
            return
        self.free.put(node_id, after)
        if after is None or (before is not None and not grew(before, after)):
            return
        for pool in after.pools:
            self.queue.opened.grow(pool.device_class.type, node_id)


def _looks_else(before: Job, job: Job) -> bool:
    """Whether the attempt is to be filed elsewhere."""
    old, new = before.attempt, job.attempt
    assert new is not None
    return (
        old is None
        or (old.number, old.started_at_ms) != (new.number, new.started_at_ms)
        or (before.queue_name, before.standing) != (job.queue_name, job.standing)
    )
