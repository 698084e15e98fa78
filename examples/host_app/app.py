"""A host application that serves MindCoordinator as one of its modules.

The host knows its users by a session cookie and has permissions of its own. The gateway is mounted
below its other routes, behind its middleware, and asks it two things through `identify`: who calls,
and what may they do. Start it beside a coordinator:

    MIND_COORDINATOR=127.0.0.1:50051 MIND_API_SECRET_FILE=data/gateway.secret \\
        uvicorn --factory examples.host_app.app:create_host
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from gateway.app import create_app
from gateway.auth import Headers, Identity, unauthenticated
from gateway.upstream import Upstream
from scaimind.service.roles import PERMISSIONS

PLACE = "/v1/modules/scaimind"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class CurrentUser:
    """A user of the host."""

    user_id: str
    tenant_id: str
    modules: frozenset[str]

    def has_module_permission(self, name: str) -> bool:
        """The host's own check, which may be anything."""
        return name in self.modules


SESSIONS = {
    "ann-session": CurrentUser("ann", "acme", frozenset({"scaimind:view", "scaimind:manage"})),
    "bob-session": CurrentUser("bob", "acme", frozenset({"scaimind:view"})),
    "eve-session": CurrentUser("eve", "other", frozenset({"scaimind:view"})),
}


class Sessions:
    """The host's middleware: finds the user of the session, for all that is behind it. Plain ASGI,
    so that streams pass through as they come."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["host.user"] = SESSIONS.get(Request(scope).cookies.get("session", ""))
        await self.app(scope, receive, send)


class HostUsers:
    """What the gateway asks of the host: see gateway.auth.Authenticator."""

    async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
        """The host's user as a caller of the module."""
        user: CurrentUser | None = scope["host.user"]
        if user is None:
            raise unauthenticated("AUTH_TOKEN_MISSING", "Log in first.")
        granted = frozenset(filter(user.has_module_permission, PERMISSIONS))
        return Identity(user.tenant_id, user.user_id, granted)


async def me(request: Request) -> JSONResponse:
    """A route of the host's own."""
    user: CurrentUser | None = request.scope["host.user"]
    return JSONResponse({"user": user.user_id if user else None})


def create_host(upstream: Upstream | None = None) -> Starlette:
    """The host with the module in it."""
    module = create_app(
        upstream or coordinator(), prefix="", authenticator=HostUsers(), operational=False
    )

    @asynccontextmanager
    async def lifespan(host: Starlette) -> AsyncIterator[None]:
        # The lifespan of a mounted application is its host's business.
        yield
        await module.close()

    return Starlette(
        routes=[Route("/me", me), Mount(PLACE, app=module)],
        middleware=[Middleware(Sessions)],
        lifespan=lifespan,
    )


def coordinator() -> Upstream:
    """The coordinator that the environment names."""
    secret = Path(os.environ["MIND_API_SECRET_FILE"]).read_text(encoding="utf-8").strip()
    return Upstream(os.environ.get("MIND_COORDINATOR", "127.0.0.1:50051"), secret=secret)
