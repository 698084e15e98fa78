"""An agent's report: what is true on a node, against what the coordinator believed.

Which report is newer is settled by (generation, sequence): a generation is one start of the node's
agent, a sequence one call of it. Of two agents that claim the same generation (a cloned machine) the
first one heard is the node's; the other is told that it was superseded, until it comes back with a
higher generation.

What is absent says as much as what is there. An agent keeps a lease it has once reported until the
coordinator no longer desires it, across restarts. So of a lease that was reported before and is absent
from a newer report:
- it had ended: the agent has forgotten it, all that it wrote has arrived, it retires;
- it had not: the node lost it with its state, and what ran there is gone with it.
A lease that was never reported may be on its way still; its absence proves nothing, and it will be
delivered again.
"""

from __future__ import annotations

from coordinator.core.attempts import follow, forget, is_newest, settle
from coordinator.core.care import answer, heed
from coordinator.core.commands import ObservedLease, SyncNode
from coordinator.core.decision import Rejected, Reply
from coordinator.core.hang import watch
from coordinator.core.image import pin
from coordinator.core.reasons import Reason
from coordinator.core.records import (
    Checkpoint,
    Failure,
    JobStatus,
    Lease,
    LeaseAction,
    LeaseState,
    Node,
)
from coordinator.core.replacing import replace
from coordinator.core.retry import NODE_LOST
from coordinator.core.saving import proven
from coordinator.core.settings import CoreSettings
from coordinator.core.tables import may_become
from coordinator.core.turn import Turn


def sync(turn: Turn, command: SyncNode, *, settings: CoreSettings) -> Reply | Rejected:
    """Takes over a report; a late one changes nothing."""
    node = turn.state.nodes.get(command.node_id)
    refusal = _refusal(turn, command, node=node)
    if refusal is not None:
        return refusal
    before = node
    node = _take_node(turn, command, node=node)
    heed(turn, node, before=before)
    unknown = _unknown(turn, command)
    turn.hear(node.node_id, command.incarnation, sequence=command.sequence, unknown=unknown)
    observed: dict[str, ObservedLease] = {}
    for one in command.leases:
        observed.setdefault(one.lease_id, one)
    for lease in turn.state.leases_on(node.node_id):
        if (lease.observed_generation, lease.observed_sequence) < _moment(command):
            told = observed.get(lease.lease_id)
            lease = pin(turn, lease, one=told)
            _take_lease(turn, lease, one=told, command=command, settings=settings)
            if told is not None:
                watch(turn, lease.lease_id, one=told)
    settle(turn)
    answer(turn, turn.state.nodes[command.node_id], canary=command.canary)
    return Reply(node=turn.state.nodes[command.node_id])


def _moment(command: SyncNode) -> tuple[int, int]:
    return command.generation, command.sequence


def _refusal(turn: Turn, command: SyncNode, *, node: Node | None) -> Reply | Rejected | None:
    ids = [device.device_id for device in command.offer.devices]
    if len(set(ids)) != len(ids):
        return Rejected(
            reason=Reason.INVALID_ARGUMENT,
            message="two devices of the node have the same id",
            field="offer.devices",
        )
    if node is None:
        return None
    newer = command.generation > node.generation
    same = command.generation == node.generation and command.incarnation == node.incarnation
    if not newer and not same:
        return Reply(node=node, superseded=True)
    heard = turn.state.heard.get(node.node_id)
    if same and heard is not None and command.sequence <= heard.sequence:
        return Reply(node=node, stale=True)
    return None


def _take_node(turn: Turn, command: SyncNode, *, node: Node | None) -> Node:
    if node is None:
        node = Node(
            node_id=command.node_id,
            generation=command.generation,
            incarnation=command.incarnation,
            offer=command.offer,
            joined_at_ms=turn.now_ms,
            updated_at_ms=turn.now_ms,
        )
        turn.put(node, Reason.NODE_JOINED)
        return node
    if node.unreachable_since_ms:
        node = turn.edit_node(node, Reason.NODE_BACK, unreachable_since_ms=0, fenced_at_ms=0)
    if node.restored or (node.generation, node.offer) != (command.generation, command.offer):
        node = turn.edit_node(
            node,
            Reason.NODE_CHANGED,
            generation=command.generation,
            incarnation=command.incarnation,
            offer=command.offer,
            restored=False,
        )
    return node


def _unknown(turn: Turn, command: SyncNode) -> tuple[str, ...]:
    """What has not ended there and was never granted there, as far as is known here."""
    leases = turn.state.leases
    found = {
        one.lease_id: None
        for one in command.leases
        if one.state is not LeaseState.ENDED
        and not (
            (lease := leases.get(one.lease_id))
            and (lease.node_id, lease.epoch) == (command.node_id, one.epoch)
        )
    }
    return tuple(sorted(found))


