"""Streams of callers whose credential is taken back, or ends, while they read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import httpx
import pytest

from gateway import sse
from gateway.auth import Headers, Identity
from scaimind.service.jwks import KeySet, from_url
from scaimind.service.roles import Claims
from scaimind.service.tokens import LEEWAY_S, Tokens
from scaimind.v1 import stream_pb2
from tests.integration.gateway.scripted import OPEN, World, world
from tests.integration.gateway.test_streams import LOGS
from tests.support.provider import AUDIENCE, ISSUER, provider
from tests.support.tokens import signed

WITHIN_S = 60.0


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers are confirmed often, so that a test need not wait for seconds."""
    monkeypatch.setattr(sse, "CONFIRM_S", 0.05)


async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
    """A job that prints one line, and goes on in silence."""
    await context.send_initial_metadata(OPEN)
    log = stream_pb2.LogEvent(id="1", log=stream_pb2.LogLine(message="one"))
    yield stream_pb2.StreamJobLogsResponse(events=[log])
    await asyncio.Event().wait()


async def read(running: World, headers: dict[str, str], *, path: str = LOGS, act: Any) -> str:
    """All of a stream; `act` is called once it has begun."""
    text = ""
    client = httpx.AsyncClient(base_url=str(running.client.base_url), timeout=WITHIN_S)
    async with client, client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        async for part in answer.aiter_text():
            text += part
            if act is not None and "one" in text:
                act()
                act = None
    return text


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def test_the_stream_of_a_revoked_key_ends_as_a_broken_one() -> None:
    async with world() as running:
        running.coordinator.scripts["StreamJobLogs"] = endless
        running.gateway.authenticator._ttl_s = 0.05  # type: ignore[attr-defined]
        async with asyncio.timeout(WITHIN_S):
            text = await read(
                running, bearer("sgk_view"), act=lambda: running.coordinator.grants.pop("sgk_view")
            )
            await running.coordinator.cancelled.wait()
        assert text.endswith('event: error\ndata: {"error": "stream ended"}\n\n')
        assert running.gateway.open_streams == 0


async def test_so_does_one_that_a_ticket_opened() -> None:
    async with world() as running:
        running.coordinator.scripts["StreamJobLogs"] = endless
        running.gateway.authenticator._ttl_s = 0.05  # type: ignore[attr-defined]
        given = await running.client.post("/stream-tickets", json={"path": LOGS})
        path = f"{LOGS}?ticket={given.json()['data']['ticket']}"
        async with asyncio.timeout(WITHIN_S):
            text = await read(running, {}, path=path, act=running.coordinator.grants.clear)
        assert "stream ended" in text


async def test_a_coordinator_that_cannot_be_asked_ends_nothing() -> None:
    async with world() as running:
        running.coordinator.scripts["StreamJobLogs"] = endless
        keys: Any = running.gateway.authenticator
        keys._ttl_s = 0.0
        asked = asyncio.Event()

        async def away(digest: str) -> Identity:
            asked.set()
            raise grpc.RpcError

        headers = bearer("sgk_view")
        async with running.client.stream("GET", LOGS, headers=headers) as answer:
            keys._resolve = away
            async with asyncio.timeout(WITHIN_S):
                await asked.wait()
            assert running.gateway.open_streams == 1
            assert not answer.is_closed


async def test_a_stream_lasts_no_longer_than_its_token() -> None:
    async with provider() as made:
        keys = KeySet(from_url(f"{made.url}/jwks"))
        tokens = Tokens(keys, issuer=ISSUER, audience=AUDIENCE, claims=Claims())
        async with world(tokens=tokens) as running:
            running.coordinator.scripts["StreamJobLogs"] = endless
            ends = signed(exp=int(time.time()) - int(LEEWAY_S) + 5)
            async with asyncio.timeout(WITHIN_S):
                assert "stream ended" in await read(running, bearer(ends), act=None)


async def test_a_host_may_say_that_a_caller_is_one_no_more() -> None:
    class Users:
        logged_in = True

        async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
            return Identity("acme", "ann", frozenset({"scaimind:view"}))

        async def stands(self, identity: Identity) -> bool:
            return self.logged_in

    users = Users()
    async with world(authenticator=users) as running:
        running.coordinator.scripts["StreamJobLogs"] = endless
        async with asyncio.timeout(WITHIN_S):
            text = await read(running, {}, act=lambda: setattr(users, "logged_in", False))
        assert "stream ended" in text
