"""Refusals as gRPC statuses: the code of every reason, the details, and bounds that a client can take."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from coordinator.core.decision import Rejected
from coordinator.core.reasons import TABLE, Reason
from coordinator.rpc.errors import DETAILS_KEY, DOMAIN, code_of, cut, status_of
from coordinator.runtime.refusal import Refusal

M = TypeVar("M")
METADATA_MAX = 8 * 1024
REFUSALS = [reason for reason in Reason if TABLE[reason].code]


def details(refusal: Refusal, kind: type[M]) -> list[M]:
    _, _, trailing = status_of(refusal, request_id="req_1")
    ((key, packed),) = trailing
    assert key == DETAILS_KEY
    assert isinstance(packed, bytes)
    found: list[M] = []
    for one in status_pb2.Status.FromString(packed).details:
        message: Any = kind()
        if one.Unpack(message):
            found.append(message)
    return found


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_has_its_code_and_names_its_reason(reason: Reason) -> None:
    code, message, _ = status_of(Refusal(reason, "why", facts=(("a", "b"),)), request_id="req_1")
    assert (code.name, message) == (TABLE[reason].code, "why")
    (info,) = details(Refusal(reason, "why", facts=(("a", "b"),)), error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason.value, DOMAIN)
    assert dict(info.metadata) == {"a": "b", "request_id": "req_1"}


def test_every_reason_has_a_row_and_every_code_is_one_of_grpc() -> None:
    assert set(TABLE) == set(Reason)
    assert all(code_of(reason).name == TABLE[reason].code for reason in REFUSALS)


def test_a_reason_that_is_no_refusal_would_be_internal() -> None:
    assert code_of(Reason.PLACED) is grpc.StatusCode.INTERNAL


def test_violations_become_a_bad_request() -> None:
    refusal = Refusal(Reason.INVALID_ARGUMENT, "no", violations=(("a.b", "bad"), ("c", "worse")))
    (bad,) = details(refusal, error_details_pb2.BadRequest)
    assert [(one.field, one.description) for one in bad.field_violations] == [
        ("a.b", "bad"),
        ("c", "worse"),
    ]


def test_a_refusal_of_the_core_keeps_its_field_and_facts() -> None:
    rejected = Rejected(reason=Reason.NEVER_FITS, message="no", field="f", facts=(("k", "v"),))
    refusal = Refusal.of(rejected)
    assert (refusal.violations, refusal.facts) == ((("f", "no"),), (("k", "v"),))


def test_a_wrong_status_is_a_failed_precondition_with_its_detail() -> None:
    refusal = Refusal(Reason.WRONG_STATUS, "is FAILED")
    (failure,) = details(refusal, error_details_pb2.PreconditionFailure)
    assert failure.violations[0].type == "WRONG_STATUS"
    assert not details(refusal, error_details_pb2.RetryInfo)


def test_what_may_be_tried_again_says_when() -> None:
    refusal = Refusal(Reason.OVERLOADED, "busy", retry_after_s=1.5)
    (retry,) = details(refusal, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize("text", ["x", "ä", "🙂", "\0"])
def test_no_refusal_is_larger_than_a_client_takes(text: str) -> None:
    refusal = Refusal(
        Reason.INVALID_ARGUMENT,
        text * 100_000,
        violations=((text * 10_000, text * 10_000),) * 1_000,
        facts=(("job_id", text * 10_000),),
        retry_after_s=1,
    )
    _, message, trailing = status_of(refusal, request_id="r" * 128)
    on_the_wire = len(message.encode()) * 3 + sum(len(value) * 4 / 3 for _, value in trailing)
    assert on_the_wire < METADATA_MAX


def test_a_text_is_cut_between_characters() -> None:
    assert cut("🙂" * 10, 11) == "🙂🙂…"
    assert cut("abc", 3) == "abc"