def _take_lease(
    turn: Turn,
    lease: Lease,
    *,
    one: ObservedLease | None,
    command: SyncNode,
    settings: CoreSettings,
) -> None:
    if one is not None and one.epoch == lease.epoch and one.state is not LeaseState.GRANTED:
        if lease.is_ended or not _observe(turn, lease, one=one, command=command, settings=settings):
            return
    elif lease.state is LeaseState.GRANTED:
        return
    elif lease.is_ended:
        forget(turn, lease)
        return
    else:
        _lose(turn, lease, command=command)
        one = None
    if lease.fenced_at_ms:
        return  # its attempt goes on without it; what it tells frees its devices, no more
    speaks = one is not None and lease.node_rank == 0 and one.state is LeaseState.RUNNING
    checkpointing = one.checkpointing if one and speaks else None
    follow(turn, lease.job_id, checkpointing=checkpointing, backoff=settings.backoff)
    proven(turn, turn.state.jobs[lease.job_id])


def _observe(
    turn: Turn, lease: Lease, *, one: ObservedLease, command: SyncNode, settings: CoreSettings
) -> bool:
    """Takes over what is new of a lease; answers whether anything is."""
    _observe_checkpoints(turn, lease, one=one, most=settings.max_checkpoints)
    lease, has_saved = _observe_saved(turn, lease, one=one)
    job = turn.state.jobs[lease.job_id]
    if not may_become(lease.state, one.state):
        changed = one.checkpointing != (job.status is JobStatus.CHECKPOINTING)
        return lease.node_rank == 0 and (changed or has_saved)
    ended = one.state is LeaseState.ENDED
    failure = one.failure and replace(one.failure, node_id=lease.node_id)
    if failure is None and one.stopped and not one.done and lease.action is LeaseAction.RUN:
        # a leader whose last writes a store has lost may have asked for it; nobody does now
        failure = Failure(category=NODE_LOST, message=f"node {lease.node_id} stopped it unasked")
    started = one.state >= LeaseState.RUNNING
    turn.edit_lease(
        lease,
        Reason.LEASE_ENDED if ended else Reason.LEASE_OBSERVED,
        state=one.state,
        done=one.done,
        failure=failure if ended or one.failure else None,
        output_model_uri=one.output_model_uri,
        started_at_ms=one.started_at_ms if started else 0,
        ended_at_ms=(one.ended_at_ms or turn.now_ms) if ended else 0,
        observed_generation=command.generation,
        observed_sequence=command.sequence,
    )
    if ended:
        turn.wake(lease.node_id)
    return True


def _observe_checkpoints(turn: Turn, lease: Lease, *, one: ObservedLease, most: int) -> None:
    """Takes over which checkpoints of this attempt exist; those of earlier ones stay."""
    job = turn.state.jobs[lease.job_id]
    if lease.node_rank != 0 or job.is_final or not is_newest(job, lease):
        return
    if not one.checkpoints and not job.checkpoints:
        return
    found = {checkpoint.checkpoint_id: checkpoint for checkpoint in one.checkpoints}
    kept = [
        known
        for known in job.checkpoints
        if known.attempt != lease.attempt
        and known.checkpoint_id not in found
        and known.checkpoint_id not in one.retired
    ]
    own = [
        new if new.attempt == lease.attempt else replace(new, attempt=lease.attempt)
        for new in found.values()
    ]
    merged: tuple[Checkpoint, ...] = (*kept, *own)[-most:]
    if merged != job.checkpoints:
        chosen = "" if own else job.resume_checkpoint_id
        turn.edit(job, Reason.CHECKPOINT_ENDED, checkpoints=merged, resume_checkpoint_id=chosen)


def _observe_saved(turn: Turn, lease: Lease, *, one: ObservedLease) -> tuple[Lease, bool]:
    """Takes over that a checkpoint is proven that was asked for; one must be there to show for it."""
    saved = min(one.saved, lease.save)
    if lease.node_rank != 0 or saved <= lease.saved or not one.checkpoints:
        return lease, False
    return turn.edit_lease(lease, Reason.CHECKPOINT_ENDED, saved=saved), True


def _lose(turn: Turn, lease: Lease, *, command: SyncNode) -> None:
    text = f"node {lease.node_id} came back without it"
    turn.edit_lease(
        lease,
        Reason.NODE_LOST,
        state=LeaseState.ENDED,
        failure=Failure(category=NODE_LOST, message=text),
        ended_at_ms=turn.now_ms,
        observed_generation=command.generation,
        observed_sequence=command.sequence,
    )
    turn.wake(lease.node_id)
