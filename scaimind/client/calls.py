"""Every call of the API once: its arguments, its request and the type of its answer.

The two clients make their methods from these functions, so that they cannot differ.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from scaimind.client.body import to_message
from scaimind.client.errors import FieldError, InvalidArgument
from scaimind.v1 import job_pb2, node_pb2, stream_pb2
from scaimind.v1 import mind_coordinator_pb2 as pb

A = TypeVar("A", bound=Message)
I_co = TypeVar("I_co", covariant=True)
V_co = TypeVar("V_co", bound=int, covariant=True)

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One call: which method, with what, and what it answers with. Any may be sent again: what changes
    something carries a request id.
    """

    method: MethodDescriptor
    request: Message
    answer: type[A]

    @property
    def path(self) -> str:
        """The method's path in HTTP/2."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


@dataclass(frozen=True, slots=True)
class Pages(Generic[I_co]):
    """A call that answers in pages, and the field of its answer that holds the items."""

    first: Call[Any]
    field: str

    def after(self, token: str) -> Call[Any]:
        """The call for the page that `token` names."""
        request = type(self.first.request)()
        request.CopyFrom(self.first.request)
        request.page_token = token  # type: ignore[attr-defined]
        return Call(self.first.method, request, self.first.answer)


@dataclass(frozen=True, slots=True)
class Stream(Generic[I_co]):
    """A call that answers with batches of events, each with the id after which it can go on."""

    first: Call[Any]
    event: type[I_co]
    follows: bool = True
    """Whether it goes on until the job has ended; else it closes when all is sent."""

    def after(self, event_id: str) -> Call[Any]:
        """The call that goes on exactly after the event `event_id`; "" is the first call."""
        if not event_id:
            return self.first
        request = type(self.first.request)()
        request.CopyFrom(self.first.request)
        request.after = event_id  # type: ignore[attr-defined]
        return Call(self.first.method, request, self.first.answer)


def _coordinator(method: str, request: Message, answer: type[A]) -> Call[A]:
    service = pb.DESCRIPTOR.services_by_name["MindCoordinator"]
    return Call(service.methods_by_name[method], request, answer)


def _id(request_id: str | None) -> str:
    """The caller's request id, or a new one: with it every mutation is safe to repeat."""
    return request_id or str(uuid.uuid4())


def _submit_request(job: Body | pb.SubmitJobRequest) -> pb.SubmitJobRequest:
    request = pb.SubmitJobRequest()
    if isinstance(job, pb.SubmitJobRequest):
        request.CopyFrom(job)
        return request
    return to_message(job, request)


class _Enum(Protocol[V_co]):
    """An enum's type: its numbers by name."""

    def keys(self) -> Sequence[str]: ...
    def Value(self, name: str) -> V_co: ...


def _number(enum: _Enum[V_co], item: str | V_co, *, field: str) -> V_co:
    """The number of an enum's value that is given by name or number."""
    if not isinstance(item, str):
        return item
    names = tuple(enum.keys())
    if item not in names:
        known = ", ".join(name for name in names if not name.endswith("_UNSPECIFIED"))
        fault = FieldError(field, f"{item!r} is none of {known}")
        raise InvalidArgument("the request does not fit the schema", details=[fault])
    return enum.Value(item)


# Jobs


def submit(
    job: Body | pb.SubmitJobRequest,
    *,
    request_id: str | None = None,
    validate_only: bool = False,
) -> Call[pb.SubmitJobResponse]:
    """Submits a job: a dict shaped as a REST body, or the message. Returns once it is durable."""
    request = _submit_request(job)
    request.request_id = request_id or _id(request.request_id)
    request.validate_only = validate_only or request.validate_only
    return _coordinator("SubmitJob", request, pb.SubmitJobResponse)


def submit_batch(
    jobs: Iterable[Body | pb.SubmitJobRequest],
    *,
    atomic: bool = False,
    request_id: str | None = None,
) -> Call[pb.BatchSubmitJobsResponse]:
    """Submits up to 1,000 jobs in one commit; answers each, in order."""
    request = pb.BatchSubmitJobsRequest(atomic=atomic, request_id=_id(request_id))
    request.jobs.extend(_submit_request(job) for job in jobs)
    return _coordinator("BatchSubmitJobs", request, pb.BatchSubmitJobsResponse)


def get_job(job_id: str) -> Call[job_pb2.Job]:
    """Reads the full record of a job."""
    return _coordinator("GetJob", pb.GetJobRequest(job_id=job_id), job_pb2.Job)


class JobChanges(TypedDict, total=False):
    """What to change of a live job; what is left out stays."""

    priority: int
    queue_name: str
    max_runtime_seconds: int
    """0 is no limit."""
    expected_duration_seconds: int
    """0 is not known."""


