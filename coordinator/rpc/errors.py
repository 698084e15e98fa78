"""The one place that words a refusal as a gRPC status with google.rpc details.

All of it travels in the trailing metadata, of which a client takes 8 KiB and no more: beyond that it sees
neither the code nor the text. So everything here is cut, and of many violations the first are told.
Whatever made it, text that carries a traceback, SQL, a path, an address or a credential is not told.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from coordinator.core.reasons import TABLE, Reason
from coordinator.runtime.refusal import Refusal, Violation
from scaimind.service.sanitize import leaks

DOMAIN = "mindcoordinator"
DETAILS_KEY = "grpc-status-details-bin"
MESSAGE_BYTES_MAX = 512  # at worst three times that on the wire, and once more in the details
TEXT_BYTES_MAX = 256
VIOLATIONS_BYTES_MAX = 2048
FIELD_BYTES = 8  # of one of them, beside its texts
NAME_MAX = 100  # characters of a map's key
LEADER = "leader"  # the one address that callers are told, so that they find who leads
NOT_VALID = "is not valid"
Metadata = tuple[tuple[str, str | bytes], ...]


def code_of(reason: Reason) -> grpc.StatusCode:
    """The gRPC code of a reason; INTERNAL for one that is never a refusal."""
    name = TABLE[reason].code or "INTERNAL"
    code: grpc.StatusCode = getattr(grpc.StatusCode, name)
    return code


def status_of(refusal: Refusal, *, request_id: str) -> tuple[grpc.StatusCode, str, Metadata]:
    """Code, message and trailing metadata: ErrorInfo always, the other details where they apply."""
    code, text = code_of(refusal.reason), cut(refusal.message, MESSAGE_BYTES_MAX)
    status = status_pb2.Status(code=code.value[0], message=text)
    info = error_details_pb2.ErrorInfo(reason=refusal.reason.value, domain=DOMAIN)
    for name, fact in refusal.facts:
        info.metadata[name] = cut(fact, TEXT_BYTES_MAX)
    if request_id:
        info.metadata["request_id"] = request_id
    _add(status, info)
    if refusal.violations:
        _add(status, _bad_request(refusal))
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(type=refusal.reason.value, description=text)
        _add(status, failure)
    if refusal.retry_after_s > 0:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(refusal.retry_after_s * 1000))
        _add(status, retry)
    return code, text, ((DETAILS_KEY, status.SerializeToString()),)


def cleaned(refusal: Refusal) -> Refusal:
    """The refusal as a caller may see it; the same one where nothing of it has to be kept back."""
    message = TABLE[refusal.reason].doc if leaks(refusal.message) else refusal.message
    violations = tuple(
        ("" if leaks(field) else field, NOT_VALID if leaks(text) else text)
        for field, text in refusal.violations
    )
    facts = tuple(pair for pair in refusal.facts if pair[0] == LEADER or not leaks(pair[1]))
    if (message, violations, facts) == (refusal.message, refusal.violations, refusal.facts):
        return refusal
    return Refusal(
        refusal.reason,
        message,
        violations=violations,
        facts=facts,
        retry_after_s=refusal.retry_after_s,
    )


def cut(text: str, size: int) -> str:
    """The text, or as much of its beginning as fits `size` bytes of UTF-8, and `…`."""
    if len(text) * 4 <= size or len(text.encode()) <= size:
        return text
    return text.encode()[: size - 3].decode(errors="ignore") + "…"


def quoted(key: str) -> str:
    """A map's key as it stands in the path of a field."""
    return f'"{key}"' if len(key) <= NAME_MAX else f'"{key[:NAME_MAX]}…"'


def told(refusal: Refusal) -> Iterator[Violation]:
    """The violations of which a caller is told: the first of them, each cut."""
    size = 0
    for violation in refusal.violations:
        field, message = (cut(text, TEXT_BYTES_MAX) for text in violation)
        yield field, message
        size += len(field.encode()) + len(message.encode()) + FIELD_BYTES
        if size > VIOLATIONS_BYTES_MAX:
            return


def _bad_request(refusal: Refusal) -> error_details_pb2.BadRequest:
    bad = error_details_pb2.BadRequest()
    for field, message in told(refusal):
        bad.field_violations.add(field=field, description=message)
    return bad


def _add(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)
