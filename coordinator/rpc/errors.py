"""The one place that words a refusal as a gRPC status with google.rpc details."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from coordinator.core.reasons import TABLE, Reason
from coordinator.runtime.refusal import Refusal

DOMAIN = "mindcoordinator"
DETAILS_KEY = "grpc-status-details-bin"
Metadata = tuple[tuple[str, str | bytes], ...]


def code_of(reason: Reason) -> grpc.StatusCode:
    """The gRPC code of a reason; INTERNAL for one that is never a refusal."""
    name = TABLE[reason].code or "INTERNAL"
    code: grpc.StatusCode = getattr(grpc.StatusCode, name)
    return code


def status_of(refusal: Refusal, *, request_id: str) -> tuple[grpc.StatusCode, str, Metadata]:
    """Code, message and trailing metadata: ErrorInfo always, the other details where they apply."""
    code = code_of(refusal.reason)
    status = status_pb2.Status(code=code.value[0], message=refusal.message)
    info = error_details_pb2.ErrorInfo(reason=refusal.reason.value, domain=DOMAIN)
    info.metadata.update(refusal.facts)
    if request_id:
        info.metadata["request_id"] = request_id
    _add(status, info)
    if refusal.violations:
        bad = error_details_pb2.BadRequest()
        for field, message in refusal.violations:
            bad.field_violations.add(field=field, description=message)
        _add(status, bad)
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(type=refusal.reason.value, description=refusal.message)
        _add(status, failure)
    if refusal.retry_after_s > 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(refusal.retry_after_s * 1000))
        _add(status, retry)
    return code, refusal.message, ((DETAILS_KEY, status.SerializeToString()),)


def _add(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)
