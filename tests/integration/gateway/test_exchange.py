"""Tokens of downstream services, from a real exchange over HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import structlog
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway import exchange as module
from gateway.auth import Identity
from gateway.exchange import ACCESS_TOKEN, GRANT, Exchange
from gateway.status import Failure
from scaimind.service.jwks import KeySet, from_url
from scaimind.service.roles import Claims
from scaimind.service.tokens import Tokens
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.gateway.scripted import World, world
from tests.integration.gateway.test_requests import SUBMIT
from tests.support.provider import (
    AUDIENCE,
    ISSUER,
    Provider,
    claims,
    provider,
    token,
)

SECRET_TOKEN = "minted-secret-token"
CALLER = claims(module_permissions=["scaimind:manage"])


def minted(form: dict[str, str]) -> Response:
    """A token of the audience, good for ten minutes."""
    body = {
        "access_token": f"{SECRET_TOKEN}-{form['audience']}",
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 600,
    }
    return JSONResponse(body)


def odd(**changes: Any) -> Any:
    def answer(form: dict[str, str]) -> Response:
        body = {"access_token": SECRET_TOKEN, "token_type": "Bearer", "expires_in": 600} | changes
        return JSONResponse(body)

    return answer


def failing(status: int, error: Any) -> Any:
    def answer(form: dict[str, str]) -> Response:
        body = {"error": error, "error_description": f"at db.internal {form['subject_token']}"}
        return JSONResponse(body, status)

    return answer


async def submitted(request: Any, context: Any) -> Any:
    return api.SubmitJobResponse(job_id="job_1")


async def found(request: Any, context: Any) -> Any:
    return job_pb2.Job(job_id="a")


@dataclass
class Parts:
    provider: Provider
    running: World
    now: list[float]


@contextlib.asynccontextmanager
async def exchanging() -> AsyncIterator[Parts]:
    """A provider, and a gateway that exchanges its tokens."""
    now = [0.0]
    async with provider() as made:
        made.exchange = minted
        keys = KeySet(from_url(f"{made.url}/jwks"))
        tokens = Tokens(keys, issuer=ISSUER, audience=AUDIENCE, claims=Claims())
        exchange = Exchange(
            f"{made.url}/token",
            client_id="mind:1",
            client_secret="s /%",
            clock=lambda: now[0],
            answers_within_s=60,
        )
        async with world(tokens=tokens, exchange=exchange) as running:
            running.coordinator.scripts |= {"SubmitJob": submitted, "GetJob": found}
            yield Parts(made, running, now)
            await running.gateway.close()


async def submit(parts: Parts, text: str) -> Any:
    headers = {"authorization": f"Bearer {text}"}
    return await parts.running.client.post("/jobs", json=SUBMIT, headers=headers)


async def test_a_submit_carries_a_token_of_each_audience_and_nothing_else_does() -> None:
    async with exchanging() as parts:
        text = token(CALLER)
        assert (await submit(parts, text)).status_code == 201
        read = await parts.running.client.get(
            "/jobs/a", headers={"authorization": f"Bearer {text}"}
        )
        assert read.status_code == 200
        sent, other = parts.running.coordinator.metadata
        for audience in ("scaidrive", "scaiatlas"):
            assert sent[f"x-{audience}-token"] == f"{SECRET_TOKEN}-{audience}"
            assert f"x-{audience}-token" not in other
        assert text not in repr(sent)
        for form, authorization in parts.provider.asked:
            assert form["grant_type"] == GRANT
            assert form["subject_token"] == text
            assert form["subject_token_type"] == form["requested_token_type"] == ACCESS_TOKEN
            who = base64.b64decode(authorization.removeprefix("Basic ")).decode()
            assert who == "mind%3A1:s%20%2F%25"


async def test_a_token_is_used_again_until_shortly_before_it_ends() -> None:
    async with exchanging() as parts:
        text = token(CALLER)
        for parts.now[0], asked in ((0.0, 2), (299.0, 2), (300.0, 4)):
            await submit(parts, text)
            assert len(parts.provider.asked) == asked
        parts.provider.exchange = odd(expires_in=40)
        for parts.now[0], asked in ((600.0, 6), (609.0, 6), (610.0, 8)):
            await submit(parts, text)
            assert len(parts.provider.asked) == asked
        await submit(parts, token(claims(sub="bob", module_permissions=["scaimind:manage"])))
        assert len(parts.provider.asked) == 10


async def test_calls_that_come_together_ask_once() -> None:
    async with exchanging() as parts:
        parts.provider.gate.clear()
        text = token(CALLER)
        asking = [asyncio.create_task(submit(parts, text)) for _ in range(8)]
        await asyncio.sleep(0)
        parts.provider.gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*asking)} == {201}
        assert len(parts.provider.asked) == 2


async def test_keys_and_exchanged_tokens_are_not_exchanged() -> None:
    async with exchanging() as parts:
        assert (await parts.running.client.post("/jobs", json=SUBMIT)).status_code == 201
        acted = token(CALLER | {"act": {"sub": "other-service"}})
        assert (await submit(parts, acted)).status_code == 201
        assert parts.provider.asked == []
        assert not any("x-scaidrive-token" in sent for sent in parts.running.coordinator.metadata)


async def test_a_request_that_is_refused_anyway_exchanges_nothing() -> None:
    async with exchanging() as parts:
        headers = {"authorization": f"Bearer {token(CALLER)}"}
        answer = await parts.running.client.post("/jobs", json={"name": ""}, headers=headers)
        assert answer.status_code == 422
        assert (await submit(parts, token())).status_code == 403
        assert parts.provider.asked == []


def plain(form: dict[str, str]) -> Response:
    return PlainTextResponse("not JSON")


def large(form: dict[str, str]) -> Response:
    return PlainTextResponse('"' + "x" * 100_000 + '"')


REFUSED = (
    failing(400, "invalid_request"),
    failing(400, "invalid_grant"),
    failing(400, "invalid_target"),
    failing(403, "access_denied"),
)
UNAVAILABLE = (
    failing(401, "invalid_client"),
    failing(400, "unauthorized_client"),
    failing(500, "invalid_grant"),
    failing(302, "invalid_grant"),
    failing(429, {"a": 1}),
    plain,
    large,
    odd(access_token=""),
    odd(access_token="two\nlines"),
    odd(access_token="x" * 9000),
    odd(access_token=None),
    odd(token_type="mac"),
    odd(issued_token_type="urn:other"),
    odd(expires_in=0),
    odd(expires_in="600"),
    odd(expires_in=True),
)


async def test_a_failed_exchange_is_friendly_and_tells_nothing() -> None:
    table = [(answer, 403, "TOKEN_EXCHANGE_REFUSED") for answer in REFUSED]
    table += [(answer, 503, "TOKEN_EXCHANGE_UNAVAILABLE") for answer in UNAVAILABLE]
    async with exchanging() as parts:
        for number, (answer, status, code) in enumerate(table):
            parts.provider.exchange = answer
            text = token(CALLER | {"sub": f"user-{number}"})
            with structlog.testing.capture_logs() as logs:
                told = await submit(parts, text)
            assert (told.status_code, told.json()["error"]["code"]) == (status, code), number
            assert ("retry-after" in told.headers) == (status == 503)
            for secret in (text, SECRET_TOKEN, parts.provider.url, "db.internal"):
                assert secret not in told.text + repr(logs)
            assert len(parts.running.coordinator.requests) == number
            parts.provider.exchange = minted
            assert (await submit(parts, text)).status_code == 201


async def test_a_connection_that_the_provider_closed_as_it_was_used_again_is_no_failure() -> None:
    answered = 0
    body = msgspec.json.encode({"access_token": "t", "token_type": "Bearer", "expires_in": 600})
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError), contextlib.closing(writer):
            for turn in range(2):
                read = await reader.readuntil(b"\r\n\r\n")
                (length,) = re.findall(rb"content-length: (\d+)", read.lower())
                await reader.readexactly(int(length))
                if turn == 0:
                    answered += 1
                    writer.write(head % len(body) + body)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    exchange = Exchange(f"http://127.0.0.1:{port}/token", client_id="c", client_secret="s")
    async with server:
        for number in range(2):
            await exchange.tokens(
                Identity("acme", "ann", frozenset(), subject_token=f"subject-{number}")
            )
        assert answered == 4
        await exchange.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers))


async def test_a_provider_that_hangs_or_is_gone_is_503() -> None:
    caller = Identity("acme", "ann", frozenset(), subject_token="t")
    async with provider() as made:
        made.exchange = minted
        made.gate.clear()
        slow = Exchange(f"{made.url}/token", client_id="c", client_secret="s", answers_within_s=0.2)
        with structlog.testing.capture_logs(), pytest.raises(Failure) as failure:
            await slow.tokens(caller)
        assert failure.value.http_status == 503
        await slow.close()
    gone = Exchange("http://127.0.0.1:1/token", client_id="c", client_secret="s")
    with structlog.testing.capture_logs(), pytest.raises(Failure) as failure:
        await gone.tokens(caller)
    assert failure.value.http_status == 503
    await gone.close()


async def test_the_number_of_kept_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 4)
    async with provider() as made:
        made.exchange = minted
        exchange = Exchange(f"{made.url}/token", client_id="c", client_secret="s")
        for number in range(5):
            await exchange.tokens(
                Identity("acme", "ann", frozenset(), subject_token=f"subject-{number}")
            )
        assert len(exchange._known) == 4
        assert "subject-4" not in repr(list(exchange._known))
        await exchange.close()