class JobSelectors(TypedDict, total=False):
    """Which live jobs to act on: those that fit all that is given."""

    status: Iterable[str | job_pb2.Job.Status.ValueType]
    label: Iterable[str]
    """Each as `key=value`."""
    queue_name: str
    name_prefix: str


class JobFilters(TypedDict, total=False):
    """Which jobs to list, and in which order; what is left out does not filter."""

    status: Iterable[str | job_pb2.Job.Status.ValueType]
    label: Iterable[str]
    """Each as `key=value`."""
    queue_name: str
    parent_job_id: str
    created_after: datetime | None
    """Accepted then or later; without a time zone it is local time."""
    created_before: datetime | None
    name_prefix: str
    order_by: str
    """Such as `name asc`; `created_at desc` by default."""


def _filters(filters: JobFilters) -> dict[str, Any]:
    """The fields of a request that filter."""
    given: dict[str, Any] = dict(filters)
    names = filters.get("status", ())
    given["status"] = [_number(job_pb2.Job.Status, item, field="status") for item in names]
    for field in ("created_after", "created_before"):
        if given.get(field) is not None:
            given[field] = _timestamp(given[field])
    return given


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC))
    return stamp


def jobs_page(
    *,
    page_size: int | None = None,
    page_token: str = "",
    **filters: Unpack[JobFilters],
) -> Call[pb.ListJobsResponse]:
    """Reads one page of the tenant's jobs that match."""
    request = pb.ListJobsRequest(page_size=page_size, page_token=page_token, **_filters(filters))
    return _coordinator("ListJobs", request, pb.ListJobsResponse)


def list_jobs(*, page_size: int = 100, **filters: Unpack[JobFilters]) -> Pages[job_pb2.Job]:
    """Iterates over all of the tenant's jobs that match, page by page."""
    return Pages(jobs_page(page_size=page_size, **filters), "jobs")


def cancel(job_id: str, *, reason: str = "", request_id: str | None = None) -> Call[job_pb2.Job]:
    """Cancels a job; its processes are stopped with grace."""
    request = pb.CancelJobRequest(job_id=job_id, reason=reason, request_id=_id(request_id))
    return _coordinator("CancelJob", request, job_pb2.Job)


def pause(
    job_id: str,
    *,
    save_checkpoint: bool = True,
    checkpoint_timeout_seconds: int = 0,
    on_timeout: str | pb.PauseJobRequest.OnTimeout.ValueType = "KEEP_RUNNING",
    request_id: str | None = None,
) -> Call[job_pb2.Job]:
    """Holds a job: a running one once its checkpoint is proven, a waiting one at once.

    `checkpoint_timeout_seconds` is for the checkpoint (0: the job's own grace), `on_timeout` what
    happens when it is over: KEEP_RUNNING, USE_LATEST (the newest proven one) or STOP (at once).
    """
    request = pb.PauseJobRequest(
        job_id=job_id,
        save_checkpoint=save_checkpoint,
        checkpoint_timeout_seconds=checkpoint_timeout_seconds,
        on_timeout=_number(pb.PauseJobRequest.OnTimeout, on_timeout, field="on_timeout"),
        request_id=_id(request_id),
    )
    return _coordinator("PauseJob", request, job_pb2.Job)


def resume(
    job_id: str, *, checkpoint_id: str = "", request_id: str | None = None
) -> Call[job_pb2.Job]:
    """Queues a paused job again, from a checkpoint; the newest by default."""
    request = pb.ResumeJobRequest(
        job_id=job_id, checkpoint_id=checkpoint_id, request_id=_id(request_id)
    )
    return _coordinator("ResumeJob", request, job_pb2.Job)


def retry(
    job_id: str,
    *,
    new_resource_config: Body | job_pb2.ResourceConfig | None = None,
    checkpoint_id: str = "",
    request_id: str | None = None,
    validate_only: bool = False,
) -> Call[pb.RetryJobResponse]:
    """Starts a child of a failed or preempted job, with other resources where they are given."""
    request = pb.RetryJobRequest(
        job_id=job_id,
        modify_resources=new_resource_config is not None,
        checkpoint_id=checkpoint_id,
        request_id=_id(request_id),
        validate_only=validate_only,
    )
    if isinstance(new_resource_config, job_pb2.ResourceConfig):
        request.new_resource_config.CopyFrom(new_resource_config)
    elif new_resource_config is not None:
        to_message(new_resource_config, request.new_resource_config)
    return _coordinator("RetryJob", request, pb.RetryJobResponse)


def update(
    job_id: str,
    *,
    request_id: str | None = None,
    validate_only: bool = False,
    **changes: Unpack[JobChanges],
) -> Call[job_pb2.Job]:
    """Changes a live job; what is left out stays."""
    request = pb.UpdateJobRequest(
        job_id=job_id, request_id=_id(request_id), validate_only=validate_only, **changes
    )
    return _coordinator("UpdateJob", request, job_pb2.Job)


