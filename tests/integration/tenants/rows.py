"""Every public method, asked about the things of one target: a tenant that is, or one that never was.

One row for each method of the protos; a method without a row fails the tests. Where a request names
nothing, what its answer may tell of others is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from google.api import annotations_pb2
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from coordinator.rpc.server import SERVICES
from scaimind.v1 import job_pb2, node_pb2, options_pb2
from scaimind.v1 import key_service_pb2 as keys
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.house import a_submit

METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for service in SERVICES
    for method in service.methods
    if not method.GetOptions().Extensions[options_pb2.rule].program
}


@dataclass(frozen=True, slots=True)
class Target:
    """What there is of a tenant, by name. Texts of one field are as long in every target."""

    tenant: str
    waiting: str
    running: str
    ended: str
    evaluation: str
    key_id: str
    queue: str
    name: str
    label: str
    checkpoint: str
    event_id: str
    page_token: str
    request_id: str

    @property
    def words(self) -> Iterator[tuple[str, str]]:
        """(field, text) of all that must not be told."""
        return ((one.name, getattr(self, one.name)) for one in fields(self))

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of its jobs, whatever they are."""
        return (self.waiting, self.running, self.ended, self.evaluation)

    def nowhere(self) -> Target:
        """The same of a tenant that never was."""
        return Target(*(text[:4] + "x" * (len(text) - 4) for _, text in self.words))

    def masked(self, text: str, other: Target) -> str:
        """A text in which each name of this target is that of the other."""
        for (_, mine), (_, its) in zip(self.words, other.words, strict=True):
            text = text.replace(mine, its)
        return text


Row = Callable[[Target], list[Message]]


def _of_jobs(kind: Any, *changes: dict[str, Any]) -> Row:
    """A request about each job of the target, in each of some variants."""
    return lambda of: [
        kind(job_id=job_id, **change) for job_id in of.jobs for change in changes or ({},)
    ]


def _repeats(kind: Any) -> Row:
    """About each job, without and with request ids, one of which the target has used.

    Only for what is refused: an answer would be remembered for the id.
    """
    return lambda of: [
        kind(job_id=job_id, request_id=request_id)
        for job_id in of.jobs
        for request_id in ("", "mine", of.request_id)
    ]


def _submit(**change: Any) -> api.SubmitJobRequest:
    request = a_submit(change)
    request.validate_only = True
    return request


def _submits(of: Target) -> list[api.SubmitJobRequest]:
    return [
        _submit(
            name=of.name, labels={"team": of.label}, scheduling_config={"queue_name": of.queue}
        ),
        *(_submit(scheduling_config={"depends_on": [job_id]}) for job_id in of.jobs),
    ]


def _lists(kind: Any) -> Row:
    return lambda of: [
        kind(),
        kind(page_token=of.page_token),
        kind(queue_name=of.queue),
        kind(name_prefix=of.name),
        kind(label=[f"team={of.label}"]),
        *(kind(parent_job_id=job_id) for job_id in of.jobs),
    ]


def _selectors(of: Target) -> list[dict[str, Any]]:
    return [
        {"label": [f"team={of.label}"]},
        {"queue_name": of.queue},
        {"name_prefix": of.name},
        {"status": ["QUEUED", "TRAINING"]},
    ]


def _evaluations(of: Target) -> list[Message]:
    asked = [
        api.SubmitEvaluationRequest(job_id=job_id, checkpoint_id=checkpoint_id)
        for job_id in of.jobs
        for checkpoint_id in ("", of.checkpoint)
    ]
    for request in asked:
        request.benchmarks.add(name="perplexity", dataset="/data.jsonl")
    return [*asked]


NODE = "n1"  # nodes are everybody's

