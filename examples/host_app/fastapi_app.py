"""A FastAPI application that serves MindCoordinator as one of its modules.

The host has users, a permission check, middleware and a lifespan of its own; its routes take them by
`Depends`. A mounted application is behind the middleware and knows nothing of dependencies, so the module
asks through `identify`, which uses the same functions. Start it beside a coordinator:

    MIND_COORDINATOR=127.0.0.1:50051 MIND_API_SECRET_FILE=data/gateway.secret \\
        uvicorn --factory examples.host_app.fastapi_app:create_host --timeout-graceful-shutdown 5
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response

from examples.host_app.app import PLACE, SESSIONS, CurrentUser, coordinator
from gateway.app import create_app
from gateway.auth import Headers, Identity, unauthenticated
from gateway.upstream import Upstream
from scaimind.service.roles import PERMISSIONS


def current_user(request: Request) -> CurrentUser:
    """The host's own dependency: who calls."""
    user = SESSIONS.get(request.cookies.get("session", ""))
    if user is None:
        raise HTTPException(401, "Log in first.")
    return user


def require_module_permission(name: str) -> Callable[[CurrentUser], CurrentUser]:
    """The host's own dependency: a user who has a permission."""

    def check(user: Annotated[CurrentUser, Depends(current_user)]) -> CurrentUser:
        if not user.has_module_permission(name):
            raise HTTPException(403, f"This needs {name}.")
        return user

    return check


class HostUsers:
    """What the gateway asks of the host: see gateway.auth.Authenticator."""

    async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
        """The host's user as a caller of the module."""
        try:
            user = current_user(Request(dict(scope)))
        except HTTPException as refused:
            raise unauthenticated("AUTH_TOKEN_MISSING", str(refused.detail)) from None
        granted = frozenset(filter(user.has_module_permission, PERMISSIONS))
        return Identity(user.tenant_id, user.user_id, granted)


def create_host(upstream: Upstream | None = None) -> FastAPI:
    """The host with the module in it."""
    module = create_app(
        upstream or coordinator(), prefix="", authenticator=HostUsers(), operational=False
    )

    @asynccontextmanager
    async def lifespan(host: FastAPI) -> AsyncIterator[None]:
        # The module needs no start. That of a mounted application would never be run.
        yield
        await module.close()

    host = FastAPI(title="Host", lifespan=lifespan)

    @host.middleware("http")
    async def stamp(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        # FastAPI's own kind of middleware: answers pass through it piece by piece.
        response = await go_on(request)
        response.headers["x-host-request"] = secrets.token_hex(4)
        return response

    @host.get("/me")
    def me(user: Annotated[CurrentUser, Depends(current_user)]) -> dict[str, str]:
        """A route of the host's own."""
        return {"user": user.user_id}

    @host.get("/reports")
    def reports(
        user: Annotated[CurrentUser, Depends(require_module_permission("scaimind:manage"))],
    ) -> dict[str, str]:
        """A route of the host's own for those who may manage jobs."""
        return {"for": user.user_id}

    host.mount(PLACE, module)
    return host