def act_on_jobs(
    action: str | pb.ActOnJobsRequest.Action.ValueType,
    *,
    update: JobChanges | None = None,
    request_id: str | None = None,
    validate_only: bool = False,
    **selectors: Unpack[JobSelectors],
) -> Call[pb.ActOnJobsResponse]:
    """Does CANCEL, PAUSE, RESUME or UPDATE to all live jobs that match, up to 1,000, in one commit.

    At least one selector has to be given; with `validate_only` it only tells which jobs match.
    """
    given: dict[str, Any] = dict(selectors)
    names = selectors.get("status", ())
    given["status"] = [_number(job_pb2.Job.Status, item, field="status") for item in names]
    request = pb.ActOnJobsRequest(
        action=_number(pb.ActOnJobsRequest.Action, action, field="action"),
        update=None if update is None else pb.JobChange(**update),
        request_id=_id(request_id),
        validate_only=validate_only,
        **given,
    )
    return _coordinator("ActOnJobs", request, pb.ActOnJobsResponse)


class QueueConfig(TypedDict, total=False):
    """How a queue is to be; what is left out is as by default."""

    parent: str
    weight: int
    guaranteed_devices: int
    max_devices: int
    tenant_limits: Mapping[str, int]
    """Devices by tenant; `*` is each tenant that is not named."""
    closed: bool
    cordoned: bool
    order: str | pb.QueueSettings.Order.ValueType
    preempts: bool
    aging_permille: int


def set_queue(
    name: str,
    *,
    request_id: str | None = None,
    validate_only: bool = False,
    **config: Unpack[QueueConfig],
) -> Call[pb.QueueSettings]:
    """Sets a queue whole; it acts at once."""
    given: dict[str, Any] = dict(config)
    if "order" in config:
        given["order"] = _number(pb.QueueSettings.Order, config["order"], field="order")
    request = pb.SetQueueRequest(
        name=name, request_id=_id(request_id), validate_only=validate_only, **given
    )
    return _coordinator("SetQueue", request, pb.QueueSettings)


def queues_page(
    *, page_size: int | None = None, page_token: str = ""
) -> Call[pb.ListQueuesResponse]:
    """Reads one page of the queues that were set, and what they hold."""
    request = pb.ListQueuesRequest(page_size=page_size, page_token=page_token)
    return _coordinator("ListQueues", request, pb.ListQueuesResponse)


def list_queues(*, page_size: int = 100) -> Pages[pb.QueueSettings]:
    """Iterates over all queues that were set, page by page."""
    return Pages(queues_page(page_size=page_size), "queues")


def remove_queue(name: str, *, request_id: str | None = None) -> Call[pb.RemoveQueueResponse]:
    """Lets a queue be as by default again; its jobs stay in it."""
    request = pb.RemoveQueueRequest(name=name, request_id=_id(request_id))
    return _coordinator("RemoveQueue", request, pb.RemoveQueueResponse)


def explain(job_id: str) -> Call[pb.ExplainJobResponse]:
    """Tells why a job waits, when it will start and what would make it start sooner."""
    return _coordinator("ExplainJob", pb.ExplainJobRequest(job_id=job_id), pb.ExplainJobResponse)


def get_metrics(job_id: str, *, max_points: int = 0) -> Call[pb.GetJobMetricsResponse]:
    """Reads a job's metrics, down-sampled to `max_points` (0 is the coordinator's default)."""
    request = pb.GetJobMetricsRequest(job_id=job_id, max_points=max_points)
    return _coordinator("GetJobMetrics", request, pb.GetJobMetricsResponse)


def logs(
    job_id: str,
    *,
    follow: bool = True,
    tail: int | None = None,
    level: str | stream_pb2.LogLevel.ValueType | None = None,
    rank: int | None = None,
    after: str = "",
) -> Stream[stream_pb2.LogEvent]:
    """Iterates over the events of a job's log: `log`, `gap` and, at the end of the job, `end`.

    A broken connection is made again and goes on exactly after the last event. `tail` counts
    lines before now (100 by default, 0 none, -1 all); `after` is the id of the last event seen.
    """
    request = pb.StreamJobLogsRequest(
        job_id=job_id, follow=follow, tail=tail, rank=rank, after=after
    )
    if level is not None:
        request.level = _number(stream_pb2.LogLevel, level, field="level")
    first = _coordinator("StreamJobLogs", request, stream_pb2.StreamJobLogsResponse)
    return Stream(first, stream_pb2.LogEvent, follows=follow)


