"""Streams that are opened by a ticket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import structlog

from tests.integration.gateway.scripted import World
from tests.integration.gateway.test_streams import LOGS, short

PLACE = "/v1/modules/scaimind"


async def ticket(running: World, path: str = LOGS) -> str:
    answer = await running.client.post("/stream-tickets", json={"path": path})
    assert answer.status_code == 201
    return str(answer.json()["data"]["ticket"])


def bare(running: World) -> httpx.AsyncClient:
    """A client without a credential."""
    return httpx.AsyncClient(base_url=str(running.client.base_url), timeout=60)


async def test_a_ticket_opens_its_stream_once_without_a_header(running: World) -> None:
    running.coordinator.scripts["StreamJobLogs"] = short
    given = await running.client.post("/stream-tickets", json={"path": PLACE + LOGS + "?tail=9"})
    data = given.json()["data"]
    ends_in = datetime.fromisoformat(data["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=50) < ends_in <= timedelta(seconds=60)
    async with bare(running) as browser:
        params = {"tail": "7", "ticket": data["ticket"]}
        with structlog.testing.capture_logs() as logs:
            answer = await browser.get(LOGS, params=params)
        assert answer.status_code == 200
        assert "event: end" in answer.text
        again = await browser.get(LOGS, params=params)
        assert (again.status_code, again.json()["error"]["code"]) == (401, "AUTH_TOKEN_INVALID")
    assert data["ticket"] not in repr(logs)
    assert [request.tail for request in running.coordinator.requests] == [7]
    sent = running.coordinator.metadata[0]
    assert (sent["x-tenant-id"], sent["x-user-id"]) == ("acme", "ann")


async def test_a_ticket_is_of_no_use_elsewhere(running: World) -> None:
    async with bare(running) as browser:
        for path in ("/jobs/job_2/logs", "/jobs/job_1/metrics/stream"):
            text = await ticket(running)
            assert (await browser.get(path, params={"ticket": text})).status_code == 401
        text = await ticket(running)
        assert (await browser.get("/jobs", params={"ticket": text})).status_code == 401
    text = await ticket(running)
    unknown = await running.client.get("/jobs", params={"ticket": text})
    assert unknown.json()["error"]["details"][0]["field"] == "ticket"


async def test_a_ticket_needs_a_credential_and_the_permission_of_the_stream(
    running: World,
) -> None:
    body = {"path": LOGS}
    async with bare(running) as browser:
        assert (await browser.post("/stream-tickets", json=body)).status_code == 401
    key = {"authorization": "Bearer sgk_none"}
    answer = await running.client.post("/stream-tickets", json=body, headers=key)
    assert answer.status_code == 403
    assert (await running.client.get("/stream-tickets")).status_code == 405
    missing = await running.client.post("/stream-tickets", json={"path": "/jobs/job_1"})
    assert missing.status_code == 404
