"""What is done about the health of nodes: facts in, grades out, and who is owed a retry.

Facts are the faults that an agent counts, attempts that failed, the end of a canary, an admin's word and
the passing of time. A grade decides what is placed, never what runs: nothing is stopped here.

A failure is the node's fault where the node, or a device that the attempt held, is out by then: the job
is tried elsewhere and pays no retry. Who failed there lately, and has paid, gets it back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from coordinator.core.commands import ObservedCanary, SetHealth
from coordinator.core.decision import Rejected, Reply
from coordinator.core.faults import HARDWARE, MISSING, UNHEALTHY, Severity, severity_of
from coordinator.core.health import (
    CLEAN,
    NODE,
    SOUND,
    Grade,
    Health,
    HealthState,
    Note,
    Witness,
    answered,
    changed,
    faded,
    is_blamed,
    noted,
    quarantined,
    said,
    suspected,
    wanted,
    witnessed,
)
from coordinator.core.reasons import Reason
from coordinator.core.records import Device, Job, Lease, Node, StopCause, is_instance
from coordinator.core.replacing import replace
from coordinator.core.requests import recall, remember
from coordinator.core.settings import CoreSettings
from coordinator.core.turn import Turn

SAYS_NOTHING = frozenset({"CONFIG", "NODE_LOST"})
OF_THE_JOB = frozenset({"GPU_OOM", "HOST_OOM", "IMAGE"})
"""Categories of failures that do not speak against a node; those of SAYS_NOTHING are never its fault."""
MAY_BE_SAID = (HealthState.HEALTHY, HealthState.PROBATION, HealthState.QUARANTINED)


@dataclass(frozen=True, slots=True)
class Blame:
    """Whether a failure was its node's fault, and how many earlier ones of the job are refunded."""

    excused: bool = False
    refunded_count: int = 0


@dataclass(frozen=True, slots=True)
class _Seen:
    """A fault that was not there before."""

    device_id: str
    severity: Severity
    code: str
    text: str
    count: int = 1


def heed(turn: Turn, node: Node, *, before: Node | None) -> None:
    """Takes the faults that a report tells, beside those that are known."""
    if before is not None and before.offer is node.offer:
        return
    seen = list(_seen(before, node))
    if not seen:
        return
    health = node.health
    for one in seen:
        health = _after(turn, health, seen=one)
        held = _holders(turn, node, seen=one, among=seen)
        health = _with_holders(turn, health, seen=one, held=held)
    health, _ = _refunded(turn, _blamed(turn, health))
    _put(turn, node, health=health, cause=Reason.FAULT_SEEN)


def testify(turn: Turn, job: Job, *, leases: Sequence[Lease], counts: bool) -> Blame:
    """Has the failure of an attempt speak against its node; `counts` against its retries."""
    attempt = job.attempt
    if attempt is None or attempt.stop is not StopCause.RANK_FAILED:
        return Blame()
    node = turn.state.nodes.get(attempt.stopped_by)
    failing = next((x for x in leases if x.node_id == attempt.stopped_by and x.failure), None)
    if node is None or failing is None or failing.failure is None:
        return Blame()
    if failing.failure.category in SAYS_NOTHING:
        return Blame()
    witness = Witness(
        job_id=job.job_id,
        attempt=attempt.number,
        user=f"{job.tenant_id}/{job.user_id}",
        at_ms=turn.now_ms,
        weight=_weight(turn, job, lease=failing),
        counted=counts,
        device_ids=failing.device_ids,
    )
    health = node.health
    if counts or witness.weight:
        if failing.failure.category == HARDWARE:
            for device_id in failing.device_ids:
                seen = _Seen(device_id, severity_of(HARDWARE), HARDWARE, "a job failed for it")
                health = _after(turn, health, seen=seen)
        health = _blamed(turn, witnessed(health, witness))
    excused = _is_out(health, failing.device_ids)
    owed = 0
    if excused:
        health, owed = _refunded(turn, health, own=job.job_id)
    _put(turn, node, health=health, cause=Reason.JOB_FAILED_THERE)
    return Blame(excused, owed)


