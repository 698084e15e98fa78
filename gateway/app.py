"""The gateway as one ASGI application, which runs by itself or mounts into a host at any prefix.

    host.mount("/v1/modules/scaimind", create_app(upstream, prefix="", authenticator=mine))

All routes, names and bounds come from the catalog; nothing here knows a method by its name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

import grpc

from gateway import metrics as counters
from gateway import tickets as stream_tickets
from gateway.auth import ApiKeys, Authenticator, Identity, Standing, require, resolver
from gateway.catalog import BadCatalog, Catalog
from gateway.codes import Code
from gateway.copies import Copies
from gateway.docs_page import render
from gateway.endpoint import Endpoint, Limits, Services, read_body, refusal
from gateway.exchange import Exchange
from gateway.json_in import JsonReader
from gateway.json_out import JsonWriter
from gateway.metrics import Metrics
from gateway.middleware import (
    KEY,
    App,
    Context,
    LastResort,
    Observe,
    Receive,
    RequestIds,
    Scope,
    Send,
    respond,
)
from gateway.openapi import describe
from gateway.places import Places
from gateway.rates import Limiter
from gateway.routes import Match, build
from gateway.status import Failure
from gateway.tokens import Credentials
from gateway.upstream import Upstream
from scaimind.service.tokens import Tokens

PREFIX = "/v1/modules/scaimind"
MAX_TARGET = 16_384
# How long a key that the coordinator knew may read copies while it is out of reach.
AWAY_S = 900.0

Page = Callable[[Scope, Send], Awaitable[None]]


class Gateway:
    """The application. Use create_app to make one."""

    def __init__(
        self,
        catalog: Catalog,
        services: Services,
        *,
        authenticator: Authenticator,
        limiter: Limiter | None,
        prefix: str,
        operational: bool,
        access_log: bool,
    ) -> None:
        """Compiles every route; see create_app."""
        self.catalog = catalog
        self._services, self.authenticator, self._prefix = services, authenticator, prefix
        self._limiter, self._draining = limiter, False
        self._tickets = stream_tickets.Tickets()
        self._table = build(catalog)
        reader, writer = JsonReader(), JsonWriter()
        self._endpoints = {
            route: Endpoint(route, reader=reader, writer=writer, services=services)
            for route in self._table.routes
        }
        self.described = describe(catalog, self._endpoints.values(), prefix=prefix)
        self._pages: dict[str, Page] = {
            f"{prefix}/openapi.json": self._openapi,
            f"{prefix}/docs": self._docs,
        }
        if operational:
            self._pages |= {
                "/livez": self._alive,
                "/healthz": self._alive,
                "/readyz": self._ready,
                "/metrics": self._metrics,
            }
        layers: App = LastResort(self._dispatch)
        layers = Observe(layers, services.metrics, access_log=access_log)
        self._layers: App = RequestIds(layers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection scope, as ASGI has it."""
        if scope["type"] == "http":
            await self._layers(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    @property
    def open_streams(self) -> int:
        """How many streams are being sent."""
        return len(self._services.places.open)

    @property
    def shared_streams(self) -> int:
        """How many calls of the coordinator several readers share."""
        return len(self._services.hubs.open)

    def end_streams(self) -> None:
        """Ends open streams and says not ready from now on; the first step of going down."""
        self._draining = True
        for stream in tuple(self._services.places.open):
            stream.stop()

    async def close(self) -> None:
        """Ends open streams and closes the channel. A host that mounts the application calls it."""
        self.end_streams()
        await self._services.upstream.close()
        if self._limiter is not None:
            await self._limiter.window.close()
        for held in (self._services.copies, self._services.exchange):
            if held is not None:
                await held.close()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: Context = scope[KEY]
        path, verb = _relative_path(scope), scope["method"]
        if len(path) + len(scope.get("query_string", b"")) > MAX_TARGET:
            raise Failure(Code.URI_TOO_LONG, message="The address is too long.")
        page = self._pages.get(path)
        if page is not None:
            context.route = path
            if verb not in ("GET", "HEAD"):
                raise _wrong_method(("GET", "HEAD"))
            await page(scope, send)
            return
        inside = path.removeprefix(self._prefix) if path.startswith(self._prefix + "/") else ""
        if inside == stream_tickets.PATH:
            context.route = inside
            if verb != "POST":
                raise _wrong_method(("POST",))
            await self._give_ticket(scope, receive, send)
            return
        match = self._table.find(verb, inside)
        if match is None:
            allowed = self._table.allowed(inside)
            if allowed:
                raise _wrong_method(allowed)
            raise Failure(Code.NOT_FOUND, message="There is no such path.")
        endpoint = self._endpoints[match.route]
        context.route = endpoint.label
        identity = await self._admit(scope, match)
        require(identity, match.route.method.any_of)
        await endpoint.serve(match, identity=identity, scope=scope, receive=receive, send=send)

    async def _admit(self, scope: Scope, match: Match | None = None) -> Identity:
        """Who calls, counted against their limits. A ticket for the stream that was matched is
        taken out of the query."""
        context: Context = scope[KEY]
        ticket = None
        if match is not None and match.route.method.streaming:
            ticket, scope["query_string"] = stream_tickets.split_query(
                scope.get("query_string", b"")
            )
        if match is not None and ticket is not None:
            identity = self._tickets.redeem(ticket, match)
        else:
            try:
                identity = await self.authenticator.identify(scope, context.headers)
            except grpc.RpcError as error:
                raise refusal(error, context, metrics=self._services.metrics) from None
        context.tenant_id = identity.tenant_id
        if self._limiter is not None:
            await self._limiter.admit(identity, context.told)
        return identity

    async def _give_ticket(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: Context = scope[KEY]
        identity = await self._admit(scope)
        body = await read_body(context.headers, receive, limits=self._services.limits, takes=True)
        places = (_root(scope) + self._prefix, self._prefix)
        match = stream_tickets.stream_asked_for(body, table=self._table, places=places)
        given = stream_tickets.answer(
            self._tickets, match, identity=identity, request_id=context.request_id
        )
        await respond(send, 201, body=given)

    async def _alive(self, _: Scope, send: Send) -> None:
        await respond(send, 200, body=b'{"status":"ok"}')

    async def _ready(self, _: Scope, send: Send) -> None:
        if not self._draining and await self._services.upstream.ready():
            await respond(send, 200, body=b'{"status":"ready"}')
        else:
            await respond(send, 503, body=b'{"status":"not ready"}')

    async def _metrics(self, _: Scope, send: Send) -> None:
        body = self._services.metrics.render()
        await respond(send, 200, body=body, content_type=counters.CONTENT_TYPE)

    async def _openapi(self, scope: Scope, send: Send) -> None:
        await respond(send, 200, body=self.described.below(_root(scope)).json)

    async def _docs(self, scope: Scope, send: Send) -> None:
        page = render(self.described.below(_root(scope)).document)
        await respond(send, 200, body=page, content_type=b"text/html; charset=utf-8")


def create_app(
    upstream: Upstream,
    *,
    catalog: Catalog | None = None,
    authenticator: Authenticator | None = None,
    tokens: Tokens | None = None,
    limiter: Limiter | None = None,
    copies: Copies | None = None,
    exchange: Exchange | None = None,
    prefix: str = PREFIX,
    operational: bool = True,
    limits: Limits | None = None,
    access_log: bool = True,
) -> Gateway:
    """Makes the application.

    Without an authenticator it takes API keys that the coordinator knows, and `tokens` where given;
    without a limiter it bounds no rates, and without copies it answers nothing by itself, and
    without an exchange the coordinator gets no tokens of the callers. `prefix` is where the
    API stands below the place where the application is mounted; `operational` adds /livez,
    /healthz, /readyz and /metrics.

    Raises:
        BadCatalog: the protos ask for what cannot be served, or have no way to tell callers.
    """
    catalog = catalog or Catalog.default()
    if authenticator is None:
        method = catalog.authenticator()
        if method is None:
            raise BadCatalog("no method is marked `authenticates`, and no authenticator is given")
        keys = ApiKeys(resolver(upstream, method), away_s=AWAY_S if copies else 0.0)
        authenticator = keys if tokens is None else Credentials(keys, tokens)
    limits = limits or Limits()
    places = Places(total=limits.streams, per_user=limits.user_streams)
    return Gateway(
        catalog,
        Services(
            upstream,
            Metrics(),
            limits,
            places,
            copies=copies,
            exchange=exchange,
            standing=authenticator if isinstance(authenticator, Standing) else None,
        ),
        authenticator=authenticator,
        limiter=limiter,
        prefix="/" + prefix.strip("/") if prefix.strip("/") else "",
        operational=operational,
        access_log=access_log,
    )


def _wrong_method(allowed: tuple[str, ...]) -> Failure:
    return Failure(
        Code.METHOD_NOT_ALLOWED,
        message=f"This path takes {', '.join(allowed)}.",
        headers=((b"allow", ", ".join(allowed).encode()),),
    )


def _root(scope: Scope) -> str:
    """Where the application is mounted, percent-encoded; "" for not at all."""
    return quote(scope.get("root_path", "").rstrip("/"))


def _relative_path(scope: Scope) -> str:
    """The percent-encoded path below the place where the application is mounted."""
    raw: Any = scope.get("raw_path")
    path = raw.decode("latin-1").partition("?")[0] if raw else quote(scope["path"])
    root = scope.get("root_path", "").rstrip("/")
    if not root:
        return str(path)
    parts = path.split("/", root.count("/") + 1)
    if unquote("/".join(parts[: root.count("/") + 1])) != root:
        return str(path)
    return "/" + "/".join(parts[root.count("/") + 1 :])
