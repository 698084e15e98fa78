"""Section 6: the service over gRPC, by its bare stubs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as rpc_details
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1.mind_coordinator_pb2_grpc import MindCoordinatorStub
from tests.e2e.contract.conftest import Caller, MakeCaller
from tests.e2e.contract.test_rest import ENDPOINTS, LATER, data
from tests.support import jobs
from tests.support.cluster import Cluster
from tests.support.waiting import until

SERVICE = api.DESCRIPTOR.services_by_name["MindCoordinator"]
DETAILS = (
    rpc_details.ErrorInfo,
    rpc_details.BadRequest,
    rpc_details.PreconditionFailure,
    rpc_details.RetryInfo,
)
LIMIT_S = 30


@pytest.fixture(scope="module")
def stub(cluster: Cluster) -> Iterator[MindCoordinatorStub]:
    with grpc.insecure_channel(cluster.grpc) as channel:
        yield MindCoordinatorStub(channel)


def metadata(key: str, *more: tuple[str, str]) -> Any:
    return (("authorization", f"Bearer {key}"), *more)


def submit(**more: Any) -> api.SubmitJobRequest:
    body = jobs.body("/bin/true", scheduling=LATER) | more
    return json_format.ParseDict(body, api.SubmitJobRequest())


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """The code of a refusal, and its details by name."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert status.message == caught.value.details()
    told: dict[str, Any] = {}
    for packed in status.details:
        (kind,) = (kind for kind in DETAILS if packed.Is(kind.DESCRIPTOR))
        told[kind.__name__] = unpacked = kind()
        packed.Unpack(unpacked)
    return caught.value.code(), told


def test_every_endpoint_of_rest_is_a_method(cluster: Cluster) -> None:
    described = cluster.rest.get("/openapi.json").json()["paths"]
    methods = {method.name for method in SERVICE.methods}
    for verb, path, *_ in ENDPOINTS:
        assert described[path][verb.lower()]["operationId"] in methods


