"""The records of the core: frozen values, replaced whole, and the only thing that a store keeps.

A record has a kind and an id, together unique. Durable state is exactly the set of live records, so
recovery is: load them, apply each. What a user submitted stays outside as an opaque document; the
records carry only what decisions need.

Rules of this file: values only, no behaviour beyond questions about one record. Desired fields are
written by the coordinator, observed ones by an agent's report; no field has two writers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from coordinator.core.enums import FINAL as FINAL
from coordinator.core.enums import WAITING as WAITING
from coordinator.core.enums import JobStatus as JobStatus
from coordinator.core.enums import LeaseAction as LeaseAction
from coordinator.core.enums import LeaseState as LeaseState
from coordinator.core.enums import OnHang as OnHang
from coordinator.core.enums import OnTimeout as OnTimeout
from coordinator.core.enums import OnUnreachable as OnUnreachable
from coordinator.core.enums import Order as Order
from coordinator.core.enums import StopCause as StopCause
from coordinator.core.kinds import Kind as Kind
from coordinator.core.kinds import Pairs as Pairs
from coordinator.core.machines import Device as Device
from coordinator.core.machines import Drain as Drain
from coordinator.core.machines import Node as Node
from coordinator.core.machines import Offer as Offer
from coordinator.core.machines import is_instance as is_instance
from coordinator.core.notes import Considered as Considered
from coordinator.core.notes import RollingDrain as RollingDrain
from coordinator.core.notes import Ruling as Ruling
from coordinator.core.times import Day, Loss, Spent, Times

ROOT = "root"  # the queue above all others
WHOLE = 1000  # thousandths of a device
# a label of what is free of a node that nobody uses; no node's own has an empty key
IDLE = "", "idle"
RUNS_CONTAINERS = "containers", "yes"  # label of nodes whose agent has a container engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a job needs of the cluster."""

    device_count: int
    thousandths: int = WHOLE  # of each device; less than WHOLE only with one device
    device_type: str = ""  # "" is any; several that are accepted stand between bars: "A100|H100"
    device_memory_bytes: int = 0  # least per device
    node_count: int = 0  # 0 is as few as fit; else an equal share on each
    world_size: int = 0  # ranks in all; 0 is one per device; divides device_count
    cpu_count: int = 0  # of the whole job
    memory_bytes: int = 0  # of the whole job
    disk_bytes: int = 0  # of the whole job
    node_selector: Pairs = ()
    within: str = (
        ""  # label of which all nodes carry the same value; "" is any, close together if it fits
    )
    exclusive: bool = False  # nobody else on its nodes

    @property
    def labels(self) -> Pairs:
        """Labels of rooms in which it may be placed."""
        return (*self.node_selector, IDLE) if self.exclusive else self.node_selector

    @property
    def device_types(self) -> tuple[str, ...]:
        """The types that are accepted, each once; () is any."""
        if "|" not in self.device_type:
            return (self.device_type,) if self.device_type else ()
        return tuple(dict.fromkeys(one for one in self.device_type.split("|") if one))

    @property
    def size(self) -> int:
        """What it takes of devices in all, in thousandths."""
        return self.device_count * self.thousandths

    @property
    def devices_per_rank(self) -> int:
        """Devices that one rank owns; they are always on one node."""
        return self.device_count // (self.world_size or self.device_count)

    def accepts(self, device_type: str) -> bool:
        """Whether it may have devices of a type.

        Of instances of a GPU a process can use one, so a rank gets one, and all of it.
        """
        types = self.device_types
        if types and device_type not in types:
            return False
        one_each = self.devices_per_rank == 1 and self.thousandths == WHOLE
        return one_each or not is_instance(device_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When and how a job may run, and what follows a failure."""

    max_retries: int = 0
    retry_on_exit_codes: tuple[int, ...] = ()
    retry_on: tuple[str, ...] = ()  # categories that cost no retry
    fail_on: tuple[str, ...] = ()  # categories after which it is not tried again
    preemptible: bool = True
    requeue_on_preemption: bool = True
    start_after_ms: int = 0
    deadline_ms: int = 0
    depends_on: tuple[str, ...] = ()
    expected_duration_ms: int = 0
    max_runtime_ms: int = 0  # 0 is no limit
    grace_ms: int = 120_000
    on_unreachable: OnUnreachable = OnUnreachable.KEEP
    on_hang: OnHang = OnHang.REPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of an attempt that runs on one node."""

    node_id: str
    device_ids: tuple[str, ...]
    device_type: str
    thousandths: int = WHOLE  # of each device


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Devices that are set aside for a waiting job, until they are free."""

    shares: tuple[Share, ...]
    from_ms: int  # when they are expected to be


@dataclass(frozen=True, slots=True, kw_only=True)
class Await:
    """Devices that are set aside for a waiting job on nodes that hold its data, though it fits elsewhere."""

    shares: tuple[Share, ...]  # () once it has waited
    until_ms: int  # then it waits for them no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A checkpoint that is asked of a running attempt, and the stop that follows once it is proven."""

    cause: StopCause
    due_ms: int  # 0 is never: it waits as long as it takes
    on_timeout: OnTimeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try to run a job; in node rank order."""

    number: int  # 1 for the first
    shares: tuple[Share, ...]
    granted_at_ms: int
    started_at_ms: int = 0  # every rank runs; 0 before
    ended_at_ms: int = 0  # every rank has ended; 0 before
    stop: StopCause | None = None  # why it is being stopped; None while it may run
    ask: Ask | None = None  # it is to be stopped, but for a checkpoint; None once it is stopped
    hold: bool = False  # wherever it would be queued again, it becomes PAUSED
    makes_room_for: str = ""  # the job for which it is preempted
    times: Times = Times()  # noqa: RUF009 - a tuple
    stopped_by: str = ""  # the job that takes its place, or the node whose fault its stop is
    lent_by: str = ""  # the job of whose claim it was lent devices
    silent_since_ms: int = 0  # it has not come further since then, which is too long; 0 is not


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong; category is a name of JobError.Category."""

    category: str
    message: str
    exit_code: int | None = None
    signal: int | None = None
    rank: int | None = None
    lines: tuple[str, ...] = ()  # the last that the rank printed, oldest first
    node_id: str = ""
    telemetry: bytes = b""  # what the node measured before, as bytes that the core never reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that an agent has proven."""

    checkpoint_id: str
    step: int
    uri: str
    size_bytes: int
    digest: str
    created_at_ms: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a user asked for; survives its attempts."""

    kind: ClassVar[Kind] = Kind.JOB

    job_id: str
    sequence: int  # order of acceptance; age
    lineage_id: str
    tenant_id: str
    user_id: str
    name: str
    labels: Pairs = ()
    parent_job_id: str = ""
    queue_name: str = "default"
    priority: int = 5
    aged: int = 0  # by how much its priority was raised because it had waited long
    demand: Demand
    policy: Policy
    wants: tuple[str, ...] = ()  # hashes of the data and the image that it names
    image: str = ""  # hash of the repository of its image; "" for none
    image_digest: str = ""  # what its image's name stood for when a node told it first
    status: JobStatus = JobStatus.PENDING
    reason: str = ""  # a name of reasons.Reason
    message: str = ""
    attempt: Attempt | None = None  # the newest
    failures_count: int = 0  # of the job's own making; held against max_retries
    hung_step: int = -1  # the highest proven when it was last ended for a hang; -1: never
    served_ms: int = 0  # progress of attempts that have ended, as far as it was kept
    work_ms: int = 0  # device-milliseconds expected to be left when it began to wait
    room: tuple[Share, ...] = ()  # set aside for it, while others are preempted to make room
    claim: Claim | None = None  # set aside for it, while it waits for others to end
    awaits: Await | None = (
        None  # set aside for it, while it waits for its data; None: it has not yet
    )
    preempted_at_ms: tuple[int, ...] = ()  # the newest times, oldest first; at most so many
    not_before_ms: int = 0  # a QUEUED job waits until then after a failure; 0 is no wait
    checkpoints: tuple[Checkpoint, ...] = ()  # that still exist, oldest first
    resume_checkpoint_id: str = ""  # a user's choice, until it led to a newer one; "" is the newest
    output_model_uri: str = ""
    failure: Failure | None = None  # of the newest attempt that failed
    spent: Spent = Spent()  # noqa: RUF009 - device-microseconds of its leases that are booked
    losses: tuple[Loss, ...] = ()  # of its attempts, oldest first; the newest
    created_at_ms: int = 0
    updated_at_ms: int = 0
    started_at_ms: int = 0
    completed_at_ms: int = 0
    version: int = 1

    @property
    def id(self) -> str:
        return self.job_id

    @property
    def standing(self) -> int:
        """Its priority, with what it was raised by: among those of a queue, and against who runs there."""
        return self.priority + self.aged

    @property
    def reserved(self) -> tuple[Share, ...]:
        """What is set aside for it, and counts as held, while it stands in no line."""
        return self.room or (self.awaits.shares if self.awaits else ())

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Named devices of one node, or a share of one, granted to one attempt, with an epoch."""

    kind: ClassVar[Kind] = Kind.LEASE

    lease_id: str  # <job_id>.<attempt>.<node_rank>
    epoch: int  # of the leader that granted it
    job_id: str
    attempt: int
    node_id: str
    device_ids: tuple[str, ...]
    thousandths: int = WHOLE  # of each device; what is less may share the device with others
    exclusive: bool = False  # nobody else is on the node
    cpu_count: int = 0  # this node's part
    memory_bytes: int = 0
    disk_bytes: int = 0
    node_rank: int = 0
    first_rank: int = 0
    local_world_size: int = 1
    granted_at_ms: int = 0
    # desired
    action: LeaseAction = LeaseAction.RUN
    grace_ms: int = 0
    fence_after_ms: int = 0  # silence after which its agent stops it by itself; 0 is never
    fenced_at_ms: int = 0  # when it was given up because its agent must have done so; 0 is not
    save: int = 0  # number of the checkpoint that is asked for; 0 for none yet
    # observed
    state: LeaseState = LeaseState.GRANTED
    saved: int = 0  # the highest `save` after which a checkpoint was proven
    done: bool = False
    failure: Failure | None = None
    output_model_uri: str = ""
    started_at_ms: int = 0
    ended_at_ms: int = 0
    # which report was taken last; what was sent before it proves nothing
    observed_generation: int = 0
    observed_sequence: int = 0
    days: tuple[Day, ...] = ()  # what its time was used for, once it is over

    @property
    def id(self) -> str:
        return self.lease_id

    @property
    def is_ended(self) -> bool:
        """Whether its agent has told that nothing of it is left; only then its devices are free."""
        return self.state is LeaseState.ENDED

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more, as its agent told or provably did by itself."""
        return self.is_ended or bool(self.fenced_at_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key, or the credential of a node's agent; only the digest of its secret is known."""

    kind: ClassVar[Kind] = Kind.KEY

    key_id: str
    sha256: str  # lower-case hexadecimal
    tenant_id: str
    user_id: str
    permissions: tuple[str, ...]  # names of the public enum Permission, sorted
    created_at_ms: int
    expires_at_ms: int = 0  # 0 is never
    revoked_at_ms: int = 0  # 0 is not
    node_id: str = ""  # the node whose agent presents it; "" for an API key

    @property
    def id(self) -> str:
        return self.key_id


def node_key_id(node_id: str) -> str:
    """The id of a node's credential; API keys have other ids."""
    return f"node:{node_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one job of several: its id and status, and why it was refused."""

    job_id: str = ""
    status: str = ""
    reason: str = ""  # a name of reasons.Reason; "" where it was accepted
    message: str = ""
    field: str = ""  # of the request, where one is at fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that was answered; the same one again gets the same answer."""

    kind: ClassVar[Kind] = Kind.REQUEST

    tenant_id: str
    request_id: str
    digest: str  # of method and body
    expires_at_ms: int
    job: Job | None = None  # the answer, as the record was then
    node: Node | None = None
    queue: Queue | None = None
    rolling: RollingDrain | None = None
    outcomes: tuple[Outcome, ...] = ()
    key: Key | None = None
    salt: str = ""  # what the key's secret can be made from again, by who has the installation's

    @property
    def id(self) -> str:
        return f"{self.tenant_id}/{self.request_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """What jobs have asked for lately, the older the less it weighs; there is one. See mix.py."""

    kind: ClassVar[Kind] = Kind.MIX

    through_sequence: int = 0  # jobs up to this one are in it
    demands: tuple[tuple[Demand, int], ...] = ()  # with their weights
    due_count: int = 16  # it is written anew once so many jobs are not in it

    @property
    def id(self) -> str:
        return "mix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """What was submitted as some jobs, as bytes that the core never reads; not kept in memory."""

    kind: ClassVar[Kind] = Kind.DOCUMENT

    bodies: tuple[tuple[str, bytes], ...]  # by job; there is one

    @property
    def id(self) -> str:
        return self.bodies[0][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """How the jobs of one queue are ordered, and what they may take; written by an admin.

    Queues are a tree below ROOT. What is below a queue counts as the queue's own.
    """

    kind: ClassVar[Kind] = Kind.QUEUE

    name: str
    parent: str = ROOT
    weight: int = 1  # in a parent that is FAIR: its part, beside those of the others
    # while it holds less it goes before those of its parent that have theirs, and takes back from
    # those that hold more than theirs
    guaranteed_devices: int = 0
    max_devices: int = 0  # it may hold at once; 0 is no limit
    tenant_limits: tuple[tuple[str, int], ...] = ()  # devices by tenant; "*" is each other one
    accepts: bool = True  # whether new jobs may come
    places: bool = True  # whether jobs that wait may start
    order: Order = Order.PRIORITY_FIFO
    preempts: bool = False  # whether jobs take the devices of running ones whose turn is later
    # in SHORTEST: a job that has waited for t stands where one with t times this much less to do
    # stands, in thousandths of a device
    aging_permille: int = 20
    updated_at_ms: int = 0
    version: int = 1

    @property
    def id(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a queue or a user has held of the cluster: a share now, and its decayed average until then.

    Shares are of the resource of which most is held, in parts of 10^9 of what there is in all.
    """

    kind: ClassVar[Kind] = Kind.USAGE

    account: str
    share_ppb: int
    average_ppb: int
    updated_at_ms: int = 0

    @property
    def id(self) -> str:
        return self.account


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a lease that has ended was used for; written once, and not kept in memory."""

    kind: ClassVar[Kind] = Kind.ENTRY

    lease_id: str
    job_id: str
    tenant_id: str
    user_id: str
    queue_name: str
    node_id: str
    milli: int  # thousandths of devices
    days: tuple[Day, ...]
    cause: str = ""  # of what was redone: a StopCause
    cause_id: str = ""
    is_foreign: bool = False  # whether that is a job of another tenant
    booked_at_ms: int = 0

    @property
    def id(self) -> str:
        return self.lease_id


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """How long jobs of one kin have run: per step of running time, how many reached it, and ended in it.

    Steps are those of `estimate.BOUNDS_MS`; a tuple may be shorter than they are many.
    """

    kind: ClassVar[Kind] = Kind.HISTORY

    kin: str
    reached: tuple[int, ...] = ()
    ended: tuple[int, ...] = ()
    updated_at_ms: int = 0

    @property
    def id(self) -> str:
        return self.kin


Record = (
    Job
    | Lease
    | Node
    | Key
    | Request
    | Documents
    | Queue
    | Usage
    | History
    | Mix
    | RollingDrain
    | Ruling
    | Entry
)
