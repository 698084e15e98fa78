"""Section 4: every fault in one envelope, with the code that tells it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.e2e.contract.conftest import Caller, MakeCaller
from tests.e2e.contract.test_rest import LATER, data
from tests.support import jobs

JSON = {"content-type": "application/json"}
LEAK = re.compile(r"Traceback|SELECT |/tmp/|127\.0\.0\.1|\.py\b|site-packages")


def error_of(answer: httpx.Response) -> Any:
    """The error, in an envelope that is as it should be."""
    said = answer.json()
    assert set(said) == {"status", "error", "meta"}
    assert said["status"] == "error"
    assert said["meta"]["request_id"] == answer.headers["x-request-id"]
    assert (
        {"code", "message"} <= set(said["error"]) <= {"code", "message", "retry_after", "details"}
    )
    assert not LEAK.search(answer.text), answer.text
    return said["error"]


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "NOT_FOUND"),
        ("GET", "/jobs/", {}, 404, "NOT_FOUND"),
        ("GET", "/jobs/none", {}, 404, "JOB_NOT_FOUND"),
        ("GET", "/evaluations/none", {}, 404, "JOB_NOT_FOUND"),
        ("GET", "/cluster/nodes/none", {}, 404, "NODE_NOT_FOUND"),
        ("GET", "/jobs/none/logs", {}, 404, "JOB_NOT_FOUND"),
        ("GET", "/jobs/none/metrics/stream", {}, 404, "JOB_NOT_FOUND"),
        ("DELETE", "/jobs", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/jobs", {"content": b"{", "headers": JSON}, 400, "MALFORMED_JSON"),
        ("POST", "/jobs", {"content": b"\xff", "headers": JSON}, 400, "MALFORMED_JSON"),
        ("POST", "/jobs", {"content": b"[" * 10**5, "headers": JSON}, 400, "MALFORMED_JSON"),
        ("POST", "/jobs", {"content": b"[]", "headers": JSON}, 422, "VALIDATION_ERROR"),
        ("POST", "/jobs", {"json": {"no": 1}}, 422, "VALIDATION_ERROR"),
        ("POST", "/jobs", {"content": b"name: x"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        (
            "POST",
            "/jobs",
            {"content": b"{}", "headers": JSON | {"content-encoding": "gzip"}},
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        ),
        (
            "POST",
            "/jobs",
            {"content": b" " * (5 << 20), "headers": JSON},
            413,
            "PAYLOAD_TOO_LARGE",
        ),
        ("GET", "/jobs?page_token=no", {}, 400, "INVALID_ARGUMENT"),
        ("GET", "/jobs?page_size=0", {}, 422, "VALIDATION_ERROR"),
        ("POST", "/jobs", {"json": jobs.body("/x", gpu_count=999)}, 400, "NEVER_FITS"),
        ("GET", f"/jobs/{'x' * 20_000}", {}, 414, "URI_TOO_LONG"),
    ],
)
def test_a_fault_of_the_request_has_its_status_and_code(
    caller: Caller, method: str, path: str, more: dict[str, Any], status: int, code: str
) -> None:
    answer = caller.rest.request(method, path, **more)
    assert answer.status_code == status, answer.text
    error = error_of(answer)
    assert error["code"] == code
    if status == 405:
        assert answer.headers["allow"]
    if status == 422:
        assert all(set(one) == {"field", "message"} for one in error["details"])


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "AUTH_TOKEN_MISSING"),
        ({"authorization": "Bearer sgk_wrong"}, "AUTH_TOKEN_INVALID"),
        ({"authorization": "Bearer a.b.c"}, "AUTH_TOKEN_INVALID"),
        ({"authorization": "Basic YTpi"}, "AUTH_TOKEN_INVALID"),
        ({"x-tenant-id": "local", "x-permissions": "scaimind:view"}, "AUTH_TOKEN_MISSING"),
    ],
)
def test_without_a_good_credential_nothing_is_told(
    caller: Caller, headers: dict[str, str], code: str
) -> None:
    with httpx.Client(
        base_url=caller.rest.base_url, headers=headers, timeout=30, trust_env=False
    ) as anyone:
        for path in ("/jobs", "/jobs/none", "/cluster"):
            answer = anyone.get(path)
            assert (answer.status_code, error_of(answer)["code"]) == (401, code)
            assert answer.headers["www-authenticate"].startswith("Bearer")


def test_what_is_anothers_is_not_found_and_never_denied(
    caller: Caller, make_caller: MakeCaller
) -> None:
    body = jobs.body("/bin/true", scheduling=LATER)
    job_id = data(caller.rest.post("/jobs", json=body), 201)["job_id"]
    other = make_caller(tenant="other")
    unknown = error_of(other.rest.get("/jobs/none"))
    for action in ("", "/metrics", "/logs", "/metrics/stream", "/explain"):
        answer = other.rest.get(f"/jobs/{job_id}{action}")
        assert answer.status_code == 404
        assert error_of(answer)["message"].replace(job_id, "none") == unknown["message"]
    for action in ("cancel", "pause", "resume", "retry"):
        answer = other.rest.post(f"/jobs/{job_id}/{action}")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "JOB_NOT_FOUND")
    assert data(other.rest.get("/jobs"))["total_count"] == 0
    assert data(caller.rest.get(f"/jobs/{job_id}"))["status"] == "PENDING"


def test_the_same_key_and_body_has_the_first_answer_and_another_body_is_refused(
    caller: Caller,
) -> None:
    body = jobs.body("/bin/true", scheduling=LATER)
    key = {"idempotency-key": "k-1"}
    first = caller.rest.post("/jobs", json=body, headers=key)
    again = caller.rest.post("/jobs", json=body, headers=key)
    assert data(first, 201) == data(again, 201)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    other = caller.rest.post("/jobs", json=body | {"name": "other"}, headers=key)
    assert (other.status_code, error_of(other)["code"]) == (409, "REQUEST_ID_REUSED")
