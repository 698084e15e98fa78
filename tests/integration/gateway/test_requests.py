"""Unary requests through a real gateway and a real gRPC server."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from gateway.endpoint import Limits
from gateway.server import MAX_HEAD
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.gateway.scripted import ALL_KEY, SECRET, WITHIN_S, World, eventually, world

SUBMIT: dict[str, Any] = {
    "name": "tiny",
    "training_config": {
        "training_type": "SFT",
        "base_model": {"model_id": "none"},
        "framework": {"type": "CUSTOM", "custom_script_path": "train.py"},
        "hyperparameters": {"lr": 1e-4, "epochs": 3, "shuffle": True, "name": "x"},
    },
    "data_config": {"sources": [{"path": "s3://bucket/train.jsonl"}]},
    "resource_config": {"gpu_count": 1, "gpu_type": "CPU"},
}


async def submitted(request: Any, context: Any) -> Any:
    return api.SubmitJobResponse(job_id="job_1", status=job_pb2.Job.Status.QUEUED)


async def found(request: Any, context: Any) -> Any:
    return job_pb2.Job(job_id=request.job_id, name="tiny", version=2**53 + 1)


async def test_a_submit_becomes_a_call_and_its_answer_an_envelope(running: World) -> None:
    running.coordinator.scripts["SubmitJob"] = submitted
    body = (
        b'{"name":"tiny","training_config":{"training_type":"SFT","base_model":{"model_id":"m"},'
        b'"framework":{"type":"CUSTOM"},"hyperparameters":{"lr":1e-4,"w":0.10,"s":true,"n":3}},'
        b'"data_config":{"sources":[]},"resource_config":{"gpu_count":1}}'
    )
    headers = {"content-type": "application/json", "x-request-id": "mine-1"}
    answer = await running.client.post("/jobs", content=body, headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (201, "mine-1")
    assert answer.json() == {
        "status": "ok",
        "data": {
            "job_id": "job_1",
            "status": "QUEUED",
            "message": "",
            "estimated_wait_seconds": None,
        },
        "meta": {"request_id": "mine-1"},
    }
    request = running.coordinator.requests[0]
    kept = dict(request.training_config.hyperparameters)
    assert kept == {"lr": "1e-4", "w": "0.10", "s": "true", "n": "3"}


async def test_the_caller_and_the_secret_travel_as_metadata(running: World) -> None:
    running.coordinator.scripts["GetJob"] = found
    answer = await running.client.get("/jobs/job_1", headers={"x-request-id": "bad id!"})
    sent = running.coordinator.metadata[0]
    assert sent["x-api-secret"] == SECRET
    assert (sent["x-tenant-id"], sent["x-user-id"]) == ("acme", "ann")
    assert sent["x-permissions"].split(",") == [
        "scaimind:cluster_admin",
        "scaimind:evaluate",
        "scaimind:manage",
        "scaimind:view",
    ]
    made = answer.headers["x-request-id"]
    assert made.startswith("req_")
    assert sent["x-request-id"] == made == answer.json()["meta"]["request_id"]
    assert "authorization" not in sent


async def test_integers_that_a_double_cannot_hold_are_strings(running: World) -> None:
    running.coordinator.scripts["GetJob"] = found
    data = (await running.client.get("/jobs/job_1")).json()["data"]
    assert data["version"] == str(2**53 + 1)
    assert (data["attempts_count"], data["labels"], data["checkpoints"]) == (0, {}, [])
    assert data["attempt"] is None


@pytest.mark.parametrize("path", ["/jobs/a%2Fcancel", "/jobs/%E2%82%AC", "/jobs/a:b", "/jobs/.."])
async def test_identifiers_reach_the_coordinator_as_they_were_meant(
    running: World, path: str
) -> None:
    running.coordinator.scripts["GetJob"] = found
    reader, writer = await asyncio.open_connection(*running.address)
    writer.write(
        f"GET /v1/modules/scaimind{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
        f"authorization: Bearer {ALL_KEY}\r\n\r\n".encode()
    )
    text = (await reader.read()).decode()
    writer.close()
    meant = {"/jobs/a%2Fcancel": "a/cancel", "/jobs/%E2%82%AC": "€"}
    assert text.startswith("HTTP/1.1 200")
    assert running.coordinator.requests[0].job_id == meant.get(path, path[6:])


async def test_an_empty_body_without_a_type_is_an_action(running: World) -> None:
    running.coordinator.scripts["PauseJob"] = found
    answer = await running.client.post("/jobs/job_1/pause")
    assert answer.status_code == 200
    assert not running.coordinator.requests[0].HasField("save_checkpoint")


async def test_the_idempotency_key_becomes_the_request_id(running: World) -> None:
    async def replayed(request: Any, context: Any) -> Any:
        context.set_trailing_metadata((("x-idempotency-replayed", "true"),))
        return job_pb2.Job(job_id=request.job_id)

    running.coordinator.scripts["CancelJob"] = replayed
    answer = await running.client.post("/jobs/j/cancel", headers={"idempotency-key": "k-1"})
    assert answer.headers["idempotency-replayed"] == "true"
    assert running.coordinator.requests[0].request_id == "k-1"


async def test_a_first_answer_is_not_called_a_replay(running: World) -> None:
    running.coordinator.scripts["CancelJob"] = found
    answer = await running.client.post("/jobs/j/cancel", headers={"idempotency-key": "k-1"})
    assert "idempotency-replayed" not in answer.headers


async def test_query_parameters_fill_fields(running: World) -> None:
    async def listed(request: Any, context: Any) -> Any:
        return api.ListJobsResponse(total_count=3)

    running.coordinator.scripts["ListJobs"] = listed
    answer = await running.client.get(
        "/jobs?status=QUEUED&status=TRAINING&page_size=5&label=a=b&order_by=created_at%20asc"
        "&queue_name=night&parent_job_id=job_1&created_after=2026-03-01T09:30:00Z"
        "&created_before=2026-03-02T00:00:00.5%2B01:00&name_prefix=tiny"
    )
    assert answer.json()["data"] == {
        "jobs": [],
        "next_page_token": "",
        "total_count": 3,
        "total_is_least": False,
    }
    request = running.coordinator.requests[0]
    assert list(request.status) == [2, 5]
    assert (request.page_size, list(request.label)) == (5, ["a=b"])
    assert request.order_by == "created_at asc"
    kept = (request.queue_name, request.parent_job_id, request.name_prefix)
    assert kept == ("night", "job_1", "tiny")
    assert request.created_after.ToJsonString() == "2026-03-01T09:30:00Z"
    assert request.created_before.ToJsonString() == "2026-03-01T23:00:00.500Z"


@pytest.mark.parametrize("path", ["/jobs", "/evaluations"])
async def test_a_query_that_does_not_fit_is_refused_by_name(running: World, path: str) -> None:
    for query in ("created_after=yesterday", "name_prefix=a&name_prefix=b", "status=QUIET"):
        answer = await running.client.get(f"{path}?{query}")
        assert answer.status_code == 422
        (detail,) = answer.json()["error"]["details"]
        assert detail["field"].partition("[")[0] == query.partition("=")[0]
    assert running.coordinator.requests == []


async def test_a_request_that_does_not_fit_never_reaches_the_coordinator(running: World) -> None:
    body = {**SUBMIT, "name": "", "colour": "red", "labels": {"a=b": "c"}}
    body["resource_config"] = {"gpu_count": "many", "gpu_fraction": 2}
    answer = await running.client.post("/jobs", json=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert sorted(detail["field"] for detail in error["details"]) == [
        "colour",
        'labels["a=b"]',
        "name",
        "resource_config.gpu_count",
        "resource_config.gpu_fraction",
    ]
    assert running.coordinator.requests == []


async def test_the_order_of_refusals(running: World) -> None:
    client = running.client
    bad_body = {"content": b"{", "headers": {"content-type": "text/plain"}}
    nobody = {"authorization": ""}
    viewer = {"authorization": "Bearer sgk_view"}
    assert (await client.post("/nowhere", headers=nobody)).status_code == 404
    assert (await client.delete("/jobs", headers=nobody)).status_code == 405
    assert (await client.post("/jobs", content=b"{", headers=nobody)).status_code == 401
    assert (await client.post("/jobs", content=b"{", headers=viewer)).status_code == 403
    assert (await client.post("/jobs", **bad_body)).status_code == 415  # type: ignore[arg-type]
    json_type = {"content-type": "application/json"}
    assert (await client.post("/jobs", content=b"{", headers=json_type)).status_code == 400
    assert (await client.post("/jobs", content=b"{}", headers=json_type)).status_code == 422


async def test_every_refusal_is_an_envelope_with_the_request_id(running: World) -> None:
    for verb, path in (("GET", "/nowhere"), ("DELETE", "/jobs"), ("POST", "/jobs")):
        answer = await running.client.request(
            verb, path, headers={"x-request-id": "r1", "authorization": "Basic abc"}
        )
        body = answer.json()
        assert (body["status"], body["meta"]) == ("error", {"request_id": "r1"})
        assert answer.headers["content-type"] == "application/json"
        assert set(body["error"]) >= {"code", "message"}
    assert (await running.client.delete("/jobs")).headers["allow"] == "GET, POST"


async def test_a_large_body_is_refused_before_it_is_read_to_its_end() -> None:
    async with world(limits=Limits(body_bytes=10_000)) as made:
        headers = {"content-type": "application/json"}
        answer = await made.client.post("/jobs", content=b" " * 10_001, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")

        async def pieces() -> Any:
            for _ in range(100):
                yield b" " * 1000

        answer = await made.client.post("/jobs", content=pieces(), headers=headers)
        assert answer.status_code == 413


async def test_a_body_where_none_is_taken_is_refused(running: World) -> None:
    answer = await running.client.request("GET", "/jobs", json={"page_size": 3})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_ARGUMENT")


async def test_a_body_that_never_comes_times_out() -> None:
    async with world(limits=Limits(body_timeout_s=0.1)) as made:
        reader, writer = await asyncio.open_connection(*made.address)
        writer.write(
            f"POST /v1/modules/scaimind/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n"
            f"content-type: application/json\r\nauthorization: Bearer {ALL_KEY}\r\n\r\n".encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_a_caller_who_leaves_cancels_the_call(running: World) -> None:
    begun = asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    running.coordinator.scripts["GetJob"] = slow
    asking = asyncio.create_task(running.client.get("/jobs/j"))
    await begun.wait()
    asking.cancel()
    await asyncio.wait_for(running.coordinator.cancelled.wait(), WITHIN_S)


async def test_keys_are_resolved_by_digest_once_and_revocation_is_quick(running: World) -> None:
    coordinator = running.coordinator
    coordinator.scripts["GetJob"] = found
    answers = await asyncio.gather(*(running.client.get("/jobs/j") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(coordinator.resolved) == 1
    assert ALL_KEY not in coordinator.resolved[0]
    del coordinator.grants[ALL_KEY]

    async def refused() -> None:
        while (await running.client.get("/jobs/j")).status_code != 401:
            pass

    await asyncio.wait_for(refused(), 20)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "AUTH_TOKEN_MISSING"),
        ("Basic abc", "AUTH_TOKEN_INVALID"),
        ("Bearer", "AUTH_TOKEN_INVALID"),
        ("Bearer other_key", "AUTH_TOKEN_INVALID"),
        ("Bearer sgk_unknown", "AUTH_TOKEN_INVALID"),
        ("Bearer sgk_" + "x" * 4000, "AUTH_TOKEN_INVALID"),
    ],
)
async def test_a_bad_credential_is_401(running: World, header: str, code: str) -> None:
    answer = await running.client.get("/jobs", headers={"authorization": header})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_missing_permission_is_403_and_named(running: World) -> None:
    answer = await running.client.post(
        "/cluster/nodes/n/drain", headers={"authorization": "Bearer sgk_view"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "AUTHZ_PERMISSION_DENIED")
    assert "scaimind:cluster_admin" in error["message"]
    assert running.coordinator.requests == []


async def test_any_one_of_the_permissions_suffices(running: World) -> None:
    async def listed(request: Any, context: Any) -> Any:
        return api.ListJobsResponse()

    running.coordinator.scripts["ListEvaluations"] = listed
    running.coordinator.grants["sgk_eval"] = [4]
    for key in ("sgk_view", "sgk_eval"):
        headers = {"authorization": f"Bearer {key}"}
        assert (await running.client.get("/evaluations", headers=headers)).status_code == 200


async def test_a_gateway_that_may_not_ask_says_nothing_of_it(running: World) -> None:
    async def denied(request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this needs the secret")

    running.coordinator.resolve = denied  # type: ignore[method-assign]
    answer = await running.client.get("/jobs")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text


async def test_health_readiness_and_metrics_need_no_key(running: World) -> None:
    root = f"http://{running.address[0]}:{running.address[1]}"
    running.coordinator.scripts["GetJob"] = found
    await running.client.get("/jobs/secret-job-name")
    nobody = {"authorization": ""}

    async def is_ready() -> bool:
        return (await running.client.get(root + "/readyz", headers=nobody)).status_code == 200

    await eventually(is_ready)
    for path in ("/livez", "/healthz"):
        assert (await running.client.get(root + path, headers=nobody)).status_code == 200
    await running.coordinator.serving(False)
    assert (await running.client.get(root + "/readyz", headers=nobody)).status_code == 503
    assert (await running.client.get(root + "/livez", headers=nobody)).status_code == 200
    text = (await running.client.get(root + "/metrics", headers=nobody)).text
    assert 'route="/jobs/{job_id}",status="200"} 1.0' in text
    assert "secret-job-name" not in text
    assert (await running.client.post(root + "/metrics")).status_code == 405


async def test_the_description_and_the_docs_need_no_key(running: World) -> None:
    nobody = {"authorization": ""}
    described = (await running.client.get("/openapi.json", headers=nobody)).json()
    assert described["openapi"].startswith("3.1")
    page = await running.client.get("/docs", headers=nobody)
    assert page.headers["content-type"].startswith("text/html")
    assert "<script" not in page.text


async def test_a_coordinator_that_comes_back_is_found_at_once(running: World) -> None:
    running.coordinator.scripts["GetJob"] = found
    assert (await running.client.get("/jobs/j")).status_code == 200
    await running.coordinator.stop()
    answer = await running.client.get("/jobs/j")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "COORDINATOR_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) >= 1
    await running.coordinator.start(running.gateway.catalog)

    async def back() -> None:
        while (await running.client.get("/jobs/j")).status_code != 200:
            pass

    await asyncio.wait_for(back(), 20)


async def test_a_head_that_never_ends_is_refused(running: World) -> None:
    reader, writer = await asyncio.open_connection(*running.address)
    writer.write(b"GET /livez HTTP/1.1\r\nx: " + b"y" * (MAX_HEAD + 1))
    assert (await asyncio.wait_for(reader.readline(), WITHIN_S)).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_one_connection_serves_many_requests_with_bodies(running: World) -> None:
    running.coordinator.scripts["PauseJob"] = found
    body = {"request_id": "x" * 200}
    for _ in range(3):
        assert (await running.client.post("/jobs/j/pause", json=body)).status_code == 200
    big = {**SUBMIT, "labels": {f"l{number}": "x" * 2000 for number in range(60)}}
    answer = await running.client.post("/jobs", json=big)
    assert (answer.status_code, len(answer.json()["error"]["details"])) == (422, 60)
