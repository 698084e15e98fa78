"""The example of a host application, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from examples.host_app.app import PLACE, coordinator, create_host
from gateway.catalog import Catalog
from gateway.server import listen
from gateway.upstream import Upstream
from scaimind.v1 import job_pb2
from tests.integration.gateway.scripted import SECRET, WITHIN_S, Coordinator
from tests.integration.gateway.test_streams import endless, short

ANN, BOB = {"cookie": "session=ann-session"}, {"cookie": "session=bob-session"}
EVE = {"cookie": "session=eve-session"}


@asynccontextmanager
async def hosted(
    make: Callable[[Upstream], Any] = create_host,
) -> AsyncIterator[tuple[httpx.AsyncClient, Coordinator, uvicorn.Server]]:
    """The host on a free port before a scripted coordinator."""
    made = Coordinator()
    await made.start(Catalog.default())
    host = make(Upstream(f"127.0.0.1:{made.port}", secret=SECRET))
    sock = listen("127.0.0.1", 0, send_timeout_s=30)
    config = uvicorn.Config(host, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    base = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=base, timeout=WITHIN_S) as client:
        yield client, made, server
    server.should_exit = True
    await serving
    sock.close()
    await made.stop()


async def found(request: Any, context: Any) -> Any:
    return job_pb2.Job(job_id=request.job_id)


async def test_the_host_says_who_calls_and_what_they_may_do() -> None:
    async with hosted() as (client, made, _):
        made.scripts |= {"GetJob": found, "CancelJob": found}
        assert (await client.get("/me", headers=ANN)).json() == {"user": "ann"}
        for headers, read, cancel in ((ANN, 200, 200), (BOB, 200, 403), ({}, 401, 401)):
            assert (await client.get(f"{PLACE}/jobs/j", headers=headers)).status_code == read
            answer = await client.post(f"{PLACE}/jobs/j/cancel", headers=headers)
            assert answer.status_code == cancel
        await client.get(f"{PLACE}/jobs/j", headers=EVE)
    tenants = [(sent["x-tenant-id"], sent["x-user-id"]) for sent in made.metadata]
    assert tenants == [("acme", "ann"), ("acme", "ann"), ("acme", "bob"), ("other", "eve")]
    assert all(sent["x-api-secret"] == SECRET for sent in made.metadata)
    assert "session" not in repr(made.metadata)


async def test_only_the_module_is_below_the_mount() -> None:
    async with hosted() as (client, _, _):
        assert (await client.get(f"{PLACE}/openapi.json")).status_code == 200
        assert (await client.get(f"{PLACE}/metrics")).status_code == 404
        assert (await client.get(f"{PLACE}/nothing")).json()["error"]["code"] == "NOT_FOUND"
        assert (await client.get("/healthz")).status_code == 404


async def test_streams_and_tickets_work_below_the_mount() -> None:
    async with hosted() as (client, made, _):
        made.scripts["StreamJobLogs"] = short
        path = f"{PLACE}/jobs/j/logs"
        assert "event: end" in (await client.get(path, headers=BOB)).text
        given = await client.post(f"{PLACE}/stream-tickets", json={"path": path}, headers=BOB)
        ticket = {"ticket": given.json()["data"]["ticket"]}
        assert "event: end" in (await client.get(path, params=ticket)).text
        assert (await client.get(path, params=ticket)).status_code == 401


async def test_a_reader_who_leaves_is_noticed_through_the_hosts_middleware() -> None:
    async with hosted() as (client, made, _):
        made.scripts["StreamJobLogs"] = endless
        async with client.stream("GET", f"{PLACE}/jobs/j/logs", headers=ANN) as answer:
            assert answer.status_code == 200
        await asyncio.wait_for(made.cancelled.wait(), WITHIN_S)


def test_the_coordinator_is_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    file.write_text("s\n")
    monkeypatch.setenv("MIND_API_SECRET_FILE", str(file))
    assert ("x-api-secret", "s") in coordinator().metadata()