def test_both_ways_in_lead_to_the_same_job(caller: Caller, stub: MindCoordinatorStub) -> None:
    request = submit(labels={"way": "grpc"})
    by_grpc = stub.SubmitJob(request, metadata=metadata(caller.key), timeout=LIMIT_S)
    shown = data(caller.rest.get(f"/jobs/{by_grpc.job_id}"))
    job = stub.GetJob(
        api.GetJobRequest(job_id=by_grpc.job_id), metadata=metadata(caller.key), timeout=LIMIT_S
    )
    assert (shown["labels"], dict(job.labels)) == ({"way": "grpc"}, {"way": "grpc"})
    as_json = json_format.MessageToDict(
        job, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert set(as_json) <= set(shown)


@pytest.mark.parametrize(
    ("name", "request_", "code", "reason", "detail"),
    [
        ("GetJob", api.GetJobRequest(job_id="x"), "NOT_FOUND", "JOB_NOT_FOUND", ""),
        ("GetJob", api.GetJobRequest(), "INVALID_ARGUMENT", "INVALID_ARGUMENT", "job_id"),
        ("GetNode", api.GetNodeRequest(node_id="x"), "NOT_FOUND", "NODE_NOT_FOUND", ""),
        (
            "ListJobs",
            api.ListJobsRequest(page_size=101),
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT",
            "page_size",
        ),
        (
            "SubmitJob",
            submit(resource_config={"gpu_count": 999}),
            "INVALID_ARGUMENT",
            "NEVER_FITS",
            "resource_config.gpu_count",
        ),
        (
            "DrainNode",
            api.DrainNodeRequest(node_id="x"),
            "NOT_FOUND",
            "NODE_NOT_FOUND",
            "node_id",
        ),
    ],
)
def test_a_refusal_tells_its_reason_and_the_field_at_fault(
    caller: Caller, stub: MindCoordinatorStub, name: str, request_: Message, code: str, reason: str, detail: str
) -> None:  # fmt: skip
    found, told = refusal(
        lambda: getattr(stub, name)(
            request_, metadata=metadata(caller.key, ("x-request-id", "req_mine")), timeout=LIMIT_S
        )
    )
    info = told["ErrorInfo"]
    assert (found.name, info.reason, info.domain) == (code, reason, "mindcoordinator")
    assert info.metadata["request_id"] == "req_mine"
    if detail:
        assert [fault.field for fault in told["BadRequest"].field_violations] == [detail]


@pytest.mark.parametrize("path", ["/scaimind.v1.MindCoordinator/Nothing", "/nobody.Service/Get"])
def test_an_unknown_method_is_a_refusal_like_any_other(
    cluster: Cluster, caller: Caller, path: str
) -> None:
    sent = metadata(caller.key, ("x-request-id", "req_mine"))
    with grpc.insecure_channel(cluster.grpc) as channel:
        unary: Any = channel.unary_unary(path)
        stream: Any = channel.unary_stream(path)
        for call in (
            lambda: unary(b"", metadata=sent, timeout=LIMIT_S),
            lambda: list(stream(b"", metadata=sent, timeout=LIMIT_S)),
        ):
            code, told = refusal(call)
            assert code is grpc.StatusCode.UNIMPLEMENTED
            assert told["ErrorInfo"].reason == "UNIMPLEMENTED"
            assert told["ErrorInfo"].metadata["request_id"] == "req_mine"


def test_a_wrong_status_is_a_failed_precondition_that_names_it(
    caller: Caller, stub: MindCoordinatorStub
) -> None:
    job = stub.SubmitJob(submit(), metadata=metadata(caller.key), timeout=LIMIT_S)
    request = api.ResumeJobRequest(job_id=job.job_id)
    code, told = refusal(
        lambda: stub.ResumeJob(request, metadata=metadata(caller.key), timeout=LIMIT_S)
    )
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert told["ErrorInfo"].reason == "WRONG_STATUS"
    (violation,) = told["PreconditionFailure"].violations
    assert "PENDING" in violation.description


def test_the_credential_alone_says_who_calls(
    caller: Caller, make_caller: MakeCaller, stub: MindCoordinatorStub
) -> None:
    request = api.ListJobsRequest()
    told = [
        refusal(lambda sent=sent: stub.ListJobs(request, metadata=sent, timeout=LIMIT_S))  # type: ignore[misc]
        for sent in (
            (),
            metadata("sgk_wrong"),
            (("x-tenant-id", "local"), ("x-permissions", "scaimind:view")),
            (("x-api-secret", "guess"), ("x-tenant-id", "local")),
        )
    ]
    assert {code for code, _ in told} == {grpc.StatusCode.UNAUTHENTICATED}
    reasons = [details["ErrorInfo"].reason for _, details in told]
    assert reasons == [
        f"AUTH_TOKEN_{word}" for word in ("MISSING", "INVALID", "MISSING", "INVALID")
    ]
    stub.SubmitJob(submit(), metadata=metadata(caller.key), timeout=LIMIT_S)
    other = make_caller("view", tenant="elsewhere")
    claims = metadata(other.key, ("x-tenant-id", "test-grpc"))
    assert not stub.ListJobs(request, metadata=claims, timeout=LIMIT_S).jobs
    code, details = refusal(
        lambda: stub.SubmitJob(submit(), metadata=metadata(other.key), timeout=LIMIT_S)
    )
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert details["ErrorInfo"].reason == "AUTHZ_PERMISSION_DENIED"


def test_a_request_id_is_one_with_the_idempotency_key_of_rest(
    caller: Caller, stub: MindCoordinatorStub
) -> None:
    request = submit(request_id="both-ways")
    sent = metadata(caller.key)
    first, call = stub.SubmitJob.with_call(request, metadata=sent, timeout=LIMIT_S)
    assert not call.trailing_metadata()
    again, call = stub.SubmitJob.with_call(request, metadata=sent, timeout=LIMIT_S)
    assert again == first
    assert ("x-idempotency-replayed", "true") in call.trailing_metadata()
    body = jobs.body("/bin/true", scheduling=LATER)
    answer = caller.rest.post("/jobs", json=body, headers={"idempotency-key": "both-ways"})
    assert data(answer, 201)["job_id"] == first.job_id
    assert answer.headers["idempotency-replayed"] == "true"
    request.name = "another"
    code, details = refusal(lambda: stub.SubmitJob(request, metadata=sent, timeout=LIMIT_S))
    assert code is grpc.StatusCode.ALREADY_EXISTS
    assert details["ErrorInfo"].reason == "REQUEST_ID_REUSED"


def test_a_batch_tells_of_each_job_what_a_submit_of_it_alone_is_told(
    caller: Caller, stub: MindCoordinatorStub
) -> None:
    sent = metadata(caller.key)
    bad = [submit(name=""), submit(labels={"a=b": "c"}), api.SubmitJobRequest(), submit()]
    bad[3].resource_config.gpu_count = 0
    request = api.BatchSubmitJobsRequest(jobs=[submit(), *bad, submit()], request_id="batch")
    answer, call = stub.BatchSubmitJobs.with_call(request, metadata=sent, timeout=LIMIT_S)
    assert not call.trailing_metadata()
    first, *refused, last = answer.results
    assert first.job.job_id != last.job.job_id
    for job, one in zip(bad, refused, strict=True):
        with pytest.raises(grpc.RpcError) as caught:
            stub.SubmitJob(job, metadata=sent, timeout=LIMIT_S)
        code, details = refusal(partial(stub.SubmitJob, job, metadata=sent, timeout=LIMIT_S))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert one.error.code == "INVALID_ARGUMENT"
        assert one.error.message == caught.value.details()
        fields = details["BadRequest"].field_violations
        assert [(each.field, each.message) for each in one.error.details] == [
            (each.field, each.description) for each in fields
        ]
    again, call = stub.BatchSubmitJobs.with_call(request, metadata=sent, timeout=LIMIT_S)
    assert again == answer
    assert ("x-idempotency-replayed", "true") in call.trailing_metadata()
    request.atomic, request.request_id = True, ""
    code, details = refusal(lambda: stub.BatchSubmitJobs(request, metadata=sent, timeout=LIMIT_S))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    fields = [each.field for each in details["BadRequest"].field_violations]
    assert fields[:3] == ["jobs[1].name", 'jobs[2].labels["a=b"]', "jobs[3].name"]


def test_health_tells_that_it_serves(cluster: Cluster) -> None:
    with grpc.insecure_channel(cluster.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE.full_name):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=LIMIT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_a_log_is_followed_over_a_break(
    caller: Caller, stub: MindCoordinatorStub, tmp_path: Path
) -> None:
    program = jobs.script(tmp_path, "ten.py", "for number in range(10): print(number)\n")
    request = json_format.ParseDict(jobs.body(program), api.SubmitJobRequest())
    sent = metadata(caller.key)
    job_id = stub.SubmitJob(request, metadata=sent, timeout=LIMIT_S).job_id
    jobs.final(caller.grpc, job_id)

    def events(after: str) -> list[Any]:
        asked = api.StreamJobLogsRequest(job_id=job_id, tail=-1, after=after)
        stream = stub.StreamJobLogs(asked, metadata=sent)
        return [event for batch in stream for event in batch.events]

    whole = events("")
    assert [event.log.message for event in whole[:-1]] == [str(number) for number in range(10)]
    assert whole[-1].end.status == job_pb2.Job.COMPLETED
    assert events(whole[4].id) == whole[5:]
    code, details = refusal(lambda: events(whole[-1].id))
    assert code is grpc.StatusCode.OUT_OF_RANGE
    assert details["ErrorInfo"].reason == "STREAM_ENDED"


def test_a_deadline_is_honoured_and_a_cancelled_stream_is_let_go(
    caller: Caller, stub: MindCoordinatorStub
) -> None:
    job_id = stub.SubmitJob(submit(), metadata=metadata(caller.key), timeout=LIMIT_S).job_id
    asked = api.StreamJobLogsRequest(job_id=job_id)
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.StreamJobLogs(asked, metadata=metadata(caller.key), timeout=0.5))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    stream = stub.StreamJobLogs(asked, metadata=metadata(caller.key))
    stream.initial_metadata()  # it is open
    stream.cancel()
    until(lambda: not stream.is_active(), "the stream is let go")