def stream_metrics(
    job_id: str, *, interval: int | None = None, after: str = ""
) -> Stream[stream_pb2.MetricsEvent]:
    """Iterates over a job's metrics as they come, at most once in `interval` seconds (1 to 60).

    A broken connection is made again and goes on exactly after the last event.
    """
    request = pb.StreamJobMetricsRequest(job_id=job_id, interval=interval, after=after)
    first = _coordinator("StreamJobMetrics", request, stream_pb2.StreamJobMetricsResponse)
    return Stream(first, stream_pb2.MetricsEvent)


# Cluster


def cluster() -> Call[pb.GetClusterResponse]:
    """Reads the totals of the cluster."""
    return _coordinator("GetCluster", pb.GetClusterRequest(), pb.GetClusterResponse)


def nodes_page(
    *, status: str = "", page_size: int | None = None, page_token: str = ""
) -> Call[pb.ListNodesResponse]:
    """Reads one page of the nodes."""
    request = pb.ListNodesRequest(status_filter=status, page_size=page_size, page_token=page_token)
    return _coordinator("ListNodes", request, pb.ListNodesResponse)


def nodes(*, status: str = "", page_size: int = 100) -> Pages[node_pb2.Node]:
    """Iterates over all nodes, page by page."""
    return Pages(nodes_page(status=status, page_size=page_size), "nodes")


def node(node_id: str) -> Call[node_pb2.Node]:
    """Reads one node with its devices and telemetry."""
    return _coordinator("GetNode", pb.GetNodeRequest(node_id=node_id), node_pb2.Node)


def enable(node_id: str, *, request_id: str | None = None) -> Call[node_pb2.Node]:
    """Lets a drained node take jobs again."""
    request = pb.EnableNodeRequest(node_id=node_id, request_id=_id(request_id))
    return _coordinator("EnableNode", request, node_pb2.Node)


def remove_node(node_id: str, *, request_id: str | None = None) -> Call[pb.RemoveNodeResponse]:
    """Removes a node that will never come back; what ran there is queued again."""
    request = pb.RemoveNodeRequest(node_id=node_id, request_id=_id(request_id))
    return _coordinator("RemoveNode", request, pb.RemoveNodeResponse)


def queue(queue_name: str = "") -> Call[pb.GetQueueResponse]:
    """Reads what waits, in order; all queues by default."""
    return _coordinator("GetQueue", pb.GetQueueRequest(queue_name=queue_name), pb.GetQueueResponse)


# Evaluations and data


def submit_evaluation(
    evaluation: Body | pb.SubmitEvaluationRequest, *, request_id: str | None = None
) -> Call[pb.SubmitEvaluationResponse]:
    """Queues an evaluation of a job's model: a dict shaped as a REST body, or the message."""
    request = pb.SubmitEvaluationRequest()
    if isinstance(evaluation, pb.SubmitEvaluationRequest):
        request.CopyFrom(evaluation)
    else:
        to_message(evaluation, request)
    request.request_id = request_id or _id(request.request_id)
    return _coordinator("SubmitEvaluation", request, pb.SubmitEvaluationResponse)


def get_evaluation(evaluation_id: str) -> Call[pb.Evaluation]:
    """Reads one evaluation, with its results once it is COMPLETED."""
    request = pb.GetEvaluationRequest(evaluation_id=evaluation_id)
    return _coordinator("GetEvaluation", request, pb.Evaluation)


def evaluations_page(
    *,
    page_size: int | None = None,
    page_token: str = "",
    **filters: Unpack[JobFilters],
) -> Call[pb.ListJobsResponse]:
    """Reads one page of the tenant's evaluations that match."""
    request = pb.ListEvaluationsRequest(
        page_size=page_size, page_token=page_token, **_filters(filters)
    )
    return _coordinator("ListEvaluations", request, pb.ListJobsResponse)


def list_evaluations(*, page_size: int = 100, **filters: Unpack[JobFilters]) -> Pages[job_pb2.Job]:
    """Iterates over all of the tenant's evaluations that match, page by page."""
    return Pages(evaluations_page(page_size=page_size, **filters), "jobs")


def validate_data(
    sources: Iterable[Body | job_pb2.DataSource],
) -> Call[pb.ValidateDataResponse]:
    """Tells whether data sources can be reached and parsed."""
    request = pb.ValidateDataRequest()
    for source in sources:
        if isinstance(source, job_pb2.DataSource):
            request.sources.add().CopyFrom(source)
        else:
            to_message(source, request.sources.add())
    return _coordinator("ValidateData", request, pb.ValidateDataResponse)


def data_cache(node_id: str = "") -> Call[pb.GetDataCacheResponse]:
    """Reads what the nodes' data caches hold; of all nodes by default."""
    request = pb.GetDataCacheRequest(node_id=node_id)
    return _coordinator("GetDataCache", request, pb.GetDataCacheResponse)
