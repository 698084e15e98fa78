"""An identity provider: keys over HTTP, tokens as a test wants them, and token exchange."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.server import listen

ISSUER, AUDIENCE = "https://id.example", "mind"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())

Exchange = Callable[[dict[str, str]], Response]


def jwk(key: Any, key_id: str, **more: Any) -> dict[str, Any]:
    """The public half of a key as a JWK."""
    kind = jwt.algorithms.RSAAlgorithm
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {
            **jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True),
            "kid": key_id,
        } | more
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": key_id} | more


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims; None takes one away."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "tenant_id": "acme",
        "roles": ["tenant_viewer"],
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(
    content: dict[str, Any] | None = None,
    *,
    key: Any = RSA_KEY,
    algorithm: str = "RS256",
    **header: Any,
) -> str:
    """A signed token; header fields that are None are left out."""
    head = {"kid": "rsa-1", "typ": "JWT"} | header
    # Below the claims: what is odd in them must not be noticed here.
    return jwt.PyJWS().encode(
        json.dumps(claims() if content is None else content).encode(),
        key,
        algorithm=algorithm,
        headers={name: value for name, value in head.items() if value is not None or name == "typ"},
    )


def unsigned(header: Any, content: Any, signature: bytes = b"") -> str:
    """Three parts, as a forger writes them."""
    parts = (
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, content)
    )
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, signature)
    )


@dataclass
class Provider:
    """What the provider serves, and what it was asked."""

    keys: list[dict[str, Any]] = field(
        default_factory=lambda: [jwk(RSA_KEY, "rsa-1"), jwk(EC_KEY, "ec-1", alg="ES256", use="sig")]
    )
    status: int = 200
    fetched: int = 0
    exchange: Exchange | None = None
    asked: list[tuple[dict[str, str], str]] = field(default_factory=list)
    """Form and Authorization header of each exchange."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def serve_keys(self, request: Request) -> Response:
        """The JWKS document."""
        self.fetched += 1
        return JSONResponse({"keys": self.keys}, self.status)

    async def serve_exchange(self, request: Request) -> Response:
        """RFC 8693, as scripted; waits where the gate is shut."""
        form = dict(parse_qsl((await request.body()).decode(), strict_parsing=True))
        self.asked.append((form, request.headers.get("authorization", "")))
        await self.gate.wait()
        assert self.exchange is not None
        return self.exchange(form)


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    """A provider on a free port."""
    made = Provider()
    made.gate.set()
    app = Starlette(
        routes=[
            Route("/jwks", made.serve_keys),
            Route("/token", made.serve_exchange, methods=["POST"]),
        ]
    )
    sock = listen("127.0.0.1", 0, send_timeout_s=30)
    made.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield made
    finally:
        made.gate.set()
        server.should_exit = True
        await serving
        sock.close()
