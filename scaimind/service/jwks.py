"""The public keys of the identity provider, by key id, with the one algorithm that each is for.

The set is fetched when it is first needed and again after a while; an unknown key id fetches it
again, but not more often than every few seconds, whatever ids callers make up. While the provider
is out of reach, the keys that are known go on being good, for a day at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from scaimind.service.roles import KeysOutOfReach

TTL_S = 300.0
BETWEEN_FETCHES_S = 10.0
STALE_FOR_S = 86_400.0
FETCH_WITHIN_S = 3.0
MAX_BYTES, MAX_KEYS, MAX_KEY_ID = 262_144, 100, 256
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
_PUBLIC = frozenset(("kty", "crv", "n", "e", "x", "y"))

Fetch = Callable[[], Awaitable[bytes]]

log = structlog.get_logger("identity")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key and the algorithm that it is for; tokens have no say in that."""

    public: RSAPublicKey | EllipticCurvePublicKey
    algorithm: str


class KeySet:
    """Keys by id."""

    def __init__(self, fetch: Fetch, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes how to fetch the JWKS document."""
        self._fetch, self._clock = fetch, clock
        self._keys: Mapping[str, SigningKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> SigningKey | None:
        """The key with an id, if there is one.

        Raises:
            KeysOutOfReach: no keys are known, and none can be had.
        """
        age_s = self._age_s()
        if key_id not in self._keys or age_s is None or age_s >= TTL_S:
            await self._refresh()
            age_s = self._age_s()
        if age_s is None or age_s >= STALE_FOR_S:
            raise KeysOutOfReach
        return self._keys.get(key_id)

    def _age_s(self) -> float | None:
        return None if self._fetched_at is None else self._clock() - self._fetched_at

    async def _refresh(self) -> None:
        """Fetches the set, unless that was tried a moment ago; all who wait share one fetch."""
        if self._fetching is None:
            tried = self._tried_at
            if tried is not None and self._clock() - tried < BETWEEN_FETCHES_S:
                return
            self._tried_at = self._clock()
            self._fetching = asyncio.ensure_future(self._replace())
        # Shielded: one caller who leaves must not take the keys from the others.
        await asyncio.shield(self._fetching)

    async def _replace(self) -> None:
        try:
            async with asyncio.timeout(FETCH_WITHIN_S):
                document = await self._fetch()
            self._keys = read_keys(document)
            self._fetched_at = self._clock()
        except (httpx.HTTPError, OSError, ValueError) as error:
            log.warning("jwks_not_fetched", error=type(error).__name__)
        finally:
            self._fetching = None


def read_keys(document: bytes) -> dict[str, SigningKey]:
    """The keys of a JWKS document that can be used here: RSA for RS256, P-256 for ES256.

    Others are passed over, also such as say that they are for something else.

    Raises:
        ValueError: it is no JWKS document, or has no key that can be used.
    """
    try:
        found = msgspec.json.decode(document)["keys"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ValueError("not a JWKS document") from error
    if not isinstance(found, list) or len(found) > MAX_KEYS:
        raise ValueError("not a JWKS document")
    keys: dict[str, SigningKey] = {}
    for item in found:
        key = _signing_key(item) if isinstance(item, dict) else None
        if key is not None:
            # Of two keys with one id neither can be meant.
            if item["kid"] in keys:
                raise ValueError("two keys have one id")
            keys[item["kid"]] = key
    if not keys:
        raise ValueError("no key can be used")
    return keys


def _signing_key(item: dict[str, Any]) -> SigningKey | None:
    algorithm = _algorithm(item)
    key_id = item.get("kid")
    if algorithm is None or not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        return None
    if item.get("use", "sig") != "sig" or "verify" not in item.get("key_ops", ["verify"]):
        return None
    public_part = {name: value for name, value in item.items() if name in _PUBLIC}
    try:
        public = jwt.PyJWK(public_part, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(public, RSAPublicKey):
        if not MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
            return None
    elif not isinstance(public, EllipticCurvePublicKey):
        return None
    return SigningKey(public, algorithm)


def _algorithm(item: dict[str, Any]) -> str | None:
    """What a key is for: by its type, and only where it does not say otherwise."""
    algorithm = None
    if item.get("kty") == "RSA":
        algorithm = "RS256"
    elif (item.get("kty"), item.get("crv")) == ("EC", "P-256"):
        algorithm = "ES256"
    return algorithm if item.get("alg", algorithm) == algorithm else None


def from_url(url: str) -> Fetch:
    """Fetches by HTTP, without following redirects."""

    async def fetch() -> bytes:
        async with (
            httpx.AsyncClient(timeout=FETCH_WITHIN_S, trust_env=False) as client,
            client.stream("GET", url, headers={"accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"status {answer.status_code}")
            body = bytearray()
            async for part in answer.aiter_bytes(65_536):
                body += part
                if len(body) > MAX_BYTES:
                    raise ValueError("the JWKS document is too large")
            return bytes(body)

    return fetch


def from_file(path: Path) -> Fetch:
    """Reads a file, which may be replaced at any time."""

    async def fetch() -> bytes:
        with path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise ValueError("the JWKS document is too large")
        return body

    return fetch
