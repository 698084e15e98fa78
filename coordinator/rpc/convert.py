"""Records to public messages. Protobuf stops here; the core knows none of it."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from coordinator.core.reasons import TABLE, Reason
from coordinator.core.records import (
    FINAL,
    WAITING,
    WHOLE,
    Attempt,
    Checkpoint,
    Failure,
    Job,
    JobStatus,
    Key,
)
from coordinator.rpc.advice import advice_on
from coordinator.streams.protocol import Latest, Point
from scaimind.v1 import job_pb2, key_service_pb2, node_pb2, options_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

DEFAULT_PRIORITY = 5
DEFAULT_QUEUE = "default"
LINES = 10  # that a failure keeps
LINE_CHARACTERS = 300
TELEMETRY_BYTES = 32_768
YEAR_9999_S = 253_402_300_799
CONFIGS = (
    "training_config",
    "data_config",
    "resource_config",
    "output_config",
    "scheduling_config",
)


def timestamp(ms: int) -> Timestamp | None:
    """A time; None for 0, which stands for no time."""
    return Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000) if ms else None


def reason_text(job: Job) -> str:
    """Why a job is where it is, for people."""
    reason = Reason.__members__.get(job.reason)
    return job.message or (TABLE[reason].doc if reason else "")


def status_value(status: JobStatus) -> job_pb2.Job.Status.ValueType:
    """The public value of a job's status."""
    return job_pb2.Job.Status.Value(status.value)


def milliseconds(time: Timestamp) -> int:
    """A time that others sent; 0 for none, and for one that is no time between 1970 and 9999."""
    if not (0 <= time.seconds <= YEAR_9999_S and 0 <= time.nanos < 1_000_000_000):
        return 0
    return time.ToMilliseconds()


def configs_of(body: bytes) -> bytes:
    """The five configs of a submit, as the part of a job's public record that never changes."""
    submit = SubmitJobRequest.FromString(body)
    configs = job_pb2.Job()
    for name in CONFIGS:
        if submit.HasField(name):  # type: ignore[arg-type]
            getattr(configs, name).CopyFrom(getattr(submit, name))
    return configs.SerializeToString()


def job_message(job: Job, configs: bytes) -> job_pb2.Job:
    """The public record of a job as far as it follows from its own; `configs` as `configs_of` makes them."""
    message = job_pb2.Job(
        job_id=job.job_id,
        name=job.name,
        tenant_id=job.tenant_id,
        user_id=job.user_id,
        status=status_value(job.status),
        status_reason=job_pb2.StatusReason(code=job.reason, message=reason_text(job)),
        priority=job.priority,
        queue_name=job.queue_name,
        labels=dict(job.labels),
        parent_job_id=job.parent_job_id,
        lineage_id=job.lineage_id,
        checkpoints=[checkpoint_message(one) for one in job.checkpoints],
        output_model_uri=job.output_model_uri,
        image_digest=job.image_digest,
        created_at=timestamp(job.created_at_ms),
        updated_at=timestamp(job.updated_at_ms),
        started_at=timestamp(job.started_at_ms),
        completed_at=timestamp(job.completed_at_ms),
        version=job.version,
    )
    message.MergeFromString(configs)
    _put_in_force(message, job)
    if job.attempt is not None:
        message.attempt.CopyFrom(attempt_message(job.attempt))
        message.attempts_count = job.attempt.number
    if job.failure is not None:
        message.error.CopyFrom(failure_message(job.failure))
    if job.status not in WAITING:
        message.estimated_wait_seconds = 0.0
    return message


def _put_in_force(message: job_pb2.Job, job: Job) -> None:
    """What was changed since the submit shows in the configs as it is now; the rest as submitted."""
    training, scheduling = message.training_config, message.scheduling_config
    submitted = training.priority if training.HasField("priority") else DEFAULT_PRIORITY
    if submitted != job.priority:
        training.priority = job.priority
    if (scheduling.queue_name or DEFAULT_QUEUE) != job.queue_name:
        scheduling.queue_name = job.queue_name
    limit_s, expected_s = job.policy.max_runtime_ms // 1000, job.policy.expected_duration_ms // 1000
    if message.resource_config.max_runtime_seconds != limit_s:
        message.resource_config.max_runtime_seconds = limit_s
    if scheduling.expected_duration_seconds != expected_s:
        scheduling.expected_duration_seconds = expected_s


