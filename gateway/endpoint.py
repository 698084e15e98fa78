"""One route, compiled: from an HTTP request to a call of the coordinator and back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import msgspec
import structlog

from gateway.auth import Identity
from gateway.bind import Binder
from gateway.json_in import JsonReader
from gateway.json_out import JsonWriter
from gateway.metrics import Metrics
from gateway.middleware import Context, Receive, Scope, Send, respond
from gateway.places import Places
from gateway.routes import Match, Route
from gateway.sse import Stream, batch_printer
from gateway.status import STREAM_ENDED, Failure, translate
from gateway.upstream import ClientGone, Upstream, answer

REPLAYED = ("x-idempotency-replayed", "true")
REPLAYED_HEADER = (b"idempotency-replayed", b"true")

log = structlog.get_logger("gateway")
LARGE_BODY = 65_536
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a gateway; all can be set."""

    body_bytes: int = 4 << 20
    body_timeout_s: float = 30.0
    heartbeat_s: float = 15.0
    send_timeout_s: float = 30.0
    streams: int = 10_000
    user_streams: int = 10


@dataclass(frozen=True, slots=True)
class Services:
    """What every endpoint uses, and all that they share."""

    upstream: Upstream
    metrics: Metrics
    limits: Limits
    places: Places
    """For streams."""


class Endpoint:
    """Serves one route."""

    def __init__(
        self, route: Route, *, reader: JsonReader, writer: JsonWriter, services: Services
    ) -> None:
        """Compiles the route.

        Raises:
            BadCatalog: the route cannot be served.
        """
        self.route, self.method = route, route.method
        self.label = route.template.text
        self.binder = Binder(route, reader)
        self._services = services
        self._metrics = services.metrics
        self._upstream = services.upstream
        if self.method.streaming:
            self._print_batch = batch_printer(self.method.response, writer)
            services.metrics.mark_stream(self.label)
        else:
            self._print = writer.printer(self.method.response)

    async def serve(
        self, match: Match, *, identity: Identity, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answers one request of a caller who may make it.

        Raises:
            Failure: the request or the call failed before the answer began.
            ClientGone: the caller left.
        """
        context: Context = scope["scaimind.gateway"]
        limits = self._services.limits
        body = await read_body(
            context.headers, receive, limits=limits, takes=self.binder.takes_body
        )
        bind = partial(
            self.binder.bind,
            match.variables,
            query=scope.get("query_string", b""),
            headers=context.headers,
            body=body,
        )
        # A large body takes tens of milliseconds, in which streams would stand still.
        request = bind() if len(body) < LARGE_BODY else await asyncio.to_thread(bind)
        metadata = self._upstream.metadata(*identity.metadata, ("x-request-id", context.request_id))
        try:
            if self.method.streaming:
                with self._services.places.place(identity):
                    call = self._upstream.start(self.method, request, metadata=metadata)
                    await self._stream(call, receive=receive, send=send)
            else:
                call = self._upstream.start(self.method, request, metadata=metadata)
                await self._unary(call, context, receive=receive, send=send)
        except grpc.RpcError as error:
            raise refusal(error, context, metrics=self._metrics) from None

    async def _unary(self, call: Any, context: Context, *, receive: Receive, send: Send) -> None:
        response = await answer(call, receive)
        headers = []
        if self.binder.keyed and await _replayed(call):
            headers.append(REPLAYED_HEADER)
        body = _encode(
            {
                "status": "ok",
                "data": self._print(response),
                "meta": {"request_id": context.request_id},
            }
        )
        await respond(send, self.method.http_status, body=body, headers=headers)

    async def _stream(self, call: Any, *, receive: Receive, send: Send) -> None:
        limits, streams = self._services.limits, self._services.places.open
        stream = Stream(
            call,
            self._print_batch,
            receive=receive,
            send=send,
            heartbeat_s=limits.heartbeat_s,
            send_timeout_s=limits.send_timeout_s,
        )
        try:
            if not await stream.accepted(within_s=self._upstream.timeout_s):
                raise ClientGone
            streams.add(stream)
            self._metrics.streams.inc()
            try:
                await stream.run()
            finally:
                streams.discard(stream)
                self._metrics.streams.dec()
                self._metrics.events(self.label, stream.sent_events)
        except TimeoutError:
            raise Failure(
                504, "BACKEND_TIMEOUT", message="The scheduler did not answer in time."
            ) from None
        except grpc.RpcError as error:
            if _stream_ended(error):
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            raise
        finally:
            call.cancel()


def refusal(error: grpc.RpcError, context: Context, *, metrics: Metrics) -> Failure:
    """The answer to a call that did not end well; what the caller does not get goes to the log."""
    translation = translate(error)
    code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
    name = code.name if code else "NONE"
    metrics.upstream_error(context.route, name)
    if translation.raw_detail is not None:
        log.warning(
            "scaimind_coordinator_error",
            grpc_code=name,
            reason=translation.reason,
            raw_detail=translation.raw_detail,
            route=context.route,
            request_id=context.request_id,
        )
    return translation.failure


async def read_body(
    headers: dict[bytes, bytes], receive: Receive, *, limits: Limits, takes: bool
) -> bytes:
    """The whole body of a request; empty where it takes none.

    Raises:
        Failure: 415 for another type than JSON, 413 when it is too large, 408 when it does not
            come, 400 where the method takes no body.
        ClientGone: the caller left before it had sent all of it.
    """
    length = headers.get(b"content-length", b"0")
    empty = length == b"0" and b"transfer-encoding" not in headers
    if empty:
        return b""
    if not takes:
        raise Failure(400, "INVALID_ARGUMENT", message="This method takes no body.")
    _require_json(headers)
    if length.isdigit() and int(length[:20]) > limits.body_bytes:
        raise _too_large(limits)
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > limits.body_bytes:
                    raise _too_large(limits)
                parts.append(part)
                more = message.get("more_body", False)
    except TimeoutError:
        raise Failure(408, "REQUEST_TIMEOUT", message="The body did not come in time.") from None
    return b"".join(parts)


def _require_json(headers: dict[bytes, bytes]) -> None:
    media, _, parameters = headers.get(b"content-type", b"").lower().partition(b";")
    media = media.strip()
    charset = parameters.replace(b'"', b"").replace(b" ", b"")
    known = media == b"application/json" or (
        media.startswith(b"application/") and media.endswith(b"+json")
    )
    plain = headers.get(b"content-encoding", b"identity").lower() == b"identity"
    utf8 = b"charset=" not in charset or b"charset=utf-8" in charset
    if not (known and plain and utf8):
        raise Failure(
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            message="Send JSON as `Content-Type: application/json`, in UTF-8, not compressed.",
        )


def _too_large(limits: Limits) -> Failure:
    return Failure(
        413, "PAYLOAD_TOO_LARGE", message=f"The body is larger than {limits.body_bytes} bytes."
    )


async def _replayed(call: Any) -> bool:
    """Whether the coordinator says so, before or behind its answer."""
    early, late = await call.initial_metadata(), await call.trailing_metadata()
    return any((key, value) == REPLAYED for told in (early, late) for key, value in told or ())


def _stream_ended(error: grpc.RpcError) -> bool:
    return (
        isinstance(error, grpc.aio.AioRpcError)
        and error.code() is grpc.StatusCode.OUT_OF_RANGE
        and translate(error).reason == STREAM_ENDED
    )
