"""Every reason that the coordinator gives, with what a border makes of it.

One enum for refusals, for why a thing has its status and for why a record changed; one table with the
gRPC code (by name: the core knows no gRPC), whether asking again may help, and the line of
docs/errors.md. A reason without a row is a fault that a test finds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Names of reasons; they are part of the public API and never change their meaning."""

    # refusals
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    NODE_NOT_FOUND = "NODE_NOT_FOUND"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    NODE_NAME_TAKEN = "NODE_NAME_TAKEN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NEVER_FITS = "NEVER_FITS"
    DEPENDENCY_NOT_FOUND = "DEPENDENCY_NOT_FOUND"
    WRONG_STATUS = "WRONG_STATUS"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    BATCH_REFUSED = "BATCH_REFUSED"
    QUEUE_FULL = "QUEUE_FULL"
    NOT_LEADER = "NOT_LEADER"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    AUTH_TOKEN_MISSING = "AUTH_TOKEN_MISSING"
    AUTH_TOKEN_INVALID = "AUTH_TOKEN_INVALID"
    AUTHZ_PERMISSION_DENIED = "AUTHZ_PERMISSION_DENIED"
    IDENTITY_PROVIDER_UNAVAILABLE = "IDENTITY_PROVIDER_UNAVAILABLE"
    STREAM_ENDED = "STREAM_ENDED"
    # why a job is where it is
    ACCEPTED = "ACCEPTED"
    WAITING_FOR_DEPENDENCIES = "WAITING_FOR_DEPENDENCIES"
    WAITING_FOR_START_TIME = "WAITING_FOR_START_TIME"
    WAITING_FOR_QUOTA = "WAITING_FOR_QUOTA"
    WAITING_FOR_CAPACITY = "WAITING_FOR_CAPACITY"
    PLACED = "PLACED"
    AGENTS_ACCEPTED = "AGENTS_ACCEPTED"
    RANKS_STARTED = "RANKS_STARTED"
    CHECKPOINT_BEGUN = "CHECKPOINT_BEGUN"
    CHECKPOINT_ENDED = "CHECKPOINT_ENDED"
    CHECKPOINT_ASKED = "CHECKPOINT_ASKED"
    PAUSED_BY_USER = "PAUSED_BY_USER"
    HANGS = "HANGS"
    COMES_ON = "COMES_ON"
    IMAGE_PINNED = "IMAGE_PINNED"
    PAUSE_WITHDRAWN = "PAUSE_WITHDRAWN"
    PAUSE_GIVEN_UP = "PAUSE_GIVEN_UP"
    MOVE_GIVEN_UP = "MOVE_GIVEN_UP"
    DRAIN_WITHDRAWN = "DRAIN_WITHDRAWN"
    PREEMPTION_WITHDRAWN = "PREEMPTION_WITHDRAWN"
    DRAIN_ENDED = "DRAIN_ENDED"
    DRAIN_NOT_FOUND = "DRAIN_NOT_FOUND"
    RULED = "RULED"
    RESUMED = "RESUMED"
    AGED = "AGED"
    CHANGED_BY_USER = "CHANGED_BY_USER"
    PREEMPTED = "PREEMPTED"
    REQUEUED = "REQUEUED"
    ROOM_SET_ASIDE = "ROOM_SET_ASIDE"
    ROOM_LOST = "ROOM_LOST"
    ROOM_CLAIMED = "ROOM_CLAIMED"
    CLAIM_LOST = "CLAIM_LOST"
    DATA_AWAITED = "DATA_AWAITED"
    FINISHED = "FINISHED"
    CANCELLED_BY_USER = "CANCELLED_BY_USER"
    DEPENDENCY_FAILED = "DEPENDENCY_FAILED"
    RANK_FAILED = "RANK_FAILED"
    RETRYING = "RETRYING"
    NODE_LOST = "NODE_LOST"
    NODE_DRAINED = "NODE_DRAINED"
    TIME_LIMIT = "TIME_LIMIT"
    # why a lease or a node changed
    LEASE_GRANTED = "LEASE_GRANTED"
    LEASE_OBSERVED = "LEASE_OBSERVED"
    LEASE_STOP_ASKED = "LEASE_STOP_ASKED"
    LEASE_ENDED = "LEASE_ENDED"
    NODE_JOINED = "NODE_JOINED"
    NODE_CHANGED = "NODE_CHANGED"
    NODE_UNREACHABLE = "NODE_UNREACHABLE"
    NODE_BACK = "NODE_BACK"
    NODE_FENCED = "NODE_FENCED"
    NODE_REMOVED = "NODE_REMOVED"
    DRAIN_REQUESTED = "DRAIN_REQUESTED"
    NODE_ENABLED = "NODE_ENABLED"
    WINDOW_PLANNED = "WINDOW_PLANNED"
    FAULT_SEEN = "FAULT_SEEN"
    JOB_FAILED_THERE = "JOB_FAILED_THERE"
    HEALTH_RECOVERS = "HEALTH_RECOVERS"
    CANARY_ASKED = "CANARY_ASKED"
    CANARY_ANSWERED = "CANARY_ANSWERED"
    HEALTH_SET = "HEALTH_SET"
    RETRY_REFUNDED = "RETRY_REFUNDED"
    # what keeps a job from starting, and what a node says to it
    JOBS_AHEAD = "JOBS_AHEAD"
    DEVICES_BUSY = "DEVICES_BUSY"
    DEVICES_CLAIMED = "DEVICES_CLAIMED"
    DEVICES_SCATTERED = "DEVICES_SCATTERED"
    DEVICES_AWAY = "DEVICES_AWAY"
    DEVICES_TOO_FEW = "DEVICES_TOO_FEW"
    DEVICES_UNHEALTHY = "DEVICES_UNHEALTHY"
    DEVICES_QUARANTINED = "DEVICES_QUARANTINED"
    NODE_QUARANTINED = "NODE_QUARANTINED"
    DEVICE_TYPE_MISSING = "DEVICE_TYPE_MISSING"
    LABELS_MISSING = "LABELS_MISSING"
    MACHINE_BUSY = "MACHINE_BUSY"
    # the rest
    REPLACEMENT_FROZEN = "REPLACEMENT_FROZEN"
    LEASES_UNKNOWN = "LEASES_UNKNOWN"
    NODES_AWAITED = "NODES_AWAITED"
    REMEMBERED = "REMEMBERED"
    KEY_CHANGED = "KEY_CHANGED"
    QUEUE_CHANGED = "QUEUE_CHANGED"
    QUEUE_REFUSED = "QUEUE_REFUSED"
    QUEUE_NOT_FOUND = "QUEUE_NOT_FOUND"
    QUEUE_CLOSED = "QUEUE_CLOSED"
    QUEUE_CORDONED = "QUEUE_CORDONED"
    QUEUE_LIMIT = "QUEUE_LIMIT"
    TENANT_LIMIT = "TENANT_LIMIT"
    LEARNT = "LEARNT"
    DEMANDS_LEARNT = "DEMANDS_LEARNT"
    SHARE_NOTED = "SHARE_NOTED"
    BOOKED = "BOOKED"


