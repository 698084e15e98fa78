"""One route, compiled: from an HTTP request to a call of the coordinator and back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import msgspec
import structlog

from gateway.auth import Identity, Standing
from gateway.bind import Binder
from gateway.chunks import batch_printer
from gateway.codes import Code
from gateway.copies import Copies
from gateway.entries import Refused
from gateway.exchange import Exchange
from gateway.json_in import JsonReader
from gateway.json_out import JsonWriter
from gateway.metrics import Metrics
from gateway.middleware import Context, Receive, Scope, Send, respond
from gateway.places import Places
from gateway.recall import Recall
from gateway.routes import Match, Route
from gateway.sharing import Hubs, Source
from gateway.sse import Stream
from gateway.status import STREAM_ENDED, Failure, translate
from gateway.upstream import ClientGone, Metadata, Upstream, answer

REPLAYED = ("x-idempotency-replayed", "true")
STALE_WARNING = (b"warning", b'110 - "Response is Stale"')
AWAY = (503, 504)
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
    hubs: Hubs = field(default_factory=Hubs)
    """Of streams that several read."""
    copies: Copies | None = None
    """Of what was read, for while the coordinator is away."""
    exchange: Exchange | None = None
    """For tokens of the services behind the coordinator."""
    standing: Standing | None = None
    """Who tells that a caller is one no more, where somebody does."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and how the answer gets there."""

    identity: Identity
    context: Context
    receive: Receive
    send: Send
    refused: Refused
    """Items of the request that the coordinator is not to judge."""


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
        self._recall = Recall(self.method) if self.method.cache else None
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
        refused: Refused = {}
        bind = partial(
            self.binder.bind,
            match.variables,
            query=scope.get("query_string", b""),
            headers=context.headers,
            body=body,
            refused=refused,
        )
        # A large body takes tens of milliseconds, in which streams would stand still.
        request = bind() if len(body) < LARGE_BODY else await asyncio.to_thread(bind)
        asked = Asked(identity, context, receive, send, refused)
        try:
            if identity.unconfirmed is not None:
                raise identity.unconfirmed
            await self._ask(request, asked)
            return
        except grpc.RpcError as error:
            failure = refusal(error, context, metrics=self._metrics)
        if not await self._recalled(request, asked, failure=failure):
            raise failure from None

    async def _ask(self, request: Any, asked: Asked) -> None:
        """Calls the coordinator, and relays what it says."""
        pairs = (*asked.identity.metadata, ("x-request-id", asked.context.request_id))
        if self.method.token_exchange and self._services.exchange is not None:
            pairs += await self._services.exchange.tokens(asked.identity)
        metadata = self._upstream.metadata(*pairs)
        if self.method.streaming:
            with self._services.places.place(asked.identity):
                source = self._source(request, asked.identity, metadata=metadata)
                try:
                    await self._stream(source, asked)
                finally:
                    source.close()
            return
        call = self._upstream.start(self.method, request, metadata=metadata)
        response = await answer(call, asked.receive)
        headers = []
        if self.binder.keyed and await _replayed(call):
            headers.append(REPLAYED_HEADER)
        entries = self.binder.entries
        if entries is not None and entries.any_refused(response):
            # What was refused is judged here, which may take a while.
            await asyncio.to_thread(entries.tell, request, asked.refused, response=response)
        await self._tell(response, asked, headers=headers)
        if self._recall is not None and self._services.copies is not None:
            self._recall.keep(self._services.copies, asked.identity.tenant_id, response)

    async def _recalled(self, request: Any, asked: Asked, *, failure: Failure) -> bool:
        """Answers from copies where the coordinator is away; whether that could be done."""
        recall, copies, tenant_id = self._recall, self._services.copies, asked.identity.tenant_id
        if recall is None or copies is None:
            return False
        if failure.http_status == 404:
            recall.forget(copies, tenant_id, request)
        if failure.http_status not in AWAY:
            return False
        found = await recall.answer(copies, tenant_id, request)
        if found is None:
            return False
        age_s = found.age_s
        headers = [STALE_WARNING, (b"x-scaimind-stale", str(age_s).encode())]
        marks = {"stale": True, "stale_age_seconds": age_s}
        await self._tell(found.response, asked, headers=headers, **marks)
        return True

    async def _tell(
        self, response: Any, asked: Asked, *, headers: list[tuple[bytes, bytes]], **marks: Any
    ) -> None:
        meta = {"request_id": asked.context.request_id, **marks}
        body = _encode({"status": "ok", "data": self._print(response), "meta": meta})
        await respond(asked.send, self.method.http_status, body=body, headers=headers)

    def _source(self, request: Any, identity: Identity, *, metadata: Metadata) -> Source:
        """What a reader of the stream gets; shared with others of the same request."""
        begins = self.binder.resumes(request)

        def start(after: str) -> Any:
            asked = begins(after) if after and begins is not None else request
            return self._upstream.start(self.method, asked, metadata=metadata)

        key = None
        if begins is not None:
            anywhere = begins("").SerializeToString(deterministic=True).hex()
            granted = ",".join(sorted(identity.permissions))
            key = (identity.tenant_id, granted, self.method.rpc_path, anywhere)
        return Source(start, self._print_batch, hubs=self._services.hubs, key=key)

    async def _stands(self, identity: Identity) -> bool:
        if identity.ends_at and time.time() >= identity.ends_at:
            return False
        standing = self._services.standing
        try:
            return standing is None or await standing.stands(identity)
        except Exception:
            log.exception("caller_not_confirmed", route=self.label)
            return False

    async def _stream(self, source: Source, asked: Asked) -> None:
        limits, streams, send = self._services.limits, self._services.places.open, asked.send
        stream = Stream(
            source,
            receive=asked.receive,
            send=send,
            stands=partial(self._stands, asked.identity),
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
                Code.BACKEND_TIMEOUT, message="The scheduler did not answer in time."
            ) from None
        except grpc.RpcError as error:
            if _stream_ended(error):
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
            raise


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
        raise Failure(Code.INVALID_ARGUMENT, message="This method takes no body.")
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
        raise Failure(Code.REQUEST_TIMEOUT, message="The body did not come in time.") from None
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
            Code.UNSUPPORTED_MEDIA_TYPE,
            message="Send JSON as `Content-Type: application/json`, in UTF-8, not compressed.",
        )


def _too_large(limits: Limits) -> Failure:
    return Failure(
        Code.PAYLOAD_TOO_LARGE, message=f"The body is larger than {limits.body_bytes} bytes."
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
