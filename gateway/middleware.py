"""What surrounds every request, as pure ASGI: request ids, measuring and logging, last resort.

Order, outermost first: RequestIds, Observe, LastResort, and then the gateway itself, which checks
the path (404, 405), the caller (401), permissions (403), and at last the body (415, 413, 400, 422).
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from gateway.metrics import Metrics
from gateway.status import Failure, internal
from gateway.upstream import ClientGone

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

KEY = "scaimind.gateway"
_VALID_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

log = structlog.get_logger("gateway")


@dataclass(slots=True)
class Context:
    """What the layers know of one request; kept in the scope under KEY."""

    request_id: str
    headers: dict[bytes, bytes]
    route: str = "unmatched"
    """The path template, or a fixed word: the label of metrics."""
    tenant_id: str = ""
    http_status: int = 0
    """0 until the answer has begun."""
    told: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Headers that the answer has whatever becomes of the request."""


class RequestIds:
    """Takes the caller's `X-Request-Id` where it is valid, else makes one; echoes it, with all
    else that the layers within tell."""

    def __init__(self, app: App) -> None:
        """Wraps an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        if not _VALID_ID.fullmatch(given):
            given = b"req_" + secrets.token_hex(12).encode()
        context = scope[KEY] = Context(given.decode(), headers)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.http_status = message["status"]
                own = ((b"x-request-id", given), *context.told)
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await self.app(scope, receive, send_with_id)


class Observe:
    """Counts and times every request, and writes the access log."""

    def __init__(self, app: App, metrics: Metrics, *, access_log: bool) -> None:
        """Wraps an application."""
        self.app, self.metrics, self.access_log = app, metrics, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        began = time.perf_counter()
        try:
            await self.app(scope, receive, send)
        finally:
            took_s = time.perf_counter() - began
            context: Context = scope[KEY]
            # 499 as other gateways have it: the caller left before there was an answer.
            status = context.http_status or 499
            self.metrics.request(scope["method"], context.route, status=status, took_s=took_s)
            if self.access_log:
                log.info(
                    "request",
                    method=scope["method"],
                    route=context.route,
                    status=status,
                    duration_ms=round(took_s * 1000, 2),
                    tenant_id=context.tenant_id,
                    request_id=context.request_id,
                )


class LastResort:
    """Turns a Failure into its envelope, and any other exception into a 500 that says nothing."""

    def __init__(self, app: App) -> None:
        """Wraps an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        context: Context = scope[KEY]
        try:
            await self.app(scope, receive, send)
            return
        except ClientGone:
            return
        except Failure as known:
            failure = known
        except Exception:
            log.exception("gateway_error", request_id=context.request_id, route=context.route)
            failure = internal()
        if not context.http_status:
            body = failure.envelope(context.request_id)
            await respond(send, failure.http_status, body=body, headers=failure.all_headers())


async def respond(
    send: Send,
    status: int,
    *,
    body: bytes,
    content_type: bytes = b"application/json",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Sends a whole answer; nothing of it may be stored on the way."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", content_type),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-content-type-options", b"nosniff"),
                *(headers or ()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})