class Row(NamedTuple):
    """What a border makes of a reason; `code` is "" where it is never a refusal."""

    code: str
    retryable: bool
    doc: str


TABLE: dict[Reason, Row] = {
    Reason.JOB_NOT_FOUND: Row("NOT_FOUND", False, "No such job in your tenant."),
    Reason.NODE_NOT_FOUND: Row("NOT_FOUND", False, "No such node."),
    Reason.KEY_NOT_FOUND: Row("NOT_FOUND", False, "No such key."),
    Reason.NODE_NAME_TAKEN: Row(
        "ALREADY_EXISTS",
        False,
        "The node's name has another credential; an admin may remove the node, or it takes another name.",
    ),
    Reason.INVALID_ARGUMENT: Row(
        "INVALID_ARGUMENT", False, "A field is wrong; the details name it."
    ),
    Reason.NEVER_FITS: Row(
        "INVALID_ARGUMENT",
        False,
        "No set of known nodes could ever run it; the message says what would fit.",
    ),
    Reason.DEPENDENCY_NOT_FOUND: Row("INVALID_ARGUMENT", False, "depends_on names an unknown job."),
    Reason.WRONG_STATUS: Row(
        "FAILED_PRECONDITION",
        False,
        "The thing's status does not allow this; the message names it.",
    ),
    Reason.REQUEST_ID_REUSED: Row(
        "ALREADY_EXISTS", False, "The request id was used for another request in the last 24 hours."
    ),
    Reason.BATCH_REFUSED: Row(
        "ABORTED", False, "Another job of the same atomic batch was refused; none was accepted."
    ),
    Reason.QUEUE_NOT_FOUND: Row("NOT_FOUND", False, "No queue of this name was set."),
    Reason.QUEUE_REFUSED: Row(
        "FAILED_PRECONDITION", False, "The queue cannot be so; the message says why."
    ),
    Reason.QUEUE_CLOSED: Row(
        "FAILED_PRECONDITION", True, "The queue takes no jobs at present; use another, or wait."
    ),
    Reason.QUEUE_CORDONED: Row("", False, "An admin keeps the queue from starting jobs."),
    Reason.QUEUE_LIMIT: Row("", False, "Its queue holds as many devices as it may."),
    Reason.TENANT_LIMIT: Row("", False, "Its tenant holds as many devices as it may in the queue."),
    Reason.QUEUE_FULL: Row("RESOURCE_EXHAUSTED", True, "Too many jobs wait; try again later."),
    Reason.NOT_LEADER: Row(
        "UNAVAILABLE", True, "This coordinator does not lead; another one does."
    ),
    Reason.STORE_UNAVAILABLE: Row(
        "UNAVAILABLE", True, "The store does not answer; nothing was accepted."
    ),
    Reason.OVERLOADED: Row(
        "RESOURCE_EXHAUSTED", True, "Too many requests at once; nothing was accepted."
    ),
    Reason.UNIMPLEMENTED: Row("UNIMPLEMENTED", False, "This version cannot do that yet."),
    Reason.INTERNAL: Row("INTERNAL", False, "A fault of the coordinator; quote the request id."),
    Reason.AUTH_TOKEN_MISSING: Row("UNAUTHENTICATED", False, "No credential was sent."),
    Reason.AUTH_TOKEN_INVALID: Row(
        "UNAUTHENTICATED", False, "The credential is unknown, expired or revoked."
    ),
    Reason.AUTHZ_PERMISSION_DENIED: Row(
        "PERMISSION_DENIED", False, "The credential lacks the permission; the message names it."
    ),
    Reason.IDENTITY_PROVIDER_UNAVAILABLE: Row(
        "UNAVAILABLE",
        True,
        "Tokens cannot be checked at the moment: their provider's keys are away.",
    ),
    Reason.STREAM_ENDED: Row(
        "OUT_OF_RANGE", False, "The stream had ended with the event after which it was asked for."
    ),
    Reason.ACCEPTED: Row("", False, "The job was accepted."),
    Reason.WAITING_FOR_DEPENDENCIES: Row("", False, "Jobs that it depends on are not COMPLETED."),
    Reason.WAITING_FOR_START_TIME: Row("", False, "start_after is not reached."),
    Reason.WAITING_FOR_QUOTA: Row(
        "", False, "It waits until the limits of its queue and tenant let it; explain names them."
    ),
    Reason.WAITING_FOR_CAPACITY: Row(
        "", False, "It waits for its turn and for devices that fit; explain tells why."
    ),
    Reason.PLACED: Row("", False, "Devices were found for the whole gang."),
    Reason.AGENTS_ACCEPTED: Row("", False, "Every agent has accepted its lease."),
    Reason.RANKS_STARTED: Row("", False, "Every rank has started."),
    Reason.CHECKPOINT_BEGUN: Row("", False, "A checkpoint is being written or proven."),
    Reason.CHECKPOINT_ENDED: Row("", False, "The checkpoint is proven, or was given up."),
    Reason.CHECKPOINT_ASKED: Row(
        "", False, "It is to be stopped, and a checkpoint is asked for first."
    ),
    Reason.PAUSED_BY_USER: Row("", False, "A user paused it; it holds no devices."),
    Reason.HANGS: Row(
        "", False, "It has reported no progress for much longer than it should take."
    ),
    Reason.COMES_ON: Row("", False, "It reports progress again."),
    Reason.IMAGE_PINNED: Row("", False, "A node told what its image is; that stays."),
    Reason.PAUSE_WITHDRAWN: Row("", False, "It was resumed before the pause had stopped it."),
    Reason.PAUSE_GIVEN_UP: Row(
        "", False, "No checkpoint was proven in time, and the pause was to be given up then."
    ),
    Reason.MOVE_GIVEN_UP: Row(
        "",
        False,
        "No checkpoint was proven in time, so it stays where it is and was not moved for another.",
    ),
    Reason.DRAIN_NOT_FOUND: Row("NOT_FOUND", False, "No such rolling drain."),
    Reason.DRAIN_ENDED: Row("", False, "A rolling drain takes no more nodes."),
    Reason.RULED: Row("", False, "Why somebody was preempted is kept."),
    Reason.DRAIN_WITHDRAWN: Row(
        "", False, "It need not leave its node any more: the drain was taken back."
    ),
    Reason.PREEMPTION_WITHDRAWN: Row(
        "", False, "The job that was to have its devices was cancelled or paused, so it goes on."
    ),
    Reason.RESUMED: Row("", False, "A user resumed it; it waits for devices."),
    Reason.AGED: Row(
        "",
        False,
        "It waited for long behind jobs of a higher priority, and stands one higher from then on.",
    ),
    Reason.CHANGED_BY_USER: Row(
        "", False, "A user changed its priority, queue, time limit or expected duration."
    ),
    Reason.PREEMPTED: Row(
        "", False, "Its devices were taken for a job whose turn is before its own."
    ),
    Reason.REQUEUED: Row("", False, "It was preempted and waits for devices again."),
    Reason.ROOM_SET_ASIDE: Row(
        "",
        False,
        "Others are being preempted to make room for it; devices are set aside meanwhile.",
    ),
    Reason.ROOM_LOST: Row(
        "",
        False,
        "What was set aside for it went out of use before it was free, or was waited for long enough, or who "
        "was to be moved for it stays; it waits again.",
    ),
    Reason.ROOM_CLAIMED: Row(
        "", False, "It is next in line: devices are set aside for it until all of them are free."
    ),
    Reason.CLAIM_LOST: Row(
        "", False, "What was set aside for it went to another or out of use; it waits as before."
    ),
    Reason.DATA_AWAITED: Row(
        "",
        False,
        "It waits for a node that holds its data and is soon free: to fetch them elsewhere takes longer.",
    ),
    Reason.FINISHED: Row("", False, "Every rank ended well."),
    Reason.CANCELLED_BY_USER: Row("", False, "A user cancelled it."),
    Reason.DEPENDENCY_FAILED: Row("", False, "A job that it depends on failed or was cancelled."),
    Reason.RANK_FAILED: Row("", False, "A rank failed."),
    Reason.RETRYING: Row("", False, "It failed and is tried again."),
    Reason.NODE_LOST: Row(
        "", False, "A node lost the attempt; that never counts against max_retries."
    ),
    Reason.NODE_DRAINED: Row(
        "", False, "A node was drained; that never counts against max_retries."
    ),
    Reason.TIME_LIMIT: Row("", False, "max_runtime_seconds passed."),
    Reason.LEASE_GRANTED: Row("", False, "Devices were granted to an attempt."),
    Reason.LEASE_OBSERVED: Row("", False, "The agent reported progress of a lease."),
    Reason.LEASE_STOP_ASKED: Row("", False, "The agent is asked to stop a lease."),
    Reason.LEASE_ENDED: Row("", False, "Nothing of the lease is left on its node."),
    Reason.NODE_JOINED: Row("", False, "The node was heard for the first time."),
    Reason.NODE_CHANGED: Row("", False, "The node's offer or agent changed."),
    Reason.NODE_UNREACHABLE: Row(
        "", False, "The node is out of contact; its jobs are taken to go on."
    ),
    Reason.NODE_BACK: Row("", False, "The node is in contact again."),
    Reason.NODE_FENCED: Row(
        "",
        False,
        "The node was silent for so long that its agent has stopped what may run elsewhere.",
    ),
    Reason.NODE_REMOVED: Row("", False, "An admin removed the node: it will never come back."),
    Reason.REPLACEMENT_FROZEN: Row(
        "",
        False,
        "So many nodes went silent at once that none is given up; remove those that are gone.",
    ),
    Reason.LEASES_UNKNOWN: Row(
        "", False, "A node holds leases that nobody knows; its agent stops them."
    ),
    Reason.NODES_AWAITED: Row(
        "", False, "Nothing is placed on a restored state before its nodes were heard."
    ),
    Reason.DRAIN_REQUESTED: Row("", False, "An admin drains the node."),
    Reason.WINDOW_PLANNED: Row(
        "", False, "The node is to be out for maintenance; it takes who is over by then."
    ),
    Reason.NODE_ENABLED: Row("", False, "An admin let the node take jobs again."),
    Reason.FAULT_SEEN: Row("", False, "An agent has seen a fault of its node or a device."),
    Reason.JOB_FAILED_THERE: Row(
        "", False, "A job failed on the node; several users' failures together speak against it."
    ),
    Reason.HEALTH_RECOVERS: Row(
        "", False, "Time has passed: what was seen of a node fades, or its rest is over."
    ),
    Reason.CANARY_ASKED: Row("", False, "Devices that were out are tried before they return."),
    Reason.CANARY_ANSWERED: Row("", False, "The canary has ended; who passed takes jobs again."),
    Reason.HEALTH_SET: Row("", False, "An admin said how far a node or a device is trusted."),
    Reason.RETRY_REFUNDED: Row(
        "", False, "A failure of the job was its node's fault, and costs it no retry."
    ),
    Reason.JOBS_AHEAD: Row("", False, "Others before it in line could use the same devices."),
    Reason.DEVICES_BUSY: Row("", False, "Fewer fitting devices are free than are needed."),
    Reason.DEVICES_CLAIMED: Row(
        "", False, "Devices that could hold it are set aside for a job that is next in line."
    ),
    Reason.DEVICES_SCATTERED: Row(
        "", False, "Enough fitting devices are free, but not where the gang would fit."
    ),
    Reason.DEVICES_AWAY: Row(
        "", False, "It would fit with nodes that are drained, out of contact or unhealthy."
    ),
    Reason.DEVICES_TOO_FEW: Row("", False, "The node has too few fitting devices."),
    Reason.DEVICES_UNHEALTHY: Row("", False, "Too many of the node's devices are unhealthy."),
    Reason.DEVICES_QUARANTINED: Row(
        "", False, "Too many of the node's devices are kept out for their faults."
    ),
    Reason.NODE_QUARANTINED: Row(
        "", False, "Nodes or devices that could hold it are kept out for their faults."
    ),
    Reason.DEVICE_TYPE_MISSING: Row("", False, "The node has no device of the type."),
    Reason.LABELS_MISSING: Row("", False, "The node does not carry a label that is asked for."),
    Reason.MACHINE_BUSY: Row("", False, "The node's CPU, memory or disk are in use."),
    Reason.REMEMBERED: Row("", False, "The answer to a request id is kept for 24 hours."),
    Reason.KEY_CHANGED: Row("", False, "A key was made or revoked."),
    Reason.QUEUE_CHANGED: Row(
        "", False, "An admin set how a queue is ordered and what it may take."
    ),
    Reason.SHARE_NOTED: Row("", False, "What a queue or a user holds of the cluster has changed."),
    Reason.BOOKED: Row("", False, "What a lease was used for was added to its job's sum."),
    Reason.LEARNT: Row("", False, "How long a job ran was added to what is known of its kin."),
    Reason.DEMANDS_LEARNT: Row("", False, "What jobs ask for was counted anew; places follow it."),
}
