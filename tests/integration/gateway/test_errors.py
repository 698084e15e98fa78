"""How the coordinator's statuses reach a caller."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from tests.integration.gateway.scripted import World, answering, reason, refuse, world

CODE = grpc.StatusCode
LEAK = 'Traceback (most recent call last):\n  File "/srv/app/jobs.py", line 3\nat 10.0.0.5:6379'

TABLE = [
    (CODE.NOT_FOUND, 404, "NOT_FOUND", True),
    (CODE.INVALID_ARGUMENT, 400, "INVALID_ARGUMENT", True),
    (CODE.PERMISSION_DENIED, 403, "AUTHZ_PERMISSION_DENIED", True),
    (CODE.UNAUTHENTICATED, 401, "AUTH_TOKEN_INVALID", True),
    (CODE.ALREADY_EXISTS, 409, "ALREADY_EXISTS", True),
    (CODE.FAILED_PRECONDITION, 409, "FAILED_PRECONDITION", True),
    (CODE.ABORTED, 409, "ABORTED", True),
    (CODE.RESOURCE_EXHAUSTED, 429, "RATE_LIMITED", True),
    (CODE.DEADLINE_EXCEEDED, 504, "BACKEND_TIMEOUT", False),
    (CODE.UNAVAILABLE, 503, "COORDINATOR_UNAVAILABLE", False),
    (CODE.INTERNAL, 500, "INTERNAL_ERROR", False),
    (CODE.UNKNOWN, 500, "INTERNAL_ERROR", False),
    (CODE.UNIMPLEMENTED, 500, "INTERNAL_ERROR", False),
    (CODE.OUT_OF_RANGE, 500, "INTERNAL_ERROR", False),
    (CODE.DATA_LOSS, 500, "INTERNAL_ERROR", False),
    (CODE.CANCELLED, 500, "INTERNAL_ERROR", False),
]


def ending(code: grpc.StatusCode, text: str, *details: Any) -> Any:
    async def script(request: Any, context: Any) -> None:
        await refuse(context, code, text, *details)

    return script


async def failed(running: World, script: Any) -> tuple[Any, dict[str, Any]]:
    running.coordinator.scripts["GetJob"] = script
    answer = await running.client.get("/jobs/j")
    return answer, answer.json()["error"]


async def test_each_code_has_its_status_and_text(running: World) -> None:
    for code, http_status, name, passes in TABLE:
        answer, error = await failed(running, ending(code, "job j is odd"))
        assert (answer.status_code, error["code"]) == (http_status, name), code
        assert (error["message"] == "job j is odd") is passes, code


async def test_no_code_lets_the_inside_out(running: World) -> None:
    for code, *_ in TABLE:
        with structlog.testing.capture_logs() as logs:
            answer, error = await failed(running, ending(code, LEAK))
        for part in ("Traceback", "jobs.py", "10.0.0.5"):
            assert part not in answer.text, code
        assert error["message"]
        told = [entry for entry in logs if entry["event"] == "scaimind_coordinator_error"]
        assert [entry["raw_detail"] for entry in told] == [LEAK], code
        assert told[0]["request_id"] == answer.headers["x-request-id"]


async def test_a_finer_reason_is_the_code(running: World) -> None:
    _, error = await failed(running, ending(CODE.NOT_FOUND, "no job j", reason("JOB_NOT_FOUND")))
    assert error == {"code": "JOB_NOT_FOUND", "message": "no job j"}


async def test_a_reason_that_repeats_the_grpc_code_is_none(running: World) -> None:
    _, error = await failed(running, ending(CODE.INTERNAL, "x", reason("INTERNAL")))
    assert error["code"] == "INTERNAL_ERROR"


async def test_field_violations_become_details(running: World) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="resource_config.gpu_type", description="'H100' is not known")
    bad.field_violations.add(field="name", description="see /var/lib/mind/state.db")
    _, error = await failed(running, ending(CODE.INVALID_ARGUMENT, "two faults", bad))
    assert error["details"] == [
        {"field": "resource_config.gpu_type", "message": "'H100' is not known"},
        {"field": "name", "message": "is not valid"},
    ]


async def test_retry_info_becomes_retry_after(running: World) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=6, nanos=1))
    answer, error = await failed(running, ending(CODE.RESOURCE_EXHAUSTED, "too many", retry))
    assert (answer.headers["retry-after"], error["retry_after"]) == ("7", 7)


@pytest.mark.parametrize("code", [CODE.RESOURCE_EXHAUSTED, CODE.UNAVAILABLE])
async def test_retry_after_is_told_even_where_the_coordinator_tells_none(
    running: World, code: grpc.StatusCode
) -> None:
    answer, error = await failed(running, ending(code, "busy"))
    assert int(answer.headers["retry-after"]) == error["retry_after"] >= 1


async def test_details_that_cannot_be_read_are_passed_over(running: World) -> None:
    async def script(request: Any, context: Any) -> None:
        trailing = (("grpc-status-details-bin", b"\xff\xff\xff"),)
        await context.abort(CODE.NOT_FOUND, "no job", trailing)

    answer, error = await failed(running, script)
    assert (answer.status_code, error["code"]) == (404, "NOT_FOUND")


async def test_an_exception_of_the_coordinator_is_a_plain_500(running: World) -> None:
    async def script(request: Any, context: Any) -> None:
        raise KeyError("/srv/secret")

    answer, error = await failed(running, script)
    assert (answer.status_code, error["code"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in answer.text


async def test_a_call_that_takes_too_long_is_504() -> None:
    async def script(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    async with world(timeout_s=0.5) as made:
        await answering(made)
        answer, error = await failed(made, script)
        assert (answer.status_code, error["code"]) == (504, "BACKEND_TIMEOUT")


async def test_a_fault_of_the_gateway_is_a_500_with_the_request_id(running: World) -> None:
    async def broken(scope: Any, headers: Any) -> Any:
        raise RuntimeError("secret text")

    running.gateway.authenticator.identify = broken  # type: ignore[method-assign]
    with structlog.testing.capture_logs() as logs:
        answer = await running.client.get("/jobs", headers={"x-request-id": "r9"})
    body = answer.json()
    assert (answer.status_code, body["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert body["meta"]["request_id"] == "r9"
    assert "secret" not in answer.text
    assert [entry["request_id"] for entry in logs if entry["event"] == "gateway_error"] == ["r9"]