ROWS: dict[str, Row] = {
    "ListJobs": _lists(api.ListJobsRequest),
    "SubmitJob": lambda of: [*_submits(of)],
    "BatchSubmitJobs": lambda of: [
        api.BatchSubmitJobsRequest(jobs=_submits(of), atomic=atomic) for atomic in (False, True)
    ],
    "GetJob": _of_jobs(api.GetJobRequest),
    "UpdateJob": lambda of: [
        api.UpdateJobRequest(job_id=job_id, priority=7, request_id=request_id)
        for job_id in of.jobs
        for request_id in ("", "mine", of.request_id)
    ],
    "ActOnJobs": lambda of: [
        api.ActOnJobsRequest(action=action, validate_only=check, **where)
        for action in (api.ActOnJobsRequest.PAUSE, api.ActOnJobsRequest.CANCEL)
        for check in (True, False)
        for where in _selectors(of)
    ],
    "CancelJob": _repeats(api.CancelJobRequest),
    "PauseJob": _repeats(api.PauseJobRequest),
    "ResumeJob": _repeats(api.ResumeJobRequest),
    "RetryJob": _repeats(api.RetryJobRequest),
    "ExplainJob": _of_jobs(api.ExplainJobRequest),
    "GetJobMetrics": _of_jobs(api.GetJobMetricsRequest),
    "StreamJobLogs": lambda of: [
        api.StreamJobLogsRequest(job_id=job_id, tail=-1, after=after, follow=follow)
        for job_id in of.jobs
        for after in ("", of.event_id)
        for follow in (False, True)
    ],
    "StreamJobMetrics": lambda of: [
        api.StreamJobMetricsRequest(job_id=job_id, after=after)
        for job_id in of.jobs
        for after in ("", of.event_id)
    ],
    "GetCluster": lambda of: [api.GetClusterRequest()],
    "ListNodes": lambda of: [api.ListNodesRequest()],
    "GetNode": lambda of: [api.GetNodeRequest(node_id=NODE)],
    "GetQueue": lambda of: [
        api.GetQueueRequest(),
        api.GetQueueRequest(queue_name=of.queue),
        api.GetQueueRequest(queue_name="default"),
    ],
    "GetUsage": lambda of: [
        *(api.GetUsageRequest(group_by=by) for by in api.GetUsageRequest.GroupBy.values()),
        *(api.GetUsageRequest(job_id=job_id) for job_id in of.jobs),
        api.GetUsageRequest(tenant_id=of.tenant),
        api.GetUsageRequest(queue_name=of.queue, group_by=api.GetUsageRequest.JOB),
        api.GetUsageRequest(page_token=of.page_token),
    ],
    "ListEvaluations": _lists(api.ListEvaluationsRequest),
    "SubmitEvaluation": _evaluations,
    "GetEvaluation": lambda of: [
        api.GetEvaluationRequest(evaluation_id=job_id) for job_id in of.jobs
    ],
    "ValidateData": lambda of: [
        api.ValidateDataRequest(sources=[job_pb2.DataSource(path=f"/{of.name}")])
    ],
    "GetDataCache": lambda of: [
        api.GetDataCacheRequest(),
        api.GetDataCacheRequest(node_id=NODE),
    ],
    "DrainNode": lambda of: [
        api.DrainNodeRequest(node_id=NODE, force=True, validate_only=True),
        api.DrainNodeRequest(node_id=NODE),
    ],
    "GetDrain": lambda of: [api.GetDrainRequest(node_id=NODE)],
    "StartRollingDrain": lambda of: [
        api.StartRollingDrainRequest(validate_only=True),
        api.StartRollingDrainRequest(label=["nobody=has"]),
    ],
    "ListRollingDrains": lambda of: [api.ListRollingDrainsRequest()],
    "GetRollingDrain": lambda of: [api.GetRollingDrainRequest(drain_id="drain_x")],
    "CancelRollingDrain": lambda of: [api.CancelRollingDrainRequest(drain_id="drain_x")],
    "Simulate": lambda of: [
        api.SimulateRequest(),
        api.SimulateRequest(
            changes=[api.SimulatedChange(drain=api.DrainNodeRequest(node_id=NODE))]
        ),
    ],
    "SetNodeHealth": lambda of: [
        api.SetNodeHealthRequest(
            node_id=NODE, state=node_pb2.NodeHealth.QUARANTINED, validate_only=True
        )
    ],
    "EnableNode": lambda of: [api.EnableNodeRequest(node_id=NODE)],
    "RemoveNode": lambda of: [api.RemoveNodeRequest(node_id=NODE)],
    "SetQueue": lambda of: [api.SetQueueRequest(name="shared", weight=2)],
    "ListQueues": lambda of: [api.ListQueuesRequest()],
    "RemoveQueue": lambda of: [api.RemoveQueueRequest(name="shared")],
    "CreateKey": lambda of: [
        keys.CreateKeyRequest(tenant_id=of.tenant, permissions=[options_pb2.VIEW])
    ],
    "ListKeys": lambda of: [keys.ListKeysRequest(), keys.ListKeysRequest(tenant_id=of.tenant)],
    "RevokeKey": lambda of: [keys.RevokeKeyRequest(key_id=of.key_id)],
}


@dataclass(frozen=True, slots=True)
class Http:
    """A request over HTTP, below the place of the module."""

    verb: str
    path: str
    query: dict[str, Any]
    body: dict[str, Any] | None

    @property
    def words(self) -> dict[str, Any]:
        """For httpx."""
        more = {} if self.body is None else {"json": self.body}
        return {"method": self.verb, "url": self.path, "params": self.query, **more}


def over_http(name: str, request: Message) -> list[Http]:
    """The same request by each way that HTTP has to it."""
    rule = METHODS[name].GetOptions().Extensions[annotations_pb2.http]
    found = []
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if not verb:
            continue
        left = json_format.MessageToDict(request, preserving_proto_field_name=True)
        path = getattr(binding, verb)
        for field in [one for one in left if f"{{{one}}}" in path]:
            path = path.replace(f"{{{field}}}", str(left.pop(field)))
        if binding.body:
            assert binding.body == "*"
            found.append(Http(verb.upper(), path, {}, left))
        else:
            found.append(Http(verb.upper(), path, _texts(left), None))
    return found


def _texts(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in values.items()
    }
