"""The transitions of jobs, leases and nodes. A pair that is missing here is an error.

Rules of this file: everything that decides whether a change of status is legal is in these tables, and
nothing else is in this file. docs/states.md is drawn from them.

- A job moves by a cause: (status, cause) gives the next status. What is not a move (a stop that was
  asked for, a new checkpoint) changes the record and keeps the status.
- A lease's state is observed, so it may skip what happened between two reports, but never goes back:
  a report that would take it back is late and changes nothing.
- A node is described by two independent facts, contact and duty; each has a table. How far it and each
  of its devices is trusted is a third: a cause may take a grade to one of several states, by its points.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from coordinator.core.health import HealthState
from coordinator.core.invariants import InvariantViolation
from coordinator.core.reasons import Reason
from coordinator.core.records import FINAL, JobStatus, LeaseState, Node

_S = JobStatus
_R = Reason

RUNNING = (_S.SCHEDULING, _S.PREPARING, _S.TRAINING, _S.CHECKPOINTING)
"""Statuses in which an attempt holds devices and may still decide what becomes of the job."""


def _from_each(
    statuses: Iterable[JobStatus], cause: Reason, *, to: JobStatus
) -> dict[tuple[JobStatus, Reason], JobStatus]:
    return {(status, cause): to for status in statuses}


BORN = (_S.PENDING, _S.QUEUED)
ASIDE = (_S.PAUSED, _S.PREEMPTED)
"""Statuses in which a job holds nothing and waits for a user."""

JOB: Mapping[tuple[JobStatus, Reason], JobStatus] = {
    (_S.PENDING, _R.WAITING_FOR_CAPACITY): _S.QUEUED,
    (_S.PENDING, _R.DEPENDENCY_FAILED): _S.FAILED,
    (_S.QUEUED, _R.PLACED): _S.SCHEDULING,
    (_S.SCHEDULING, _R.AGENTS_ACCEPTED): _S.PREPARING,
    (_S.PREPARING, _R.RANKS_STARTED): _S.TRAINING,
    (_S.TRAINING, _R.CHECKPOINT_BEGUN): _S.CHECKPOINTING,
    (_S.CHECKPOINTING, _R.CHECKPOINT_ENDED): _S.TRAINING,
    (_S.TRAINING, _R.CHECKPOINT_ASKED): _S.CHECKPOINTING,
    (_S.CHECKPOINTING, _R.PAUSE_WITHDRAWN): _S.TRAINING,
    (_S.CHECKPOINTING, _R.PAUSE_GIVEN_UP): _S.TRAINING,
    (_S.CHECKPOINTING, _R.MOVE_GIVEN_UP): _S.TRAINING,
    (_S.CHECKPOINTING, _R.DRAIN_WITHDRAWN): _S.TRAINING,
    (_S.CHECKPOINTING, _R.PREEMPTION_WITHDRAWN): _S.TRAINING,
    (_S.TRAINING, _R.FINISHED): _S.COMPLETED,
    **_from_each(RUNNING, _R.RETRYING, to=_S.QUEUED),
    **_from_each(RUNNING, _R.NODE_LOST, to=_S.QUEUED),
    **_from_each(RUNNING, _R.NODE_DRAINED, to=_S.QUEUED),
    **_from_each(RUNNING, _R.RANK_FAILED, to=_S.FAILED),
    **_from_each((_S.TRAINING, _S.CHECKPOINTING), _R.TIME_LIMIT, to=_S.FAILED),
    **_from_each(RUNNING, _R.PREEMPTED, to=_S.PREEMPTED),
    (_S.PREEMPTED, _R.REQUEUED): _S.QUEUED,
    **_from_each((*BORN, *RUNNING), _R.PAUSED_BY_USER, to=_S.PAUSED),
    (_S.PAUSED, _R.RESUMED): _S.QUEUED,
    (_S.PAUSED, _R.WAITING_FOR_DEPENDENCIES): _S.PENDING,
    (_S.PAUSED, _R.WAITING_FOR_START_TIME): _S.PENDING,
    (_S.PAUSED, _R.DEPENDENCY_FAILED): _S.FAILED,
    **_from_each((*BORN, *RUNNING, *ASIDE), _R.CANCELLED_BY_USER, to=_S.CANCELLED),
}

LEASE: Mapping[LeaseState, tuple[LeaseState, ...]] = {
    state: tuple(later for later in LeaseState if later > state) for state in LeaseState
}


class Contact(StrEnum):
    """Whether a node is heard."""

    IN_CONTACT = "IN_CONTACT"
    UNREACHABLE = "UNREACHABLE"


class Duty(StrEnum):
    """Whether a node takes jobs."""

    ENABLED = "ENABLED"
    DRAINING = "DRAINING"


CONTACT: Mapping[tuple[Contact, Reason], Contact] = {
    (Contact.IN_CONTACT, _R.NODE_CHANGED): Contact.IN_CONTACT,
    (Contact.IN_CONTACT, _R.NODE_UNREACHABLE): Contact.UNREACHABLE,
    (Contact.UNREACHABLE, _R.NODE_FENCED): Contact.UNREACHABLE,
    (Contact.UNREACHABLE, _R.NODE_BACK): Contact.IN_CONTACT,
}
DUTY: Mapping[tuple[Duty, Reason], Duty] = {
    (Duty.ENABLED, _R.DRAIN_REQUESTED): Duty.DRAINING,
    (Duty.DRAINING, _R.DRAIN_REQUESTED): Duty.DRAINING,
    (Duty.ENABLED, _R.WINDOW_PLANNED): Duty.ENABLED,
    (Duty.DRAINING, _R.WINDOW_PLANNED): Duty.DRAINING,
    (Duty.ENABLED, _R.NODE_ENABLED): Duty.ENABLED,
    (Duty.DRAINING, _R.NODE_ENABLED): Duty.ENABLED,
}

_H = HealthState
HEALTH: Mapping[tuple[HealthState, Reason], tuple[HealthState, ...]] = {
    **{(x, _R.FAULT_SEEN): (x, _H.SUSPECT, _H.QUARANTINED) for x in (_H.HEALTHY, _H.SUSPECT)},
    **{(x, _R.FAULT_SEEN): (x, _H.QUARANTINED) for x in (_H.PROBATION, _H.QUARANTINED)},
    **{(x, _R.JOB_FAILED_THERE): (x, _H.SUSPECT, _H.QUARANTINED) for x in (_H.HEALTHY, _H.SUSPECT)},
    **{(x, _R.JOB_FAILED_THERE): (x,) for x in (_H.PROBATION, _H.QUARANTINED)},
    (_H.SUSPECT, _R.HEALTH_RECOVERS): (_H.SUSPECT, _H.HEALTHY),
    (_H.QUARANTINED, _R.HEALTH_RECOVERS): (_H.QUARANTINED, _H.PROBATION),
    (_H.PROBATION, _R.CANARY_ANSWERED): (_H.PROBATION, _H.SUSPECT, _H.QUARANTINED),
    **{(x, _R.CANARY_ANSWERED): (x, _H.QUARANTINED) for x in (_H.HEALTHY, _H.SUSPECT)},
    **{(x, _R.HEALTH_SET): (x, _H.HEALTHY, _H.PROBATION, _H.QUARANTINED) for x in HealthState},
}
"""Of a grade, a device's or the node's: where each cause may take it. Else it stays."""
CARE = frozenset({*(cause for _, cause in HEALTH), _R.CANARY_ASKED})


def next_status(status: JobStatus, cause: Reason) -> JobStatus:
    """The job's next status. Raises InvariantViolation for a move that is not in the table."""
    after = JOB.get((status, cause))
    if after is None:
        raise InvariantViolation(f"no such transition of a job: {status} by {cause}")
    return after