def answer(turn: Turn, node: Node, *, canary: ObservedCanary | None) -> None:
    """Takes the end of a canary, and asks for the next one where nothing is in its way."""
    health = node.health
    if health is SOUND or health == SOUND:
        return
    rules = turn.state.settings.health
    if canary is not None and health.asked and canary.number == health.canary:
        after = answered(health, dict(canary.failed), now_ms=turn.now_ms, rules=rules)
        node = _put(turn, node, health=after, cause=Reason.CANARY_ANSWERED)
        turn.wake(node.node_id)
    _ask(turn, node)


def pass_time(turn: Turn, node: Node) -> None:
    """Forgets what has faded, and lets those whose rest is over be tried."""
    rules = turn.state.settings.health
    found = {id: faded(grade, now_ms=turn.now_ms, rules=rules) for id, grade in _held(node.health)}
    health = changed(node.health, found)
    if health.node.state is not node.health.node.state:
        health = replace(health, asked=())  # the whole node is to be tried
    _ask(turn, _put(turn, node, health=health, cause=Reason.HEALTH_RECOVERS))


def set_health(turn: Turn, command: SetHealth, *, settings: CoreSettings) -> Reply | Rejected:
    """Takes an admin's word. HEALTHY of a node is of all its devices too; what is so already stays."""
    known = recall(turn.state, command.caller)
    if known is not None:
        return known
    node = turn.state.nodes.get(command.node_id)
    if node is None:
        text = f"no node {command.node_id}"
        return Rejected(reason=Reason.NODE_NOT_FOUND, message=text, field="node_id")
    ids = {device.device_id for device in node.offer.devices} | dict(node.health.devices).keys()
    if command.device_id and command.device_id not in ids:
        text = f"node {node.node_id} has no device {command.device_id}"
        return Rejected(reason=Reason.INVALID_ARGUMENT, message=text, field="device_id")
    if command.state not in MAY_BE_SAID:
        text = f"must be one of {', '.join(MAY_BE_SAID)}"
        return Rejected(reason=Reason.INVALID_ARGUMENT, message=text, field="state")
    health = _said(turn, node.health, command=command)
    if command.validate_only:
        return Reply(node=replace(node, health=health))
    if health != node.health:
        node = _put(turn, node, health=health, cause=Reason.HEALTH_SET)
        turn.wake(node.node_id)
        node = _ask(turn, node)
    return remember(turn, command.caller, reply=Reply(node=node), settings=settings)


def _said(turn: Turn, health: Health, *, command: SetHealth) -> Health:
    rules = turn.state.settings.health
    ids = [command.device_id]
    if command.state is HealthState.HEALTHY and not command.device_id:
        ids = [NODE, *(id for id, _ in health.devices)]
    why = f": {command.reason}" if command.reason else ""
    text = f"an admin said {command.state}{why}"
    note = Note(code="SET_BY_ADMIN", text=text, at_ms=turn.now_ms)
    found: dict[str, Grade | None] = {
        id: said(grade, command.state, note=note, rules=rules)
        for id in ids
        if not _is_so(grade := health.grade(id), command.state)
    }
    if not found:
        return health
    after = changed(replace(health, asked=()), found)
    trusted = command.state is HealthState.HEALTHY and not command.device_id
    return replace(after, witnesses=()) if trusted else after


def _is_so(grade: Grade, state: HealthState) -> bool:
    """Whether a word changes nothing: an admin's QUARANTINED has no end, others may have one."""
    if state is HealthState.HEALTHY:
        return not grade.points and grade.state is HealthState.HEALTHY
    return grade.state is state and not grade.until_ms


def _held(health: Health) -> Iterator[tuple[str, Grade]]:
    return ((id, grade) for id, grade in health.grades() if grade != CLEAN)


