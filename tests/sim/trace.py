"""Decisions as lines of text, for transcripts and for the stories of simulated failures."""

from __future__ import annotations

from itertools import groupby

from coordinator.core.decision import (
    Changed,
    Decision,
    Event,
    Heard,
    Rejected,
    Reply,
)
from coordinator.core.health import CLEAN
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    ROOT,
    WHOLE,
    Entry,
    History,
    Job,
    Key,
    Lease,
    Mix,
    Node,
    Queue,
    Record,
    Request,
    RollingDrain,
    Ruling,
    Usage,
)
from coordinator.core.tables import contact, duty


def show_decision(decision: Decision, now_ms: int) -> list[str]:
    """The answer first, then each event, then each effect."""
    lines = []
    if decision.reply is not None:
        lines.append(show_reply(decision.reply))
    lines += [show_event(event, now_ms) for event in decision.events]
    lines += [f"wake {effect.node_id}" for effect in decision.effects]
    return [line for line in lines if line]


def show_reply(reply: Reply | Rejected) -> str:
    """The answer to a command; "" where there is nothing to say."""
    if isinstance(reply, Rejected):
        field = f" [{reply.field}]" if reply.field else ""
        return f"! {reply.reason}{field}: {reply.message}"
    words = [word for word in ("replayed", "superseded", "stale") if getattr(reply, word)]
    if reply.job is not None:
        words.append(f"{reply.job.job_id} {reply.job.status}")
    if reply.node is not None:
        words.append(f"{reply.node.node_id} {contact(reply.node)} {duty(reply.node)}")
    if reply.key is not None:
        words.append(reply.key.key_id)
    for outcome in reply.outcomes:
        words.append(outcome.reason or f"{outcome.job_id} {outcome.status}".rstrip())
    return f"-> {' '.join(words)}" if words else ""


def show_event(event: Event, now_ms: int) -> str:
    """One fact."""
    match event:
        case Heard():
            unknown = f" unknown={','.join(event.unknown)}" if event.unknown else ""
            return f"heard {event.node_id} {event.sequence}{unknown}"
        case Changed():
            text = show_record(event.record, now_ms)
            if isinstance(event.record, Job) and event.cause is Reason.CHANGED_BY_USER:
                text = f"{text} {_show_asked(event.record)}"
            return f"{text} <- {event.cause} by {event.actor}"
    return f"{event.kind} {event.id} retired"


