"""Messages as JSON, in the shape of REST."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.json_out import JsonWriter
from scaimind.cli.shape import shape
from scaimind.v1 import job_pb2, node_pb2
from scaimind.v1 import mind_coordinator_pb2 as pb


def test_unset_things_are_null_or_empty() -> None:
    data = shape(job_pb2.Job())
    assert data["error"] is None
    assert data["eta_seconds"] is None
    assert data["created_at"] is None
    assert data["checkpoints"] == []
    assert data["labels"] == {}
    assert data["job_id"] == ""
    assert data["status"] == "STATUS_UNSPECIFIED"
    assert set(data) == {field.name for field in job_pb2.Job.DESCRIPTOR.fields}


def test_values_have_their_json_form() -> None:
    point = job_pb2.MetricPoint(
        step=2**60, values={"loss": float("nan"), "b": float("inf"), "c": float("-inf"), "d": 1.5}
    )
    job = job_pb2.Job(
        status=job_pb2.Job.FAILED,
        version=2**53,
        created_at=Timestamp(seconds=1_700_000_000, nanos=5_000_000),
        latest_metrics=point,
    )
    job.error.exit_code = 0
    data = shape(job)
    assert data["status"] == "FAILED"
    assert data["version"] == 2**53
    assert data["created_at"] == "2023-11-14T22:13:20.005Z"
    assert data["error"]["exit_code"] == 0
    assert data["error"]["signal"] is None
    assert data["latest_metrics"]["step"] == str(2**60)
    assert data["latest_metrics"]["values"] == {
        "loss": "NaN",
        "b": "Infinity",
        "c": "-Infinity",
        "d": 1.5,
    }
    assert json.loads(json.dumps(data)) == data


def test_a_value_that_only_a_newer_coordinator_knows_is_its_number() -> None:
    job = job_pb2.Job()
    job.ParseFromString(bytes([5 << 3, 99]))
    assert shape(job)["status"] == 99


def test_the_shape_is_that_of_the_gateway() -> None:
    job = job_pb2.Job(job_id="job_1", status=job_pb2.Job.TRAINING, progress=1.5, version=2**60)
    job.labels["a"] = "b"
    job.checkpoints.add(step=7, created_at=Timestamp(seconds=5, nanos=6_000))
    job.latest_metrics.values["loss"] = float("nan")
    job.output_config.keep_checkpoints = 3
    job.scheduling_config.preemptible = False
    result = pb.BatchResult(error=pb.BatchError(code="NEVER_FITS"))
    batch = pb.BatchSubmitJobsResponse(results=[result])
    messages: list[Message] = [job, batch, node_pb2.Node(), pb.GetClusterResponse()]
    for message in messages:
        descriptor: Any = message.DESCRIPTOR
        assert shape(message) == JsonWriter().printer(descriptor)(message)


def test_one_outcome_of_several_is_shown_and_the_others_are_null() -> None:
    result = pb.BatchResult(error=pb.BatchError(code="NEVER_FITS"))
    data = shape(pb.BatchSubmitJobsResponse(results=[result]))
    assert data["results"][0]["job"] is None
    assert data["results"][0]["error"]["code"] == "NEVER_FITS"
