"""Calls of both clients against a real gRPC server."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from scaimind import client as errors
from scaimind.client import AsyncClient, Client
from scaimind.v1 import job_pb2, key_service_pb2
from scaimind.v1 import mind_coordinator_pb2 as pb
from tests.integration.client.scripted import Refusal, Scripted, refusal

JOB = {
    "name": "first",
    "training_config": {
        "training_type": "SFT",
        "base_model": {"model_id": "tiny"},
        "framework": {"type": "CUSTOM", "custom_script_path": "train.py"},
        "hyperparameters": {"lr": 0.1, "steps": 3, "fast": True, "name": "x"},
    },
    "data_config": {"sources": [{"path": "data.jsonl"}]},
    "resource_config": {"gpu_count": 1},
}
Code = grpc.StatusCode


def test_a_submit_sends_the_key_and_a_request_id(coordinator: Scripted, client: Client) -> None:
    coordinator.answers["SubmitJob"] = lambda _: pb.SubmitJobResponse(job_id="job_1")
    assert client.submit(JOB).job_id == "job_1"
    [request] = coordinator.requests("SubmitJob")
    assert coordinator.metadata["authorization"] == "Bearer sgk_test"
    assert len(request.request_id) == 36
    assert request.training_config.hyperparameters == {
        "lr": "0.1",
        "steps": "3",
        "fast": "true",
        "name": "x",
    }


def test_an_unavailable_coordinator_is_asked_again_with_the_same_request_id(
    coordinator: Scripted, client: Client
) -> None:
    def answer(_: object) -> pb.SubmitJobResponse:
        if len(coordinator.asked) < 3:
            raise refusal(Code.UNAVAILABLE, "NOT_LEADER")
        return pb.SubmitJobResponse(job_id="job_1")

    coordinator.answers["SubmitJob"] = answer
    assert client.submit(JOB).job_id == "job_1"
    ids = {request.request_id for request in coordinator.requests("SubmitJob")}
    assert len(coordinator.asked) == 3
    assert len(ids) == 1


def test_a_key_is_asked_for_again_with_the_same_request_id(
    coordinator: Scripted, client: Client
) -> None:
    def answer(_: object) -> key_service_pb2.CreateKeyResponse:
        if len(coordinator.asked) < 3:
            raise refusal(Code.UNAVAILABLE, "SHUTTING_DOWN")
        return key_service_pb2.CreateKeyResponse(key="sgk_x")

    coordinator.answers["CreateKey"] = answer
    assert client.create_key("local", permissions=["view"]).key == "sgk_x"
    requests = coordinator.requests("CreateKey")
    assert len({request.request_id for request in requests}) == 1
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.NOT_FOUND, errors.NotFound),
        (Code.INVALID_ARGUMENT, errors.InvalidArgument),
        (Code.PERMISSION_DENIED, errors.PermissionDenied),
        (Code.UNAUTHENTICATED, errors.Unauthenticated),
        (Code.ALREADY_EXISTS, errors.AlreadyExists),
        (Code.FAILED_PRECONDITION, errors.FailedPrecondition),
        (Code.ABORTED, errors.Aborted),
        (Code.RESOURCE_EXHAUSTED, errors.ResourceExhausted),
        (Code.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (Code.INTERNAL, errors.Internal),
        (Code.DATA_LOSS, errors.MindError),
    ],
)
def test_every_code_has_its_class(
    coordinator: Scripted, client: Client, *, code: grpc.StatusCode, kind: type[errors.MindError]
) -> None:
    def answer(_: object) -> job_pb2.Job:
        raise refusal(code, "THE_REASON", "what happened")

    coordinator.answers["GetJob"] = answer
    with pytest.raises(errors.MindError) as caught:
        client.get_job("job_1")
    assert type(caught.value) is kind
    assert caught.value.code == code.name
    assert caught.value.reason == "THE_REASON"
    assert caught.value.message == "what happened"


def test_an_error_names_fields_request_and_time(coordinator: Scripted, client: Client) -> None:
    fault = error_details_pb2.BadRequest.FieldViolation(field="name", description="is empty")

    def answer(_: object) -> job_pb2.Job:
        raise Refusal(
            Code.RESOURCE_EXHAUSTED,
            "slow down",
            error_details_pb2.ErrorInfo(reason="QUOTA_EXCEEDED"),
            error_details_pb2.BadRequest(field_violations=[fault]),
            error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3)),
            error_details_pb2.RequestInfo(request_id="req_7"),
        )

    coordinator.answers["GetJob"] = answer
    with pytest.raises(errors.ResourceExhausted) as caught:
        client.get_job("job_1")
    assert caught.value.details == (errors.FieldError("name", "is empty"),)
    assert caught.value.retry_after_s == 3
    assert caught.value.request_id == "req_7"
    assert str(caught.value) == "slow down (QUOTA_EXCEEDED); name: is empty"


def test_a_method_that_the_server_lacks_is_unimplemented(client: Client) -> None:
    with pytest.raises(errors.Unimplemented):
        client.explain("job_1")


def test_a_coordinator_that_is_not_there_is_unavailable() -> None:
    with Client("127.0.0.1:1", "k", retry_s=0.2) as client, pytest.raises(errors.Unavailable):
        client.cluster()


def test_all_pages_are_read(coordinator: Scripted, client: Client) -> None:
    def answer(request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        start = int(request.page_token or 0)
        jobs = [job_pb2.Job(job_id=f"job_{n}") for n in range(start, min(start + 2, 5))]
        return pb.ListJobsResponse(jobs=jobs, next_page_token=str(start + 2) if start < 4 else "")

    coordinator.answers["ListJobs"] = answer
    found = [job.job_id for job in client.list_jobs(status=["TRAINING"], label=["a=b"])]
    assert found == [f"job_{n}" for n in range(5)]
    for request in coordinator.requests("ListJobs"):
        assert list(request.status) == [job_pb2.Job.TRAINING]
        assert list(request.label) == ["a=b"]


def test_a_value_that_cannot_be_sent_is_an_invalid_argument(client: Client) -> None:
    with pytest.raises(errors.InvalidArgument):
        client.jobs_page(status=["NONSENSE"])
    with pytest.raises(errors.InvalidArgument):
        client.get_metrics("job_1", max_points=10**20)


def test_a_wait_ends_with_the_job(coordinator: Scripted, client: Client) -> None:
    states = [job_pb2.Job.QUEUED, job_pb2.Job.QUEUED, job_pb2.Job.TRAINING, job_pb2.Job.COMPLETED]

    def answer(request: pb.GetJobRequest) -> job_pb2.Job:
        status = states[min(len(coordinator.asked), len(states)) - 1]
        return job_pb2.Job(job_id=request.job_id, status=status, version=status)

    coordinator.answers["GetJob"] = answer
    seen: list[int] = []
    job = client.wait("job_1", on_update=lambda job: seen.append(job.status))
    assert job.status == job_pb2.Job.COMPLETED
    assert seen == [job_pb2.Job.QUEUED, job_pb2.Job.TRAINING, job_pb2.Job.COMPLETED]


def test_a_wait_can_run_out_of_time(coordinator: Scripted, client: Client) -> None:
    running = job_pb2.Job(job_id="job_1", status=job_pb2.Job.TRAINING)
    coordinator.answers["GetJob"] = lambda _: running
    with pytest.raises(errors.DeadlineExceeded, match="job_1 is still TRAINING"):
        client.wait("job_1", timeout_s=1.0)


async def test_the_async_client_does_the_same(coordinator: Scripted) -> None:
    coordinator.answers["SubmitJob"] = lambda _: pb.SubmitJobResponse(job_id="job_1")
    done = job_pb2.Job(job_id="job_1", status=job_pb2.Job.COMPLETED)
    coordinator.answers["GetJob"] = lambda _: done
    coordinator.answers["ListJobs"] = lambda _: pb.ListJobsResponse(jobs=[done])
    keys = key_service_pb2.ListKeysResponse(keys=[key_service_pb2.ApiKey(key_id="key_1")])
    coordinator.answers["ListKeys"] = lambda _: keys
    async with AsyncClient(coordinator.address, "sgk_test") as client:
        assert (await client.submit(JOB)).job_id == "job_1"
        assert (await client.wait("job_1")).status == job_pb2.Job.COMPLETED
        assert [job.job_id async for job in client.list_jobs()] == ["job_1"]
        assert [key.key_id async for key in client.list_keys()] == ["key_1"]
        with pytest.raises(errors.Unimplemented):
            await client.cluster()
