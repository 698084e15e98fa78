"""Every `error.code` that the gateway gives by itself, with its HTTP status and the line of
docs/errors.md. The coordinator's reasons are codes as well, under the status of their gRPC code."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Code(StrEnum):
    """Names of codes; they are part of the public API and never change their meaning."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    MALFORMED_JSON = "MALFORMED_JSON"
    AUTH_TOKEN_MISSING = "AUTH_TOKEN_MISSING"
    AUTH_TOKEN_INVALID = "AUTH_TOKEN_INVALID"
    AUTHZ_PERMISSION_DENIED = "AUTHZ_PERMISSION_DENIED"
    TOKEN_EXCHANGE_REFUSED = "TOKEN_EXCHANGE_REFUSED"
    NOT_FOUND = "NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    REQUEST_TIMEOUT = "REQUEST_TIMEOUT"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    URI_TOO_LONG = "URI_TOO_LONG"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    RATE_LIMITED = "RATE_LIMITED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    COORDINATOR_UNAVAILABLE = "COORDINATOR_UNAVAILABLE"
    IDENTITY_PROVIDER_UNAVAILABLE = "IDENTITY_PROVIDER_UNAVAILABLE"
    TOKEN_EXCHANGE_UNAVAILABLE = "TOKEN_EXCHANGE_UNAVAILABLE"
    BACKEND_TIMEOUT = "BACKEND_TIMEOUT"


class Row(NamedTuple):
    """What a code comes with."""

    http_status: int
    retryable: bool
    doc: str


TABLE: dict[Code, Row] = {
    Code.INVALID_ARGUMENT: Row(
        400, False, "The query or the body cannot be read, or the coordinator refuses a field."
    ),
    Code.MALFORMED_JSON: Row(400, False, "The body is not JSON."),
    Code.AUTH_TOKEN_MISSING: Row(401, False, "No credential was sent."),
    Code.AUTH_TOKEN_INVALID: Row(
        401, False, "The credential, or the ticket, is unknown, expired, used or revoked."
    ),
    Code.AUTHZ_PERMISSION_DENIED: Row(
        403, False, "The credential lacks the permission; the message names it."
    ),
    Code.TOKEN_EXCHANGE_REFUSED: Row(
        403, False, "The identity provider gives no token for a service that the call needs."
    ),
    Code.NOT_FOUND: Row(404, False, "There is no such path, or no such thing."),
    Code.METHOD_NOT_ALLOWED: Row(405, False, "The path takes other verbs; `Allow` names them."),
    Code.REQUEST_TIMEOUT: Row(408, True, "The body did not come in time."),
    Code.ALREADY_EXISTS: Row(409, False, "The coordinator says so, without a finer reason."),
    Code.FAILED_PRECONDITION: Row(409, False, "The coordinator says so, without a finer reason."),
    Code.ABORTED: Row(409, True, "The request was overtaken by another one."),
    Code.PAYLOAD_TOO_LARGE: Row(413, False, "The body is too large; the message tells the bound."),
    Code.URI_TOO_LONG: Row(414, False, "The address is too long."),
    Code.UNSUPPORTED_MEDIA_TYPE: Row(415, False, "The body is not JSON in UTF-8, or compressed."),
    Code.VALIDATION_ERROR: Row(
        422, False, "The request does not fit the schema; one detail for each field at fault."
    ),
    Code.RATE_LIMITED: Row(429, True, "Too much at once; `Retry-After` tells when to come back."),
    Code.INTERNAL_ERROR: Row(500, False, "A fault on our side; quote the request id."),
    Code.COORDINATOR_UNAVAILABLE: Row(
        503, True, "The coordinator is out of reach. Running jobs go on."
    ),
    Code.IDENTITY_PROVIDER_UNAVAILABLE: Row(
        503, True, "No key of the identity provider could be had, so tokens cannot be judged."
    ),
    Code.TOKEN_EXCHANGE_UNAVAILABLE: Row(
        503, True, "The identity provider could not be asked for tokens; nothing was submitted."
    ),
    Code.BACKEND_TIMEOUT: Row(
        504, True, "The coordinator did not answer in time; look before you repeat the call."
    ),
}
