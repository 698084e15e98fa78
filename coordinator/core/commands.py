"""What goes into the core: wishes of users and admins, reports of agents, the passing of time.

Ids, the caller and every choice that is not a function of the state come inside the command.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.core.health import HealthState
from coordinator.core.records import (
    Checkpoint,
    Demand,
    Failure,
    Job,
    Key,
    LeaseState,
    Offer,
    OnTimeout,
    Pairs,
    Policy,
    Queue,
    RollingDrain,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks. `request_id` "" means that the call need not be remembered."""

    tenant_id: str
    user_id: str
    request_id: str = ""
    digest: str = ""  # of method and body; compared when request_id comes again


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitJob:
    """Accept a job. Shape was checked before; the core judges what depends on its state."""

    caller: Caller
    job_id: str
    name: str
    demand: Demand
    policy: Policy
    document: bytes
    labels: Pairs = ()
    priority: int = 5
    queue_name: str = "default"
    validate_only: bool = False
    parent_job_id: str = ""  # whose model it evaluates; a lineage of its own all the same
    wants: tuple[str, ...] = ()  # hashes of the data and the image that it names
    image: str = ""  # hash of the repository of its image; "" for none
    # (job id, status) of those of policy.depends_on that the store knows as this tenant's history
    finished_dependencies: Pairs = ()

    @property
    def tenant_id(self) -> str:
        """Whose job it is to be."""
        return self.caller.tenant_id

    @property
    def user_id(self) -> str:
        """Who submits it."""
        return self.caller.user_id


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitJobs:
    """Accept many jobs in one decision. What each of them names as its caller's request id is its own.

    The reply has one outcome for each, in order. With `atomic` either all are accepted or none.
    """

    caller: Caller
    jobs: tuple[SubmitJob, ...]
    atomic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelJob:
    """Cancel a job that is not final."""

    caller: Caller
    job_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseJob:
    """Hold a job that waits; stop one that runs, after a checkpoint where one is wanted."""

    caller: Caller
    job_id: str
    save_checkpoint: bool = True
    timeout_ms: int = 0  # for the checkpoint to be proven; 0 is the job's grace_ms
    on_timeout: OnTimeout = OnTimeout.KEEP_RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeJob:
    """Let a paused job run again under its id; a pause that has not stopped it yet is withdrawn."""

    caller: Caller
    job_id: str
    checkpoint_id: str = ""  # "" is the newest


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryJob:
    """Run a failed or preempted job again, as a child of its own id; the original stays as it is."""

    caller: Caller
    job_id: str
    new_job_id: str
    document: bytes  # of the child
    demand: Demand | None = None  # None is the original's
    policy: Policy | None = None  # None is the original's; it waits for nothing in any case
    checkpoint_id: str = ""  # "" is the newest of the original
    keeps_image: bool = True  # whether the child names the same image
    validate_only: bool = False
    parent: Job | None = None  # the original as the store knows it, where it is history


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateJob:
    """Change what a live job was submitted with, where None is not given; the rest stays."""

    caller: Caller
    job_id: str
    priority: int | None = None
    queue_name: str | None = None
    max_runtime_ms: int | None = None  # 0 is no limit
    expected_duration_ms: int | None = None  # 0 is not known
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ActOnJobs:
    """Do one thing to each of many jobs, in one decision. The callers of `acts` need no request id.

    The reply has one outcome for each, in order.
    """

    caller: Caller
    acts: tuple[CancelJob | PauseJob | ResumeJob | UpdateJob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreemptJob:
    """Take a running job's devices for another one, after a checkpoint; costs it no retry."""

    caller: Caller
    job_id: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainNode:
    """Stop placing on a node; with force, or past the deadline, stop what runs there.

    With `move` what runs there leaves as soon as nothing is lost by it.
    """

    caller: Caller
    node_id: str
    force: bool = False
    move: bool = False
    reason: str = ""
    deadline_ms: int = 0  # absolute; 0 is none
    from_ms: int = 0  # absolute; 0 is now
    until_ms: int = 0  # absolute; the node is enabled then; 0 is never
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableNode:
    """Let a drained node take jobs again."""

    caller: Caller
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRollingDrain:
    """Drain the nodes that carry some labels, a few at a time."""

    caller: Caller
    drain: RollingDrain
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRollingDrain:
    """Take no more nodes; those that are out stay drained."""

    caller: Caller
    drain_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHealth:
    """Say how far a node, or one of its devices, is trusted: HEALTHY, PROBATION or QUARANTINED."""

    caller: Caller
    node_id: str
    state: HealthState
    device_id: str = ""  # "" is the node
    reason: str = ""
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNode:
    """Forget a node that will never come back; the caller vouches that nothing runs there."""

    caller: Caller
    node_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinNode:
    """Keep the digest of a node's credential, unless the name has another one."""

    node_id: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedLease:
    """A lease as its agent sees it. `failure` is of the first failing rank."""

    lease_id: str
    epoch: int
    state: LeaseState
    done: bool = False
    stopped: bool = False  # a rank was asked to stop before it ended
    failure: Failure | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    checkpointing: bool = False
    saved: int = 0  # the highest asked-for save after which a checkpoint was proven
    image_digest: str = ""  # what its image's name stands for there; "" is not known
    retired: tuple[str, ...] = ()  # ids of checkpoints of earlier attempts that are kept no more
    silent_since_ms: int = 0  # it has not come further since then, which is too long; 0 is not
    telemetry: bytes = (
        b""  # with it: what its devices measured before, as bytes that the core never reads
    )
    output_model_uri: str = ""
    started_at_ms: int = 0
    ended_at_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCanary:
    """What became of a canary: why it failed, by device, or by "" where the node as a whole did."""

    number: int
    failed: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncNode:
    """An agent's whole report. A late one (older generation or sequence) changes nothing."""

    node_id: str
    incarnation: str
    generation: int
    sequence: int
    offer: Offer
    leases: tuple[ObservedLease, ...] = ()
    canary: ObservedCanary | None = None  # once it has ended, and as long as it is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class PutKey:
    """Keep an API key, new or changed. `salt` is remembered with the answer, and no longer."""

    caller: Caller
    key: Key
    salt: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """Was this request answered before? Asked where judging it anew could say otherwise."""

    caller: Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class PutQueue:
    """Set how a queue is ordered and what it may take, new or changed."""

    caller: Caller
    queue: Queue
    validate_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveQueue:
    """Let a queue be as by default again."""

    caller: Caller
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: look at deadlines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renew:
    """The coordinator was held up and may have heard nobody: every silence begins anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """The state was loaded by a leader of this epoch: absence so far proves nothing."""

    epoch: int


Command = (
    SubmitJob
    | SubmitJobs
    | CancelJob
    | PauseJob
    | ResumeJob
    | RetryJob
    | UpdateJob
    | ActOnJobs
    | PreemptJob
    | DrainNode
    | EnableNode
    | StartRollingDrain
    | CancelRollingDrain
    | SetHealth
    | RemoveNode
    | JoinNode
    | SyncNode
    | PutKey
    | PutQueue
    | Recall
    | RemoveQueue
    | Tick
    | Renew
    | Recover
)