def _put(turn: Turn, node: Node, *, health: Health, cause: Reason) -> Node:
    return turn.edit_node(node, cause, health=health) if health != node.health else node


def _ask(turn: Turn, node: Node) -> Node:
    """Asks for a canary of what is on probation, once nothing holds it and the agent sees it well."""
    there = node.offer.devices
    ids = wanted(node.health, (device.device_id for device in there))
    if not ids:
        return node
    healthy = {device.device_id for device in there if device.healthy}
    held = [lease for lease in turn.state.leases_on(node.node_id) if not lease.is_ended]
    busy = {device_id for lease in held for device_id in lease.device_ids}
    whole = node.health.node.state is HealthState.PROBATION
    if whole and (held or not healthy.issuperset(ids)):
        return node
    free = tuple(id for id in ids if id in healthy and id not in busy)
    if not free:
        return node
    turn.wake(node.node_id)
    health = replace(node.health, canary=node.health.canary + 1, asked=free)
    return _put(turn, node, health=health, cause=Reason.CANARY_ASKED)


def _seen(before: Node | None, node: Node) -> Iterator[_Seen]:
    """The faults of an offer that the one before did not tell."""
    old: Mapping[str, Device] = {}
    if before is not None:
        old = {device.device_id: device for device in before.offer.devices}
    new = {device.device_id: device for device in node.offer.devices}
    started = before is None or before.generation != node.generation
    for id, device in new.items():
        known = old.get(id)
        counts = {} if started or known is None else {x.code: x.count for x in known.faults}
        told = False
        for fault in device.faults:
            had = counts.get(fault.code, 0)
            more = fault.count - had if fault.count >= had else fault.count
            if more > 0:
                told = True
                yield _Seen(id, severity_of(fault.code), fault.code, fault.text, more)
        if known is not None and known.healthy and not device.healthy and not told:
            text = "its agent says that it must not be used"
            yield _Seen(id, severity_of(UNHEALTHY), UNHEALTHY, text)
    gone = [id for id in old if id not in new and not _is_partitioned(old[id], old=old, new=new)]
    if gone and len(gone) < len(old):
        text = f"{len(gone)} devices are not there any more: {', '.join(gone[:4])}"
        yield _Seen(NODE, severity_of(MISSING), MISSING, text, len(gone))


def _is_partitioned(
    device: Device, *, old: Mapping[str, Device], new: Mapping[str, Device]
) -> bool:
    """Whether a device that is gone is not lost: its GPU is there, in other parts than before."""
    return any(
        one.index == device.index and (one.device_id not in old or is_instance(device.type))
        for one in new.values()
    )


def _after(turn: Turn, health: Health, *, seen: _Seen) -> Health:
    """The health after a fault: of its device, and of the node where it takes that too."""
    rules, now_ms = turn.state.settings.health, turn.now_ms
    note = Note(code=seen.code, text=seen.text, at_ms=now_ms, count=seen.count)
    found: dict[str, Grade | None] = {}
    for id in {seen.device_id: None, NODE: None} if seen.severity.takes_node else (seen.device_id,):
        grade = health.grade(id)
        found[id] = noted(grade, note, severity=seen.severity, now_ms=now_ms, rules=rules)
    after = changed(health, found)
    falls = any(grade and grade.is_out for grade in found.values())
    return replace(after, asked=()) if falls and seen.severity.is_proof else after


def _holders(turn: Turn, node: Node, *, seen: _Seen, among: Sequence[_Seen]) -> Sequence[Lease]:
    """Who holds the device, and with it what else of its GPU the same fault is told of."""
    gpus = {device.device_id: device.index for device in node.offer.devices}
    ids = {
        one.device_id
        for one in among
        if one.code == seen.code and gpus.get(one.device_id) == gpus.get(seen.device_id)
    }
    held = turn.state.leases_on(node.node_id)
    return [one for one in held if not one.is_ended and not ids.isdisjoint(one.device_ids)]


