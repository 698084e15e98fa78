"""The example of a FastAPI host, over HTTP: its middleware, its users, its lifespan, its description."""

from __future__ import annotations

import asyncio

from examples.host_app.app import PLACE
from examples.host_app.fastapi_app import create_host
from tests.integration.gateway.scripted import WITHIN_S
from tests.integration.gateway.test_host_app import ANN, BOB, EVE, found, hosted
from tests.integration.gateway.test_streams import endless, short


async def test_the_module_is_behind_the_middleware_and_asks_the_hosts_dependencies() -> None:
    async with hosted(create_host) as (client, made, _):
        made.scripts |= {"GetJob": found, "CancelJob": found}
        assert (await client.get("/reports", headers=BOB)).status_code == 403
        assert (await client.get("/me")).json() == {"detail": "Log in first."}
        for headers, read, cancel in ((ANN, 200, 200), (BOB, 200, 403), ({}, 401, 401)):
            answer = await client.get(f"{PLACE}/jobs/j", headers=headers)
            assert answer.status_code == read
            assert answer.headers["x-host-request"], "the host's middleware saw it"
            assert answer.json()["meta"]["request_id"] == answer.headers["x-request-id"]
            done = await client.post(f"{PLACE}/jobs/j/cancel", headers=headers)
            assert done.status_code == cancel
        await client.get(f"{PLACE}/jobs/j", headers=EVE)
    callers = [(sent["x-tenant-id"], sent["x-user-id"]) for sent in made.metadata]
    assert callers == [("acme", "ann"), ("acme", "ann"), ("acme", "bob"), ("other", "eve")]
    assert "session" not in repr(made.metadata)


async def test_events_come_through_the_hosts_middleware_as_they_happen() -> None:
    async with hosted(create_host) as (client, made, _):
        path = f"{PLACE}/jobs/j/logs"
        made.scripts["StreamJobLogs"] = short
        assert "event: end" in (await client.get(path, headers=BOB)).text
        given = await client.post(f"{PLACE}/stream-tickets", json={"path": path}, headers=BOB)
        ticket = {"ticket": given.json()["data"]["ticket"]}
        assert "event: end" in (await client.get(path, params=ticket)).text
        made.scripts["StreamJobLogs"] = endless
        async with client.stream("GET", path, headers=ANN) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    break  # it is there though the stream never ends
        await asyncio.wait_for(made.cancelled.wait(), WITHIN_S)


async def test_the_hosts_own_description_stays_its_own_and_the_modules_says_where_it_is() -> None:
    async with hosted(create_host) as (client, _, _):
        own = (await client.get("/openapi.json")).json()
        assert set(own["paths"]) == {"/me", "/reports"}
        assert (await client.get("/docs")).status_code == 200
        module = (await client.get(f"{PLACE}/openapi.json")).json()
        assert module["servers"] == [{"url": PLACE}]
        assert "/jobs/{job_id}" in module["paths"]
        assert PLACE in (await client.get(f"{PLACE}/docs")).text
        assert (await client.get("/nothing")).json() == {"detail": "Not Found"}
        assert (await client.get(f"{PLACE}/nothing")).json()["error"]["code"] == "NOT_FOUND"


async def test_the_end_of_the_host_ends_the_streams_of_the_module() -> None:
    async with hosted(create_host) as (client, made, server):
        made.scripts["StreamJobLogs"] = endless
        async with client.stream("GET", f"{PLACE}/jobs/j/logs", headers=ANN) as answer:
            assert answer.status_code == 200
            server.should_exit = True
            await asyncio.wait_for(made.cancelled.wait(), WITHIN_S)
