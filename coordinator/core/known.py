"""What the coordinator knows: the live records by id, the indexes that follow from them, and what
is told of them. It only tells: what changes them is `apply` of state.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterator, Mapping
from functools import lru_cache

from coordinator.core.capacity import Capacity
from coordinator.core.contact import Contacts
from coordinator.core.deadlines import Deadlines
from coordinator.core.decision import Heard
from coordinator.core.doubt import Doubt
from coordinator.core.ends import Ends
from coordinator.core.estimate import Asked, Estimates
from coordinator.core.near import Near
from coordinator.core.placement import NodeShare, node_share
from coordinator.core.queue import Waiting
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    IDLE,
    WHOLE,
    Job,
    JobStatus,
    Key,
    Lease,
    Mix,
    Node,
    OnUnreachable,
    Queue,
    Record,
    Request,
    Ruling,
    Share,
)
from coordinator.core.rolls import Rolls
from coordinator.core.room import Room, pools_of
from coordinator.core.running import Running
from coordinator.core.settings import CoreSettings
from coordinator.core.share import Shares
from coordinator.core.tables import RUNNING

DAY_MS = 86_400_000
NOTHING = NodeShare(0, 0, 0)
MOST_DOUBLINGS = 3


class Known:
    """The live records by id, and their indexes."""

    def __init__(self, settings: CoreSettings) -> None:
        self.jobs: dict[str, Job] = {}
        self.leases: dict[str, Lease] = {}
        self.nodes: dict[str, Node] = {}
        self.keys: dict[str, Key] = {}
        self.requests: dict[str, Request] = {}
        self.queues: dict[str, Queue] = {}  # that an admin has set; others are as by default
        self.estimates = Estimates()  # holds the histories
        self.heard: dict[str, Heard] = {}
        self.mix = Mix()
        self.last_sequence = 0
        self.leases_of_node: dict[str, dict[str, None]] = {}
        self.leases_of_job: dict[str, dict[str, None]] = {}
        self.dependents: dict[str, dict[str, None]] = {}  # job → jobs that name it and have not run
        self.unlearnt: dict[str, None] = {}  # live jobs that are not in the mix yet
        self.free = Capacity()  # what may be given to jobs now
        self.total = Capacity()  # everything that known nodes offer
        self.queue = Waiting()
        self.running = Running()  # what may be preempted
        self.ends = Ends()  # whatever holds devices
        self.planned: dict[str, int] = {}  # nodes in use that are to be out, and from when
        self.claims: dict[str, dict[str, None]] = {}  # by queue: jobs that have one
        self.kept: dict[str, dict[str, Share]] = {}  # by node and job: set aside for who waits
        self._idle: dict[str, int] = {}  # a memo: devices of its claim that nobody holds, by job
        self.lender_ids: list[str] | None = None  # a memo: jobs of whose claims some are idle
        self.contacts = Contacts()
        self.doubt = Doubt()
        self.deadlines = Deadlines()
        self.rolls = Rolls()
        self.near = Near()
        self.rulings: dict[str, Ruling] = {}  # oldest first
        self.settings = settings
        self.shares = Shares(self.queues, half_life_ms=settings.usage_half_life_ms)

    def queue_of(self, job: Job) -> Queue:
        """The queue of a job, as it is set or by default."""
        return self.queues.get(job.queue_name) or _by_default(job.queue_name)

    def age_ms(self, job: Job, now_ms: int) -> int:
        """For how long the job has run and got on, until now."""
        attempt = job.attempt
        if attempt is None or not attempt.started_at_ms or attempt.ended_at_ms:
            return job.served_ms
        return job.served_ms + max(0, now_ms - attempt.started_at_ms)

    def work_ms(self, job: Job, *, now_ms: int) -> int:
        """Device-milliseconds that the job has still to do, as expected."""
        return job.demand.size * self.estimates.left_ms(job, self.age_ms(job, now_ms)) // WHOLE

    def first_work_ms(self, asked: Asked) -> int:
        """The same of what has not run yet."""
        return asked.demand.size * self.estimates.left_ms(asked, 0) // WHOLE

    def mature_at_ms(self, job: Job) -> int:
        """From when on the job's attempt may be preempted: its minimum run time, after each
        preemption within a day twice as long."""
        attempt = job.attempt
        assert attempt is not None
        since_ms = attempt.started_at_ms or attempt.granted_at_ms
        today = sum(since_ms - at_ms < DAY_MS for at_ms in job.preempted_at_ms)
        return since_ms + (self.settings.min_run_ms << min(today, MOST_DOUBLINGS))

    def expected_left_ms(self, job: Job, now_ms: int) -> int:
        """For how much longer a job will run, as likely as not, and at most to its time limit."""
        left_ms = self.estimates.median_left_ms(job, self.age_ms(job, now_ms))
        limit_ms = job.policy.max_runtime_ms
        if not limit_ms:
            return left_ms
        attempt = job.attempt
        started_ms = attempt.started_at_ms if attempt and not attempt.ended_at_ms else 0
        return min(left_ms, limit_ms - (now_ms - started_ms if started_ms else 0))

    def expected_end_ms(self, job: Job, now_ms: int) -> int:
        """When the attempt of a job is expected to have given its devices back."""
        attempt = job.attempt
        if attempt is None or attempt.stop is not None:
            return now_ms
        if attempt.ask is not None:
            return max(now_ms, attempt.ask.due_ms)
        return now_ms + max(0, self.expected_left_ms(job, now_ms))

    def leases_on(self, node_id: str) -> list[Lease]:
        """The node's live leases, by id."""
        return [self.leases[key] for key in sorted(self.leases_of_node.get(node_id, ()))]

    def idle(self, job: Job) -> int:
        """How many devices of a job's claim nobody holds."""
        known = self._idle.get(job.job_id)
        if known is None:
            known = self._idle[job.job_id] = sum(
                len(share.device_ids) - len({device for _, device in holding(self, share)})
                for share in (job.claim.shares if job.claim else ())
            )
        return known

    def attempt_leases(self, job: Job) -> list[Lease]:
        """The leases of the job's newest attempt, by node rank."""
        number = job.attempt.number if job.attempt else 0
        found = [self.leases[key] for key in self.leases_of_job.get(job.job_id, ())]
        return sorted((x for x in found if x.attempt == number), key=lambda x: x.node_rank)

    def leaving_milli(self, job: Job) -> int:
        """Thousandths of devices that the job holds and is giving up."""
        attempt = job.attempt
        if attempt is None or not (attempt.stop or attempt.makes_room_for):
            return 0
        held = map(self.leases.__getitem__, self.leases_of_job.get(job.job_id, ()))
        return sum(x.thousandths * len(x.device_ids) for x in held if not x.is_ended)

    def fence_after_ms(self, job: Job) -> int:
        """Silence after which an agent stops leases of the job by itself; 0 is never."""
        replaces = job.policy.on_unreachable is OnUnreachable.REPLACE
        return self.settings.fence_after_ms if replaces else 0

    def records(self) -> Iterator[Record]:
        """All durable records, by kind and id."""
        for table in (self.jobs, self.keys, self.leases, self.nodes, self.requests, self.queues):
            for id in sorted(table):
                yield table[id]
        for account in sorted(self.shares.usages):
            yield self.shares.usages[account]
        for kin in sorted(self.estimates.known):
            yield self.estimates.history(kin)
        if self.mix.demands:
            yield self.mix
        for drain_id in sorted(self.rolls.drains):
            yield self.rolls.drains[drain_id]
        for id in sorted(self.rulings):
            yield self.rulings[id]

    def digest(self) -> str:
        """Of the durable records; equal states have equal digests, in every process."""
        sum = hashlib.sha256()
        for record in self.records():
            sum.update(repr(record).encode())
        return sum.hexdigest()

    def free_room(
        self,
        node_id: str,
        *,
        without: Container[str] = (),
        unkept: str = "",
        planned: bool = False,
        anyway: bool = False,
        besides: Mapping[str, Share] | None = None,
    ) -> Room | None:
        """What the node could give to jobs now, computed from the records; None for nothing.

        `without` names leases that are taken to have ended, `unkept` a job for which nothing is taken
        to be set aside, `besides` what is for others as well; `planned` also takes a node that is to be
        out later, `anyway` takes any node for one that is healthy and takes jobs.
        """
        node = self.nodes.get(node_id)
        if node is None:
            return None
        health = node.health
        is_away = node.drain or node.unreachable_since_ms or self.doubt.bars(node_id)
        if node_id in self.planned and not (planned or anyway):
            return None
        if (is_away or health.node.is_out) and not anyway:
            return None
        held = map(self.leases.__getitem__, self.leases_of_node.get(node_id, ()))
        holding = [lease for lease in held if not lease.is_ended and lease.lease_id not in without]
        kept = {key: x for key, x in self.kept.get(node_id, {}).items() if key != unkept}
        kept.update(besides or ())
        free: dict[str, int] = {}  # thousandths of the devices of which something is taken
        for lease in holding:
            for device_id in lease.device_ids:
                free[device_id] = free.get(device_id, WHOLE) - lease.thousandths
        if any(self.jobs[job_id].demand.exclusive for job_id in kept):
            return None
        for share in kept.values():  # nobody else gets anything of a device that is set aside
            free.update(dict.fromkeys(share.device_ids, 0))
        out, suspects = health.out_devices(), health.suspect_devices()
        usable = [d for d in node.offer.devices if d.healthy or anyway]
        usable = [d for d in usable if d.device_id not in out or anyway]
        devices = [d for d in usable if free.get(d.device_id, WHOLE)]
        if not devices or any(lease.exclusive for lease in holding):
            return None
        taken = self._machine_taken(holding, kept)
        return Room(
            labels=node.offer.labels if holding or kept else (*node.offer.labels, IDLE),
            pools=pools_of(devices, free, last=suspects),
            cpu_count=node.offer.cpu_count - taken.cpu_count,
            memory_bytes=node.offer.memory_bytes - taken.memory_bytes,
            disk_bytes=node.offer.disk_bytes - taken.disk_bytes,
            is_suspect=health.node.is_suspect
            or any(device.device_id in suspects for device in devices),
        )

    def _machine_taken(self, holding: list[Lease], kept: dict[str, Share]) -> NodeShare:
        """What is taken of a machine beside its devices: by those who hold some now, or later by
        those who stay and those for whom devices are set aside, whichever is more."""
        later: list[Lease | NodeShare] = [self._kept_part(key, x) for key, x in kept.items()]
        if not later and not holding:
            return NOTHING
        if later:
            going = {device_id for share in kept.values() for device_id in share.device_ids}
            later += [lease for lease in holding if going.isdisjoint(lease.device_ids)]
        return NodeShare(
            cpu_count=max(sum(x.cpu_count for x in parts) for parts in (holding, later)),
            memory_bytes=max(sum(x.memory_bytes for x in parts) for parts in (holding, later)),
            disk_bytes=max(sum(x.disk_bytes for x in parts) for parts in (holding, later)),
        )

    def _kept_part(self, job_id: str, share: Share) -> NodeShare:
        demand = self.jobs[job_id].demand
        return node_share(demand, len(share.device_ids) // demand.devices_per_rank)


@lru_cache(maxsize=64)
def _by_default(name: str) -> Queue:
    return Queue(name=name)


def holding(known: Known, share: Share) -> Iterator[tuple[str, str]]:
    """(job, device) for whoever holds any of the share's devices."""
    for lease in known.leases_on(share.node_id):
        for device_id in () if lease.is_ended else lease.device_ids:
            if device_id in share.device_ids:
                yield lease.job_id, device_id


def lenders(known: Known) -> list[Job]:
    """The jobs of whose claims nobody holds some devices, in the order of their acceptance."""
    if known.lender_ids is None:
        found = (known.jobs[x] for held in known.claims.values() for x in held)
        idle = sorted(filter(known.idle, found), key=lambda job: job.sequence)
        known.lender_ids = [job.job_id for job in idle]
    return [known.jobs[x] for x in known.lender_ids]


def is_in_line(job: Job) -> bool:
    """Whether a job waits for nothing but limits and devices."""
    if job.status is JobStatus.PENDING:
        return job.reason == Reason.WAITING_FOR_QUOTA
    return job.status is JobStatus.QUEUED


def is_eligible(job: Job) -> bool:
    """Whether a job is among those to be placed."""
    return is_in_line(job) and not job.not_before_ms and not job.reserved


def is_moving(job: Job) -> bool:
    """Whether a job is to go on elsewhere, on devices that are set aside for it, once its attempt has
    given up those that it holds."""
    attempt = job.attempt
    runs = job.status in RUNNING and attempt is not None and bool(attempt.makes_room_for)
    return bool(job.room) and (runs or job.status is JobStatus.PREEMPTED)


def is_spared(state: Known, job: Job, *, now_ms: int) -> bool:
    """Whether its attempt was preempted often enough today, or nothing is won by it."""
    assert job.attempt is not None
    nodes = [state.nodes.get(share.node_id) for share in job.attempt.shares]
    if not any(
        node and not node.drain and not node.unreachable_since_ms and not node.health.node.is_out
        for node in nodes
    ):
        return True
    today = sum(now_ms - at_ms < DAY_MS for at_ms in job.preempted_at_ms)
    return today >= state.settings.max_preemptions_per_day


def is_doubted(state: Known, job: Job) -> bool:
    """Whether ranks of a job may run of which nobody here knows."""
    holders = state.doubt.holders(job.job_id)
    if not holders:
        return False
    return not all(state.fence_after_ms(job) and state.nodes[x].fenced_at_ms for x in holders)


def may_be_preempted(job: Job) -> bool:
    """Whether a job runs and nobody has asked for its end."""
    attempt = job.attempt
    runs = job.status in RUNNING and attempt is not None
    return runs and job.policy.preemptible and not (attempt and (attempt.stop or attempt.ask))


def is_told(job: Job) -> bool:
    """Whether a job is to be told what becomes of those that it depends on."""
    held = job.status is JobStatus.PAUSED and job.attempt is None
    return (job.status is JobStatus.PENDING and not is_in_line(job)) or held


def kept_for(job: Job) -> tuple[Share, ...]:
    """The devices that are set aside for a job."""
    return job.claim.shares if job.claim else job.reserved