def _with_holders(turn: Turn, health: Health, *, seen: _Seen, held: Sequence[Lease]) -> Health:
    """Who holds the device is a witness of a fault that any program can cause.

    Where several jobs hold it nobody can tell whose program it was, and none is.
    """
    if seen.severity is not Severity.COUNTED or len({lease.job_id for lease in held}) != 1:
        return health
    for lease in held:
        if seen.device_id not in lease.device_ids:
            continue
        job = turn.state.jobs[lease.job_id]
        witness = Witness(
            job_id=job.job_id,
            attempt=lease.attempt,
            user=f"{job.tenant_id}/{job.user_id}",
            at_ms=turn.now_ms,
            weight=2,
            device_ids=lease.device_ids,
        )
        health = witnessed(health, witness)
    return health


def _weight(turn: Turn, job: Job, *, lease: Lease) -> int:
    """How much a failure says of its node: nothing where the job has failed before, or ran for long."""
    assert lease.failure is not None
    rules = turn.state.settings.health
    ran_ms = lease.ended_at_ms - lease.started_at_ms if lease.started_at_ms else 0
    if job.failures_count or ran_ms > rules.fast_ms or lease.failure.category in OF_THE_JOB:
        return 0
    return 2 if lease.failure.category == HARDWARE else 1


def _blamed(turn: Turn, health: Health) -> Health:
    """The node is out where several users' failures say so, and it is one of few."""
    rules, now_ms = turn.state.settings.health, turn.now_ms
    if health.node.is_out or not is_blamed(health, now_ms=now_ms, rules=rules):
        return health
    users = {x.user for x in health.witnesses if x.weight and now_ms - x.at_ms < rules.window_ms}
    text = f"jobs of {len(users)} users failed fast there"
    note = Note(code="JOBS_FAILED_FAST", text=text, at_ms=now_ms)
    grade = noted(health.node, note, severity=Severity.NOTED, now_ms=now_ms, rules=rules)
    nodes = turn.state.nodes.values()
    out_count = sum(node.health.node.is_out for node in nodes)
    most = max(1, len(nodes) // rules.part) if len(nodes) > 1 else 0
    if out_count < most:
        grade = quarantined(grade, now_ms=now_ms, rules=rules)
        health = replace(health, asked=())
    else:  # so many at once are hardly bad: it is taken last, and no more is held against it now
        grade = suspected(grade, now_ms=now_ms, rules=rules)
        health = replace(health, witnesses=tuple(replace(x, weight=0) for x in health.witnesses))
    return changed(health, {NODE: grade})


def _is_out(health: Health, device_ids: Sequence[str]) -> bool:
    """Whether the node or one of the devices is out for what was seen of it, not by an admin's word."""
    grades = (health.grade(id) for id in (NODE, *device_ids))
    return any(grade.is_out and not _is_word(grade) for grade in grades)


def _is_word(grade: Grade) -> bool:
    return bool(grade.notes) and grade.notes[-1].code == "SET_BY_ADMIN"


def _refunded(turn: Turn, health: Health, *, own: str = "") -> tuple[Health, int]:
    """Gives back the retries of those who failed lately on what is out; how many are left to `own`."""
    rules = turn.state.settings.health
    kept, owed = [], 0
    for witness in health.witnesses:
        late = turn.now_ms - witness.at_ms >= rules.window_ms
        if late or not witness.counted or not _is_out(health, witness.device_ids):
            kept.append(witness)
            continue
        kept.append(replace(witness, counted=False))
        job = turn.state.jobs.get(witness.job_id)
        if job is None or job.is_final or not job.failures_count:
            continue
        if job.job_id == own:
            owed += 1
        else:
            turn.edit(job, Reason.RETRY_REFUNDED, failures_count=job.failures_count - 1)
    return replace(health, witnesses=tuple(kept)), owed