def _show_asked(job: Job) -> str:
    limits = [job.policy.max_runtime_ms // 1000, job.policy.expected_duration_ms // 1000]
    return f"prio={job.priority} queue={job.queue_name} limit={limits[0]} expect={limits[1]}"


def show_record(record: Record, now_ms: int) -> str:
    """What matters of a record."""
    match record:
        case Job():
            return _show_job(record, now_ms)
        case Lease():
            return _show_lease(record)
        case Node():
            return _show_node(record, now_ms)
        case Key():
            return f"key {record.key_id}" + f" revoked={record.revoked_at_ms // 1000}s" * bool(
                record.revoked_at_ms
            )
        case Request():
            return f"request {record.id}"
        case Queue():
            words = [f"queue {record.name} v{record.version} {record.order}"]
            words += [f"below {record.parent}"] * (record.parent != ROOT)
            words += [f"weight={record.weight}"] * (record.weight != 1)
            words += [f"guaranteed={record.guaranteed_devices}"] * bool(record.guaranteed_devices)
            words += [f"most={record.max_devices}"] * bool(record.max_devices)
            words += [f"{tenant}<={most}" for tenant, most in record.tenant_limits]
            words += ["closed"] * (not record.accepts) + ["cordoned"] * (not record.places)
            return " ".join(words + ["preempts"] * record.preempts)
        case Usage():
            return f"usage {record.account} {record.share_ppb} average {record.average_ppb}"
        case History():
            return f"history {record.kin} {sum(record.ended)}/{max(record.reached, default=0)}"
        case RollingDrain():
            words = [f"rolling {record.drain_id} v{record.version} out<={record.max_unavailable}"]
            words += [f"taken={record.taken_count} at={record.cursor}"] * bool(record.taken_count)
            words += ["cancelled" if record.cancelled else "ended"] * bool(record.ended_at_ms)
            return " ".join(words)
        case Ruling():
            return _show_ruling(record)
        case Mix():
            return f"mix of {sum(count for _, count in record.demands)} jobs"
        case Entry():
            return _show_entry(record)
    return f"document {' '.join(job_id for job_id, _ in record.bodies)}"


def _show_ruling(ruling: Ruling) -> str:
    words = [f"ruling {ruling.job_id} needs {ruling.devices_milli / WHOLE:g}"]
    if not ruling.job_id:
        words = ["ruling", *[f"of {ruling.actor}"] * bool(ruling.actor)]
    words.append(f"on {'+'.join(ruling.node_ids)}:")
    for one in ruling.considered:
        what = "goes" if one.goes else "stays"
        words.append(f"{one.job_id}.{one.attempt} {one.rule} {one.loss_ms}ms {what}")
        if one.awaited_ms:
            words.append(f"awaited={(one.awaited_ms - ruling.at_ms) / 1000:g}s")
    return " ".join(words)


def _show_job(job: Job, now_ms: int) -> str:
    words = [f"job {job.job_id} v{job.version} {job.status} ({job.reason})"]
    if job.attempt is not None:
        words.append(f"attempt={job.attempt.number}")
        if job.attempt.stop is not None:
            words.append(f"stop={job.attempt.stop}")
        if job.attempt.ask is not None:
            due_ms = job.attempt.ask.due_ms
            left = f"{(due_ms - now_ms) / 1000:g}s" if due_ms else "never"
            words.append(f"ask={job.attempt.ask.cause}/{left}/{job.attempt.ask.on_timeout}")
        if job.attempt.hold:
            words.append("hold")
    if job.attempt is not None and job.attempt.makes_room_for:
        words.append(f"for={job.attempt.makes_room_for}")
    if job.room:
        found = "+".join(devices_of(x.node_id, x.device_ids) for x in job.room)
        words.append(f"room={found}")
    if job.claim:
        found = "+".join(devices_of(x.node_id, x.device_ids) for x in job.claim.shares)
        words.append(f"claim={found}@{(job.claim.from_ms - now_ms) / 1000:g}s")
    if job.awaits:
        found = "+".join(devices_of(x.node_id, x.device_ids) for x in job.awaits.shares)
        words.append(f"awaits={found}@{(job.awaits.until_ms - now_ms) / 1000:g}s")
    if job.attempt is not None and job.attempt.lent_by:
        words.append(f"lent_by={job.attempt.lent_by}")
    words += [f"aged={job.aged}"] * bool(job.aged)
    if job.parent_job_id:
        words.append(f"parent={job.parent_job_id} lineage={job.lineage_id}")
    if job.failures_count:
        words.append(f"failures={job.failures_count}")
    if job.not_before_ms:
        words.append(f"wait={(job.not_before_ms - now_ms) / 1000:g}s")
    if job.checkpoints:
        words.append("checkpoints=" + ",".join(x.checkpoint_id for x in job.checkpoints))
    if job.resume_checkpoint_id:
        words.append(f"from={job.resume_checkpoint_id}")
    words += [f"image={job.image_digest}"] * bool(job.image_digest)
    if job.output_model_uri:
        words.append(f"model={job.output_model_uri}")
    if job.failure is not None:
        code = "" if job.failure.exit_code is None else f":{job.failure.exit_code}"
        words.append(f"error={job.failure.category}{code}")
    if job.message:
        words.append(f'"{job.message}"')
    return " ".join(words)


def _show_lease(lease: Lease) -> str:
    words = [
        f"lease {lease.lease_id}@{lease.epoch} on {devices_of(lease.node_id, lease.device_ids)}"
    ]
    if lease.thousandths < WHOLE:
        words.append(f"share={lease.thousandths}")
    words.append(f"ranks={lease.first_rank}+{lease.local_world_size}")
    words.append(f"{lease.action}/{lease.state.name}")
    if lease.fenced_at_ms:
        words.append("fenced")
    if lease.save:
        words.append(f"save={lease.save}/{lease.saved}")
    if lease.done:
        words.append("done")
    if lease.failure is not None:
        code = "" if lease.failure.exit_code is None else f":{lease.failure.exit_code}"
        words.append(f"error={lease.failure.category}{code}")
    return " ".join(words)


def _show_entry(entry: Entry) -> str:
    words = [f"entry {entry.lease_id} {entry.milli / WHOLE:g} devices"]
    for day, spent in entry.days:
        parts = spent._asdict().items()
        found = " ".join(f"{use}={ms / 1000:g}s" for use, ms in parts if ms)
        words.append(f"{f'day {day}: ' if len(entry.days) > 1 else ''}{found}")
    if entry.cause:
        other = " of another tenant" * entry.is_foreign
        words.append(f"by {entry.cause} {entry.cause_id}{other}".rstrip())
    return " ".join(words)


def devices_of(node_id: str, device_ids: tuple[str, ...]) -> str:
    """`n1[0-3,6]` of device ids `n1-0` and so on."""
    numbers = sorted(int(device_id.rsplit("-", 1)[1]) for device_id in device_ids)
    parts = []
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        parts.append(str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}")
    return f"{node_id}[{','.join(parts)}]"


def _show_node(node: Node, now_ms: int) -> str:
    words = [f"node {node.node_id} v{node.version} {contact(node)} {duty(node)}"]
    words.append(f"start={node.generation}{node.incarnation}")
    bad = sum(not device.healthy for device in node.offer.devices)
    words.append(f"devices={len(node.offer.devices)}" + (f" bad={bad}" if bad else ""))
    if node.fenced_at_ms:
        words.append("given-up")
    words += _show_health(node, now_ms)
    if node.drain is not None and node.drain.force:
        words.append("force")
    if node.drain is not None and node.drain.move:
        words.append("move")
    if node.drain is not None and node.drain.rolling:
        words.append(f"rolling={node.drain.rolling}")
    if node.window is not None:
        until = f"{(node.window.until_ms - now_ms) / 1000:g}s" if node.window.until_ms else ""
        words.append(f"out={(node.window.from_ms - now_ms) / 1000:g}s..{until}")
    return " ".join(words)


def _show_health(node: Node, now_ms: int) -> list[str]:
    """What is held of the node, and of its devices by their number."""
    words = []
    for id, grade in node.health.grades():
        if grade == CLEAN:
            continue
        rest = f" for {(grade.until_ms - now_ms) / 1000:g}s" if grade.until_ms else ""
        what = f"{grade.state}{rest} {grade.points / 1000:g}p"
        why = f" {grade.notes[-1].code}" if grade.notes else ""
        words.append(f"<{id.rsplit('-', 1)[-1] or 'node'}: {what}{why}>")
    if node.health.asked:
        words.append(
            f"canary={node.health.canary} on {devices_of(node.node_id, node.health.asked)}"
        )
    if node.health.witnesses:
        weight = sum(witness.weight for witness in node.health.witnesses)
        paid = sum(witness.counted for witness in node.health.witnesses)
        words.append(f"failures={len(node.health.witnesses)} weight={weight} paid={paid}")
    return words
