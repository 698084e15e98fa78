"""The agent's picture in the words of the protocol: leases as they were seen, as messages."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from node_agent.core.leases import Fault, Lease, Rank, State
from node_agent.held import Seen
from node_agent.ranks import ProvenCheckpoint
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.v1 import job_pb2
from scaimind.v1.node_pb2 import TelemetryWindow


def report(seen: Seen) -> agent_pb2.ObservedLease:
    """One lease as it is told to the coordinator."""
    lease, findings = seen.lease, seen.findings
    ended = seen.state is State.ENDED
    fault = lease.first_fault  # told at once: ranks of other nodes are waiting for this one
    return agent_pb2.ObservedLease(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        state=_STATES[seen.state],
        ranks=[_rank(rank, lease) for rank in lease.ranks],
        done=findings.done,
        stopped=not lease.ranks or any(rank.stopped for rank in lease.ranks),
        error=_error(fault, seen.telemetry) if fault else None,
        checkpoints=[_checkpoint(checkpoint) for checkpoint in findings.checkpoints],
        checkpointing=findings.checkpointing,
        saved=findings.saved,
        retired=findings.retired,
        silent_since=_timestamp(seen.silence[0] or None),
        telemetry=_measured(seen.silence[1]),
        output_model_uri=seen.output_uri if ended else "",
        image_digest=seen.image_digest,
        prepared_bytes=seen.prepared[0] if seen.state is State.PREPARING else 0,
        preparing_bytes=seen.prepared[1] if seen.state is State.PREPARING else 0,
    )


_STATES = {
    State.ACCEPTED: agent_pb2.ACCEPTED,
    State.PREPARING: agent_pb2.PREPARING,
    State.RUNNING: agent_pb2.RUNNING,
    State.STOPPING: agent_pb2.STOPPING,
    State.ENDED: agent_pb2.ENDED,
}


def _rank(rank: Rank, lease: Lease) -> agent_pb2.ObservedRank:
    stopping = rank.state is State.RUNNING and lease.stop_by_ms is not None
    return agent_pb2.ObservedRank(
        rank=rank.rank,
        state=agent_pb2.STOPPING if stopping else _STATES[rank.state],
        exit_code=rank.exit_code,
        signal=rank.signal,
        started_at=_timestamp(rank.started_at_ms),
        ended_at=_timestamp(rank.ended_at_ms),
    )


def _error(fault: Fault, telemetry: TelemetryWindow | None) -> job_pb2.JobError:
    return job_pb2.JobError(
        category=job_pb2.JobError.Category.Value(fault.category),
        message=fault.message,
        exit_code=fault.exit_code,
        first_failing_rank=fault.rank,
        signal=fault.signal,
        last_lines=fault.lines,
        telemetry=_measured(telemetry),
    )


def _measured(window: TelemetryWindow | None) -> TelemetryWindow | None:
    return window if window is not None and window.samples_count else None


def _checkpoint(proven: ProvenCheckpoint) -> job_pb2.Checkpoint:
    return job_pb2.Checkpoint(
        checkpoint_id=proven.checkpoint_id,
        step=proven.step,
        uri=proven.uri,
        size_bytes=proven.size_bytes,
        created_at=_timestamp(proven.created_at_ms),
        digest=proven.digest,
        attempt=proven.attempt,
    )


def _timestamp(at_ms: int | None) -> Timestamp | None:
    if at_ms is None:
        return None
    return Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000)
