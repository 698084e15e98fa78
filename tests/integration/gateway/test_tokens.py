"""Tokens of an identity provider over HTTP: the good, and a fixed set of bad ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import structlog

from scaimind.service.jwks import KeySet, from_url
from scaimind.service.roles import Claims
from scaimind.service.tokens import Tokens
from scaimind.v1 import job_pb2
from tests.integration.gateway.scripted import World, world
from tests.support.provider import (
    AUDIENCE,
    ISSUER,
    Provider,
    provider,
)
from tests.support.tokens import GOOD, GOOD_TOKENS, bad_tokens, signed


async def found(request: Any, context: Any) -> Any:
    return job_pb2.Job(job_id=request.job_id)


@asynccontextmanager
async def guarded(made: Provider) -> AsyncIterator[World]:
    """A gateway that takes the provider's tokens beside API keys."""
    keys = KeySet(from_url(f"{made.url}/jwks"))
    tokens = Tokens(keys, issuer=ISSUER, audience=AUDIENCE, claims=Claims())
    async with world(tokens=tokens) as running:
        running.coordinator.scripts["GetJob"] = found
        running.coordinator.scripts["CancelJob"] = found
        yield running


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def test_every_bad_token_has_the_same_answer_and_reaches_nobody() -> None:
    bad = bad_tokens(int(time.time()))
    assert len(bad) >= 60
    async with provider() as made, guarded(made) as running:
        assert (await running.client.get("/jobs/a", headers=bearer(GOOD))).status_code == 200
        answers = set()
        with structlog.testing.capture_logs() as logs:
            for name, text in bad.items():
                headers = bearer(text) | {"x-request-id": "r"}
                answer = await running.client.get("/jobs/a", headers=headers)
                assert answer.status_code == 401, name
                assert answer.headers["www-authenticate"] == "Bearer"
                answers.add(answer.content)
        assert len(answers) == 1
        assert b"AUTH_TOKEN_INVALID" in answers.pop()
        assert len(running.coordinator.requests) == 1
        assert not any(
            part in repr(logs) for text in bad.values() if (part := text[:40]) and len(text) > 60
        )
        assert made.fetched <= 2


async def test_a_key_that_is_none_has_that_answer_too() -> None:
    async with provider() as made, guarded(made) as running:
        bodies = set()
        for text in ("sgk_unknown", signed(exp=1), "x y"):
            headers = {"authorization": f"Bearer {text}", "x-request-id": "r"}
            answer = await running.client.get("/jobs/a", headers=headers)
            bodies.add((answer.status_code, answer.json()["error"]["code"]))
        assert bodies == {(401, "AUTH_TOKEN_INVALID")}


async def test_a_good_token_says_who_calls() -> None:
    async with provider() as made, guarded(made) as running:
        for good in GOOD_TOKENS:
            answer = await running.client.get("/jobs/a", headers=bearer(good))
            assert answer.status_code == 200
            answer = await running.client.post("/jobs/a/cancel", headers=bearer(good))
            assert answer.status_code == 403
            sent = running.coordinator.metadata[-1]
            assert (sent["x-tenant-id"], sent["x-user-id"]) == ("acme", "ann")
            assert sent["x-permissions"] == "scaimind:view"
            assert good not in repr(sent)


async def test_clocks_may_differ_a_little() -> None:
    now = int(time.time())
    async with provider() as made, guarded(made) as running:
        for changes in ({"exp": now - 10}, {"nbf": now + 20, "iat": now + 20}):
            answer = await running.client.get("/jobs/a", headers=bearer(signed(**changes)))
            assert answer.status_code == 200


async def test_api_keys_go_on_being_good_beside_tokens() -> None:
    async with provider() as made, guarded(made) as running:
        assert (await running.client.get("/jobs/a")).status_code == 200
        assert made.fetched == 0


async def test_a_new_key_is_found_and_a_provider_that_is_away_is_told_as_such() -> None:
    async with provider() as made, guarded(made) as running:
        made.status = 500
        with structlog.testing.capture_logs() as logs:
            answer = await running.client.get("/jobs/a", headers=bearer(GOOD))
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "IDENTITY_PROVIDER_UNAVAILABLE"
        assert answer.headers["retry-after"] == "5"
        assert made.url not in answer.text + repr(logs)


async def test_a_redirect_is_not_followed() -> None:
    async with provider() as made:
        made.status = 302
        with pytest.raises((ValueError, httpx.HTTPError)):
            await from_url(f"{made.url}/jwks")()
