"""What goes wrong between a client and the coordinator, as exceptions.

The class tells the gRPC code, `reason` the finer cause (google.rpc.ErrorInfo), `details` the
fields at fault. Everything is read from the error's own details, never from its text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, NamedTuple, Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"


class FieldError(NamedTuple):
    """A fault in one field of a request, such as `resource_config.gpu_count`."""

    field: str
    message: str


class MindError(Exception):
    """A call that did not succeed; the subclass tells its gRPC code."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        details: Iterable[FieldError] = (),
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.status.name
        self.reason = reason or self.code
        self.details = tuple(details)
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        faults = "".join(f"; {fault.field}: {fault.message}" for fault in self.details)
        return f"{self.message} ({self.reason}){faults}"


class InvalidArgument(MindError):
    """The request does not fit the schema, or can never be met."""

    status = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(MindError):
    """There is no such thing in the caller's tenant."""

    status = grpc.StatusCode.NOT_FOUND


class AlreadyExists(MindError):
    """The request id was used before, with another request."""

    status = grpc.StatusCode.ALREADY_EXISTS


class PermissionDenied(MindError):
    """The credential is good but does not allow this."""

    status = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(MindError):
    """There is no credential, or it is unknown, expired or revoked."""

    status = grpc.StatusCode.UNAUTHENTICATED


class FailedPrecondition(MindError):
    """The thing is in the wrong state for this; the message names the state."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class Aborted(MindError):
    """The thing changed in between; read it again."""

    status = grpc.StatusCode.ABORTED


class ResourceExhausted(MindError):
    """A rate or quota is used up; `retry_after_s` tells when to come back where that is known."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(MindError):
    """The coordinator cannot be reached, or is not ready."""

    status = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(MindError):
    """No answer came in time; a mutation may have happened, and may be repeated with its id."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class Unimplemented(MindError):
    """This coordinator does not offer the call."""

    status = grpc.StatusCode.UNIMPLEMENTED


class Internal(MindError):
    """The coordinator failed; its log knows more."""

    status = grpc.StatusCode.INTERNAL


_CLASSES = {
    kind.status: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        Unauthenticated,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Unimplemented,
        Internal,
    )
} | {grpc.StatusCode.CANCELLED: Unavailable}
"""CANCELLED is a server that goes away in the middle: a call that its caller cancels just ends."""


class Failure(Protocol):
    """What both kinds of failed gRPC call know of themselves."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Any: ...


def from_call(failure: Failure) -> MindError:
    """The exception for a failed call. Details that cannot be parsed are left out."""
    metadata: dict[str, str | bytes] = dict(failure.trailing_metadata() or ())
    status = failure.code()
    found = _Details(metadata.get(DETAILS_KEY))
    request_id = metadata.get(REQUEST_ID_KEY, "")
    return _CLASSES.get(status, MindError)(
        failure.details() or status.name,
        code=status.name,
        reason=found.info.reason,
        details=found.faults(),
        request_id=found.request.request_id or (request_id if isinstance(request_id, str) else ""),
        retry_after_s=found.retry_after_s(),
    )


class _Details:
    """The google.rpc details of one error; empty messages where there are none."""

    def __init__(self, encoded: str | bytes | None) -> None:
        self.info = error_details_pb2.ErrorInfo()
        self.request = error_details_pb2.RequestInfo()
        self.retry = error_details_pb2.RetryInfo()
        self.bad_request = error_details_pb2.BadRequest()
        self.precondition = error_details_pb2.PreconditionFailure()
        if not isinstance(encoded, bytes):
            return
        places = (self.info, self.request, self.retry, self.bad_request, self.precondition)
        try:
            for packed in status_pb2.Status.FromString(encoded).details:
                for place in places:
                    packed.Unpack(place)
        except DecodeError:
            return

    def faults(self) -> list[FieldError]:
        fields = [FieldError(v.field, v.description) for v in self.bad_request.field_violations]
        states = [FieldError(v.subject, v.description) for v in self.precondition.violations]
        return fields + states

    def retry_after_s(self) -> float | None:
        delay = self.retry.retry_delay
        seconds = delay.seconds + delay.nanos / 1e9
        return seconds if seconds > 0 else None