def put_latest(message: job_pb2.Job, job: Job, latest: Latest | None) -> None:
    """Adds to the record of a job how far it is."""
    if job.status == "COMPLETED":
        message.progress = 100.0
    elif latest is not None:
        message.progress = latest.progress
    if latest is None:
        return
    if latest.eta_s is not None and job.status not in FINAL:
        message.eta_seconds = latest.eta_s
    if latest.point is not None:
        message.latest_metrics.CopyFrom(point_message(latest.point))


def attempt_message(attempt: Attempt) -> job_pb2.Attempt:
    """One try to run a job."""
    return job_pb2.Attempt(
        number=attempt.number,
        node_ids=[share.node_id for share in attempt.shares],
        devices=[
            job_pb2.AttemptDevice(
                node_id=share.node_id,
                device_id=device_id,
                type=share.device_type,
                fraction=share.thousandths / WHOLE,
            )
            for share in attempt.shares
            for device_id in share.device_ids
        ],
        started_at=timestamp(attempt.started_at_ms),
        ended_at=timestamp(attempt.ended_at_ms),
    )


def checkpoint_message(checkpoint: Checkpoint) -> job_pb2.Checkpoint:
    """A proven checkpoint."""
    return job_pb2.Checkpoint(
        checkpoint_id=checkpoint.checkpoint_id,
        step=checkpoint.step,
        uri=checkpoint.uri,
        size_bytes=checkpoint.size_bytes,
        digest=checkpoint.digest,
        created_at=timestamp(checkpoint.created_at_ms),
        attempt=checkpoint.attempt,
    )


def checkpoint_record(message: job_pb2.Checkpoint) -> Checkpoint:
    """The record of a checkpoint that an agent reports."""
    return Checkpoint(
        checkpoint_id=message.checkpoint_id,
        step=message.step,
        uri=message.uri,
        size_bytes=message.size_bytes,
        digest=message.digest,
        created_at_ms=milliseconds(message.created_at),
        attempt=message.attempt,
    )


def failure_message(failure: Failure) -> job_pb2.JobError:
    """What went wrong in an attempt."""
    names = job_pb2.JobError.Category
    category = names.CATEGORY_UNSPECIFIED
    if failure.category in names.keys():  # noqa: SIM118
        category = names.Value(failure.category)
    return job_pb2.JobError(
        category=category,
        message=failure.message,
        exit_code=failure.exit_code,
        signal=failure.signal,
        first_failing_rank=failure.rank,
        last_lines=failure.lines,
        node_id=failure.node_id,
        advice=advice_on(category),
        telemetry=node_pb2.TelemetryWindow.FromString(failure.telemetry)
        if failure.telemetry
        else None,
    )


def failure_record(message: job_pb2.JobError) -> Failure:
    """The record of a failure that an agent reports."""
    names = job_pb2.JobError.Category
    known = message.category in names.values()
    return Failure(
        category=names.Name(message.category) if known else "CATEGORY_UNSPECIFIED",
        message=message.message[:4096],
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal if message.HasField("signal") else None,
        rank=message.first_failing_rank if message.HasField("first_failing_rank") else None,
        lines=tuple(line[:LINE_CHARACTERS] for line in message.last_lines[-LINES:]),
        telemetry=measured(message.telemetry),
    )


def measured(window: node_pb2.TelemetryWindow) -> bytes:
    """What a node measured; nothing where that is more than a job's record shall carry."""
    body = window.SerializeToString(deterministic=True)
    return body if len(body) <= TELEMETRY_BYTES else b""


def point_message(point: Point) -> job_pb2.MetricPoint:
    """Metrics at one step."""
    return job_pb2.MetricPoint(
        step=point.step,
        epoch=point.epoch,
        values=dict(point.values),
        timestamp=timestamp(point.at_ms),
        attempt=point.attempt,
        progress=point.progress,
    )


def key_message(key: Key) -> key_service_pb2.ApiKey:
    """What is kept of a key."""
    return key_service_pb2.ApiKey(
        key_id=key.key_id,
        tenant_id=key.tenant_id,
        user_id=key.user_id,
        permissions=[options_pb2.Permission.Value(name) for name in key.permissions],
        created_at=timestamp(key.created_at_ms),
        expires_at=timestamp(key.expires_at_ms),
        revoked_at=timestamp(key.revoked_at_ms),
    )