def may_become(state: LeaseState, observed: LeaseState) -> bool:
    """Whether a report may move a lease from `state` to `observed`."""
    return observed in LEASE[state]


def contact(node: Node) -> Contact:
    """The node's contact."""
    return Contact.UNREACHABLE if node.unreachable_since_ms else Contact.IN_CONTACT


def duty(node: Node) -> Duty:
    """The node's duty."""
    return Duty.DRAINING if node.drain else Duty.ENABLED


def check_node(before: Node, after: Node, *, cause: Reason) -> None:
    """Raises InvariantViolation when `cause` cannot take the node from `before` to `after`."""
    moves = [
        (CONTACT.get((contact(before), cause), contact(before)), contact(after)),
        (DUTY.get((duty(before), cause), duty(before)), duty(after)),
    ]
    known = (contact(before), cause) in CONTACT or (duty(before), cause) in DUTY or cause in CARE
    lawful = before.health is after.health or _may_become(before, after, cause=cause)
    if not known or not lawful or any(expected is not found for expected, found in moves):
        raise InvariantViolation(f"no such transition of a node: {before.node_id} by {cause}")


def _may_become(before: Node, after: Node, *, cause: Reason) -> bool:
    """Whether a cause can take the grades of a node from what they were to what they are."""
    ids = dict.fromkeys(id for node in (before, after) for id, _ in node.health.grades())
    moves = ((before.health.grade(id).state, after.health.grade(id).state) for id in ids)
    return cause in CARE and all(new in HEALTH.get((old, cause), (old,)) for old, new in moves)


def final_statuses() -> tuple[JobStatus, ...]:
    """Statuses that no cause leaves, in the order of the enum."""
    return tuple(status for status in JobStatus if status in FINAL)
