"""From a user's token to the file: the identity provider exchanges it, the gateway carries what it got,
the coordinator's check presents it, and nobody else ever sees it. All programs are the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from starlette.responses import JSONResponse, Response

from tests.e2e.gateways import MODULE, gateway
from tests.integration.coordinator.house import Program
from tests.support.files import Answer, serving
from tests.support.provider import AUDIENCE, ISSUER, claims, provider, token
from tests.support.written import written

LINES = b'{"text": "one"}\n{"text": "two"}\n'
CANARY = "minted-canary-91c4"


def minted(form: dict[str, str]) -> Response:
    """A token of the audience that was asked for."""
    text = f"{CANARY}-{form['audience']}"
    return JSONResponse({"access_token": text, "token_type": "Bearer", "expires_in": 600})


@asynccontextmanager
async def client_of(folder: Path, coordinator: str, url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of a gateway that takes the tokens of an identity provider."""
    flags = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-jwks-url", f"{url}/jwks"]
    flags += ["--exchange-url", f"{url}/token", "--exchange-client-id", "mind"]
    secret = {"MIND_EXCHANGE_CLIENT_SECRET": "secret"}
    async with gateway(folder, coordinator, *flags, environ=secret) as base:
        caller = token(claims(module_permissions=["scaimind:manage"]))
        headers = {"authorization": f"Bearer {caller}"}
        async with httpx.AsyncClient(
            base_url=base + MODULE, headers=headers, timeout=30, trust_env=False
        ) as client:
            yield client


async def test_a_check_reads_a_service_with_a_token_minted_for_its_caller(tmp_path: Path) -> None:
    answers = {
        "/drive/acme/a.jsonl": Answer(LINES, token=f"{CANARY}-scaidrive"),
        "/atlas/corpus.jsonl": Answer(LINES, token=f"{CANARY}-scaiatlas"),
        "/open.jsonl": Answer(LINES),
    }
    coordinator = Program(tmp_path)
    with serving(answers) as server:
        words = ["--data-networks", "127.0.0.1/32", "--log-level", "DEBUG"]
        words += ["--data-scaidrive-url", f"{server.url}/drive"]
        words += ["--data-scaiatlas-url", f"{server.url}/atlas"]
        await coordinator.start(*words)
        try:
            async with provider() as identity:
                identity.exchange = minted
                async with client_of(tmp_path, coordinator.address, identity.url) as client:
                    paths = ["scaidrive://acme/a.jsonl", "scaiatlas://corpus.jsonl"]
                    paths += [f"{server.url}/open.jsonl", "http://[::ffff:127.0.0.1]/x.jsonl"]
                    body = {"sources": [{"path": path} for path in paths]}
                    answer = await client.post("/data/validate", json=body)
                asked = [form["audience"] for form, _ in identity.asked]
        finally:
            await coordinator.close()
    assert answer.status_code == 200, answer.text
    results = answer.json()["data"]["results"]
    assert [one["path"] for one in results] == paths
    assert [one["parseable"] for one in results] == [True, True, True, False]
    assert [one.get("num_samples") for one in results] == [2, 2, 2, None]
    assert sorted(asked) == ["scaiatlas", "scaidrive"]
    assert CANARY not in answer.text
    files = dict(written(tmp_path))
    assert any(path.name == "gateway.log" and content for path, content in files.items())
    assert not [path for path, content in files.items() if CANARY.encode() in content]
