"""The gateway inside a host application, with the host's own identity."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from gateway.app import Gateway, create_app
from gateway.auth import Headers, Identity
from gateway.catalog import Catalog
from gateway.status import Failure
from gateway.upstream import Upstream
from scaimind.v1 import job_pb2
from tests.integration.gateway.scripted import Coordinator


class HostUsers:
    """The host's way to tell callers: a header that its own login sets."""

    async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
        user = headers.get(b"x-host-user", b"").decode()
        if not user:
            raise Failure("AUTH_TOKEN_MISSING", message="Log in first.")
        return Identity("host-tenant", user, frozenset({"scaimind:view"}))


@asynccontextmanager
async def hosted(prefix: str, mount: str) -> AsyncIterator[tuple[httpx.AsyncClient, Coordinator]]:
    coordinator = Coordinator()
    await coordinator.start(Catalog.default())
    upstream = Upstream(f"127.0.0.1:{coordinator.port}")
    gateway: Gateway = create_app(
        upstream, prefix=prefix, authenticator=HostUsers(), operational=False, access_log=False
    )

    async def hello(request: Request) -> PlainTextResponse:
        return PlainTextResponse("host")

    host = Starlette(routes=[Route("/", hello), Mount(mount, app=gateway)])
    transport = httpx.ASGITransport(app=host)
    async with httpx.AsyncClient(transport=transport, base_url="http://host") as client:
        yield client, coordinator
    await gateway.close()
    await coordinator.stop()


@pytest.mark.parametrize(
    ("prefix", "mount"), [("", "/v1/modules/scaimind"), ("/mind", "/a b"), ("mind/", "/x")]
)
async def test_it_mounts_at_any_prefix(prefix: str, mount: str) -> None:
    async def found(request: Any, context: Any) -> Any:
        return job_pb2.Job(job_id=request.job_id)

    place = mount + ("/mind" if prefix else "")
    async with hosted(prefix, mount) as (client, coordinator):
        coordinator.scripts["GetJob"] = found
        user = {"x-host-user": "ann"}
        answer = await client.get(f"{place}/jobs/a%2Fb", headers=user)
        assert answer.json()["data"]["job_id"] == "a/b"
        assert coordinator.metadata[0]["x-tenant-id"] == "host-tenant"
        assert coordinator.metadata[0]["x-permissions"] == "scaimind:view"
        assert (await client.get(f"{place}/jobs/a")).status_code == 401
        assert (await client.post(f"{place}/jobs/a/cancel", headers=user)).status_code == 403
        assert (await client.get(f"{place}/openapi.json")).status_code == 200
        assert (await client.get(f"{place}/nowhere", headers=user)).json()["status"] == "error"
        assert (await client.get(f"{mount}/metrics")).status_code == 404
        assert (await client.get("/")).text == "host"
