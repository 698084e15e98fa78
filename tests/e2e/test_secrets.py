"""Secrets of every kind, planted in every place where a caller can put one, then looked for everywhere.

Real programs, with all that they can log. Each secret may lie in the file that is made for it, and nowhere
else: not in a store, a log, an answer, a metric, an event. What a job is to be given lies where its agent
and its tenant find it (docs/security.md), and nowhere else either.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
from starlette.responses import JSONResponse, Response

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.client import AsyncClient
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.e2e.gateways import MODULE, gateway
from tests.integration.coordinator.house import CHANNEL, Caller, Program
from tests.support import jobs, processes
from tests.support.ports import Port
from tests.support.provider import (
    AUDIENCE,
    ISSUER,
    OTHER_RSA_KEY,
    Provider,
    claims,
    provider,
    token,
)
from tests.support.redis_server import RedisServer
from tests.support.written import written

PASSWORD = "canary-of-a-url-5d1e"
IN_ENVIRONMENT = "canary-of-an-environment-77aa"
IN_QUERY = "canary-of-a-query-90ce"
WRONG_KEY = "sgk_canary-of-a-wrong-key-31b0"
WRONG_SECRET = "canary-of-a-wrong-secret-4f2d"
EXCHANGE_SECRET = "canary-of-the-exchange-1c1c"
SEAL = "canary-of-the-seal-of-the-store-2b7e"
MINTED = "canary-of-a-minted-token-8e8e"
LOGS = ("program.log", "gateway.log", "agent.log")


@dataclass
class Found:
    """Who was told what, and the secrets, each with where it may lie."""

    folder: Path
    secrets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def hear(self, answer: httpx.Response) -> httpx.Response:
        """Keeps all that a caller was told."""
        self.told.append(f"{answer.status_code} {answer.headers!r} {answer.text}")
        return answer

    def places(self, secret: str) -> set[str]:
        """The files that hold a secret, below the folder."""
        return {
            str(path.relative_to(self.folder))
            for path, content in written(self.folder)
            if secret.encode() in content
        }

    def check(self) -> None:
        """Every secret is where it may be, and nowhere else."""
        for secret, allowed in self.secrets.items():
            places = self.places(secret)
            beyond = {one for one in places if not one.startswith(allowed or ("\0",))}
            assert not beyond, f"{secret} is in {beyond}"
            assert bool(places) == bool(allowed), f"{secret} is nowhere, not even in {allowed}"
            assert not [text for text in self.told if secret in text], f"{secret} was told"


@asynccontextmanager
async def node_agent(folder: Path, coordinator: str) -> AsyncIterator[None]:
    """`python -m node_agent` with one node of CPUs."""
    words = ["--coordinator", coordinator, "--devices", "cpu", "--node-id", "n1"]
    words += ["--data-dir", str(folder / "node"), "--log-level", "DEBUG"]
    words += ["--join-token-file", str(folder / "join.token")]
    with (folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "node_agent", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
        processes.kill_all(processes.of_folder(folder / "node"))


def minted(form: dict[str, str]) -> Response:
    return JSONResponse(
        {"access_token": f"{MINTED}-{form['audience']}", "token_type": "Bearer", "expires_in": 600}
    )


def body_of(folder: Path) -> dict[str, Any]:
    """A job that is given a secret, and keeps it to itself."""
    text = f"import os\nassert len(os.environ['API_TOKEN']) == {len(IN_ENVIRONMENT)}\nprint('it trains')"
    script = jobs.script(folder / "scripts", "train.py", text)
    environment = {"API_TOKEN": IN_ENVIRONMENT}
    return jobs.body(script, training={"environment": environment})


async def rest_calls(found: Found, base: str, key: str, tokens: tuple[str, str]) -> str:
    """What callers do over REST, rightly and wrongly; the id of the job."""
    good, forged = tokens
    async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as client:

        async def ask(verb: str, path: str, credential: str, **words: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {credential}"}
            return found.hear(await client.request(verb, path, headers=headers, **words))

        bad = jobs.body("/x.py")
        bad["data_config"] = {"sources": [{"path": f"https://ann:{PASSWORD}@files.example/a"}]}
        answer = await ask("POST", f"{MODULE}/jobs", good, json=bad)
        assert (answer.status_code, PASSWORD in answer.text) == (400, False)
        check = {"sources": bad["data_config"]["sources"]}
        submitted = await ask("POST", f"{MODULE}/jobs", good, json=body_of(found.folder))
        assert submitted.status_code == 201, submitted.text
        job_id = str(submitted.json()["data"]["job_id"])
        for credential in (key, good, forged, WRONG_KEY, WRONG_SECRET):
            await ask("GET", f"{MODULE}/queue", credential)
            await ask("GET", f"{MODULE}/jobs?secret={IN_QUERY}", credential)
            await ask("GET", f"{MODULE}/jobs/{job_id}/logs?ticket={IN_QUERY}", credential)
        # What a check says of a path repeats the path to who sent it: it is not kept here.
        headers = {"authorization": f"Bearer {good}"}
        await client.post(f"{MODULE}/data/validate", json=check, headers=headers)
        ticket = (
            await client.post(
                f"{MODULE}/stream-tickets", json={"path": f"/jobs/{job_id}/logs"}, headers=headers
            )
        ).json()["data"]["ticket"]
        found.secrets[ticket] = ()
        async with client.stream("GET", f"{MODULE}/jobs/{job_id}/logs?ticket={ticket}") as stream:
            assert stream.status_code == 200
            found.told.append((await stream.aread()).decode())
        for path in ("/jobs", f"/jobs/{job_id}"):  # shown to its tenant, and copied
            shown = await client.get(MODULE + path, headers=headers)
            assert IN_ENVIRONMENT in shown.text
        for path in ("/metrics", "/healthz", f"{MODULE}/openapi.json"):
            found.hear(await client.get(path))
    return job_id


async def grpc_calls(found: Found, program: Program, key: str, forged: str) -> None:
    """The same over gRPC, where programs speak as well."""
    digest = "0" * 64
    async with grpc.aio.insecure_channel(program.address, options=CHANNEL) as channel:
        callers = [
            Caller(channel, one) for one in (WRONG_KEY, WRONG_SECRET, forged, "nk_n1.canary")
        ]
        callers += [Caller(channel, "", x_api_secret=WRONG_SECRET, x_tenant_id="acme")]
        for caller in callers:
            for name, request in (
                ("ListJobs", api.ListJobsRequest()),
                ("Join", agent_api.JoinRequest(node_id="n9", credential_sha256=digest)),
                ("Sync", agent_api.SyncRequest(node_id="n1")),
            ):
                fault = await caller.refused(name, request)
                found.told.append(repr(fault))
        good = Caller(channel, key)
        await good.call("ListJobs", api.ListJobsRequest())


@asynccontextmanager
async def installation(
    folder: Path, *words: str
) -> AsyncIterator[tuple[Program, str, Provider, str]]:
    """The programs, an identity provider, and where the coordinator's metrics are."""
    port = Port()
    coordinator = Program(folder)
    seal = folder / "seal.key"
    seal.write_text(SEAL + "\n")
    seal.chmod(0o600)
    async with provider() as identity:
        identity.exchange = minted
        jwt: tuple[str, ...] = ("--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE)
        jwt = (*jwt, "--jwt-jwks-url", f"{identity.url}/jwks")
        flags = ("--metrics", str(port), "--log-level", "DEBUG", "--seal-key-file", str(seal))
        await coordinator.start(*jwt, *flags, *words)
        exchange = ("--exchange-url", f"{identity.url}/token", "--exchange-client-id", "mind")
        cache = ("--cache-path", str(folder / "gateway.cache"))
        environ = {"MIND_EXCHANGE_CLIENT_SECRET": EXCHANGE_SECRET}
        try:
            async with (
                gateway(
                    folder, coordinator.address, *jwt, *exchange, *cache, environ=environ
                ) as base,
                node_agent(folder, coordinator.address),
            ):
                yield coordinator, base, identity, f"http://{port}/metrics"
        finally:
            await coordinator.close()
            port.close()


async def live(found: Found, *words: str) -> None:
    """An installation's life with all secrets in it."""
    permissions = [f"scaimind:{one}" for one in ("view", "manage", "evaluate")]
    good = token(claims(module_permissions=permissions))
    forged = token(claims(module_permissions=permissions), key=OTHER_RSA_KEY)
    async with installation(found.folder, *words) as (coordinator, base, identity, metrics):
        admin = (found.folder / "admin.key").read_text().strip()
        async with AsyncClient(coordinator.address, admin) as client:
            made = await client.create_key("acme", permissions=["view"], request_id="again")
            again = await client.create_key("acme", permissions=["view"], request_id="again")
            assert again.key == made.key
        job_id = await rest_calls(found, base, made.key, (good, forged))
        await grpc_calls(found, coordinator, made.key, forged)
        async with AsyncClient(coordinator.address, good) as client:
            job = await client.wait(job_id, timeout_s=120)
            assert job.Status.Name(job.status) == "COMPLETED", job.error
        async with httpx.AsyncClient(trust_env=False, timeout=30) as plain:
            found.hear(await plain.get(metrics))
        assert {form["audience"] for form, _ in identity.asked} == {"scaidrive", "scaiatlas"}
    node_key = (found.folder / "node" / "node.key").read_text().strip()
    found.secrets |= dict.fromkeys(
        (IN_ENVIRONMENT, PASSWORD, IN_QUERY, WRONG_KEY, WRONG_SECRET, EXCHANGE_SECRET, MINTED), ()
    )
    found.secrets |= dict.fromkeys((good, forged, made.key), ())
    found.secrets |= dict.fromkeys((*good.split(".")[1:], *forged.split(".")[1:]), ())
    found.secrets |= {
        admin: ("admin.key",),
        (found.folder / "gateway.secret").read_text().strip(): ("gateway.secret",),
        (found.folder / "join.token").read_text().strip(): ("join.token",),
        node_key: ("node/node.key",),
        SEAL: ("seal.key",),
    }


def closed_to_others(path: Path, root: Path) -> bool:
    """Whether only the owner can read a file, by its own mode or that of a folder above it."""
    above = [one for one in (path, *path.parents) if one != root and root in one.parents]
    return any(not one.stat().st_mode & 0o077 for one in above)


async def test_no_secret_is_kept_logged_or_told(tmp_path: Path) -> None:
    found = Found(tmp_path)
    await live(found)
    found.check()
    assert all((tmp_path / name).stat().st_size for name in LOGS)
    for secret in found.secrets:
        for place in found.places(secret):
            assert closed_to_others(tmp_path / place, tmp_path), place


async def test_no_secret_is_kept_in_redis(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        with server:
            for name in ("gateway.secret", "join.token"):
                (tmp_path / name).write_text(f"canary-of-{name}\n")
            found = Found(tmp_path)
            await live(
                found,
                *("--store", server.url),
                *("--api-secret-file", str(tmp_path / "gateway.secret")),
                *("--join-token-file", str(tmp_path / "join.token")),
            )
        found.check()
        kept = Found(Path(folder), dict.fromkeys(found.secrets, ()))
        kept.check()
