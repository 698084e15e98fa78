"""The one place where a gRPC status becomes an HTTP answer, and where text is cleaned.

The table is the contract's. Texts of the coordinator pass where the table says so and nothing in
them leaks; the original goes to the log, never to the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import grpc
import msgspec
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from gateway import codes
from gateway.codes import Code
from scaimind.service.sanitize import leaks

DETAILS_KEY = "grpc-status-details-bin"
STREAM_ENDED = "STREAM_ENDED"
MAX_DETAILS = 100
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,63}")
_CODES = frozenset(code.name for code in grpc.StatusCode)
_FIELD = re.compile(r'[\w.\[\]"=@:+ -]{1,256}')


@dataclass(frozen=True, slots=True)
class Row:
    """How one gRPC code is told over HTTP."""

    code: Code
    """`error.code` where the coordinator gives no finer one; its HTTP status holds either way."""
    generic: str
    """Said instead of a text that must not be passed on."""
    passes: bool = True
    """Whether the coordinator's text is for the caller at all."""
    retry_after_s: int | None = None
    """Told where the coordinator tells none."""

    @property
    def http_status(self) -> int:
        """The HTTP status."""
        return codes.TABLE[self.code].http_status


_INTERNAL = Row(Code.INTERNAL_ERROR, "Something went wrong on our side.", passes=False)
_WRONG_STATE = "The request does not fit the present state."

TABLE: dict[grpc.StatusCode, Row] = {
    grpc.StatusCode.NOT_FOUND: Row(Code.NOT_FOUND, "There is no such thing."),
    grpc.StatusCode.INVALID_ARGUMENT: Row(Code.INVALID_ARGUMENT, "The request is not valid."),
    grpc.StatusCode.PERMISSION_DENIED: Row(Code.AUTHZ_PERMISSION_DENIED, "You may not do this."),
    grpc.StatusCode.UNAUTHENTICATED: Row(Code.AUTH_TOKEN_INVALID, "The credential is not valid."),
    grpc.StatusCode.ALREADY_EXISTS: Row(Code.ALREADY_EXISTS, "It exists already."),
    grpc.StatusCode.FAILED_PRECONDITION: Row(Code.FAILED_PRECONDITION, _WRONG_STATE),
    grpc.StatusCode.ABORTED: Row(Code.ABORTED, "The request was overtaken by another one."),
    grpc.StatusCode.RESOURCE_EXHAUSTED: Row(
        Code.RATE_LIMITED, "Too much at once; try again later.", retry_after_s=1
    ),
    grpc.StatusCode.DEADLINE_EXCEEDED: Row(
        Code.BACKEND_TIMEOUT,
        "The scheduler did not answer in time. The request may have been carried out: look "
        "before you repeat it, or repeat it with the same Idempotency-Key.",
        passes=False,
    ),
    grpc.StatusCode.UNAVAILABLE: Row(
        Code.COORDINATOR_UNAVAILABLE,
        "The scheduler is out of reach at the moment. Running jobs go on; try again shortly.",
        passes=False,
        retry_after_s=2,
    ),
    grpc.StatusCode.INTERNAL: _INTERNAL,
    grpc.StatusCode.UNIMPLEMENTED: Row(
        Code.INTERNAL_ERROR, "This version of the scheduler cannot do that yet.", passes=False
    ),
}


class Failure(Exception):
    """A request that ends in an error answer."""

    def __init__(
        self,
        code: str,
        *,
        message: str,
        http_status: int | None = None,
        details: Sequence[tuple[str, str]] = (),
        retry_after_s: int | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Keeps what the envelope says; `details` are pairs of field and message. The HTTP status is
        that of the code; a reason of the coordinator's brings its own."""
        self.http_status = http_status or codes.TABLE[Code(code)].http_status
        super().__init__(f"{self.http_status} {code}")
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s
        self.headers = headers

    def envelope(self, request_id: str) -> bytes:
        """The body of the answer."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.retry_after_s is not None:
            error["retry_after"] = self.retry_after_s
        if self.details:
            error["details"] = [{"field": field, "message": text} for field, text in self.details]
        return msgspec.json.encode(
            {"status": "error", "error": error, "meta": {"request_id": request_id}}
        )

    def all_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of the answer beside type and length."""
        headers = list(self.headers)
        if self.retry_after_s is not None:
            headers.append((b"retry-after", str(self.retry_after_s).encode()))
        return headers


@dataclass(frozen=True, slots=True)
class Translation:
    """A gRPC status as an HTTP answer, and what of it was kept back."""

    failure: Failure
    reason: str
    """The coordinator's own reason; empty for none."""
    raw_detail: str | None
    """The original text, for the log, where the caller does not get it."""


def invalid(details: Sequence[tuple[str, str]]) -> Failure:
    """The answer to a request that does not fit the schema; one pair for each fault."""
    fields = "1 field does" if len(details) == 1 else f"{len(details)} fields do"
    return Failure(Code.VALIDATION_ERROR, message=f"{fields} not fit the schema.", details=details)


def internal() -> Failure:
    """The answer where the gateway itself failed."""
    return Failure(Code.INTERNAL_ERROR, message=_INTERNAL.generic)


def translate(error: grpc.RpcError) -> Translation:
    """Turns the status that a call ended with into the answer for the caller."""
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    row = TABLE.get(code, _INTERNAL) if code else _INTERNAL
    text = (error.details() or "") if code else str(error)
    finer = _Details(error.trailing_metadata() or ()) if code else _Details(())
    withheld = not row.passes or not text or leaks(text)
    retry_after_s = finer.retry_after_s
    if retry_after_s is None:
        retry_after_s = row.retry_after_s
    headers = ((b"www-authenticate", b"Bearer"),) if row.http_status == 401 else ()
    failure = Failure(
        finer.reason or row.code,
        http_status=row.http_status,
        message=row.generic if withheld else text,
        details=finer.fields if row.passes else (),
        retry_after_s=retry_after_s,
        headers=headers,
    )
    return Translation(failure, finer.reason, text if withheld or finer.withheld else None)


class _Details:
    """What the google.rpc details of a status say; hostile until checked."""

    def __init__(self, metadata: Iterable[Any]) -> None:
        self.reason = ""
        self.retry_after_s: int | None = None
        self.fields: list[tuple[str, str]] = []
        self.withheld = False
        packed = next((value for key, value in metadata if key == DETAILS_KEY), None)
        if not isinstance(packed, bytes):
            return
        try:
            for detail in status_pb2.Status.FromString(packed).details:
                self._read(detail)
        except DecodeError:
            self.withheld = True

    def _read(self, detail: Any) -> None:
        info = error_details_pb2.ErrorInfo()
        bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            # A reason that only names the gRPC code again is none.
            if _REASON.fullmatch(info.reason) and info.reason not in _CODES:
                self.reason = info.reason
        elif detail.Unpack(retry):
            seconds = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
            self.retry_after_s = min(max(1, ceil(seconds)), 86_400)
        elif detail.Unpack(bad):
            for violation in bad.field_violations[:MAX_DETAILS]:
                self._field(violation.field, violation.description)

    def _field(self, field: str, text: str) -> None:
        known = field if _FIELD.fullmatch(field) and not leaks(field) else ""
        if leaks(text):
            self.withheld, text = True, "is not valid"
        self.fields.append((known, text))
