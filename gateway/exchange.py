"""Tokens for downstream services on a caller's behalf (RFC 8693).

A caller's own token is exchanged for one of each audience, which travels to the coordinator as
metadata and nowhere else: tokens are in no log, no error and no answer. They are used again until
shortly before they end; calls for one that come together ask once.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import structlog

from gateway.auth import Identity
from gateway.codes import Code
from gateway.status import Failure
from gateway.upstream import Metadata

AUDIENCES = ("scaidrive", "scaiatlas")
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ANSWERS_WITHIN_S = 5.0
CAPACITY = 4096
# A token must still be good when the coordinator's agents use it.
MARGIN_S, LONGEST_S, UNTOLD_S = 30.0, 300.0, 60.0
MAX_BYTES, MAX_TOKEN = 65_536, 8192
CONNECTIONS = 20
_TOKEN = re.compile(r"[!-~]+")
_ERROR = re.compile(r"[a-z_]{1,64}")
# What an error of the provider says about the caller; any other one is about us.
_OF_CALLER = frozenset(
    ("invalid_request", "invalid_grant", "invalid_target", "invalid_scope", "access_denied")
)

log = structlog.get_logger("gateway")


class Exchange:
    """Exchanges tokens at one provider."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        client_secret: str,
        clock: Callable[[], float] = time.monotonic,
        answers_within_s: float = ANSWERS_WITHIN_S,
    ) -> None:
        """Takes the provider's token endpoint, and who we are there."""
        self._url, self._clock, self._answers_within_s = url, clock, answers_within_s
        self._auth = httpx.BasicAuth(quote(client_id, safe=""), quote(client_secret, safe=""))
        self._client: httpx.AsyncClient | None = None
        self._known: OrderedDict[tuple[str, str], tuple[float, str]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[str]] = {}

    async def tokens(self, identity: Identity) -> Metadata:
        """Metadata with a token of each audience; none where the caller has no token to exchange.

        Raises:
            Failure: 403 where the provider refuses this caller, 503 where it cannot be asked.
        """
        if not identity.subject_token:
            return ()
        digest = hashlib.sha256(identity.subject_token.encode()).hexdigest()
        found = await asyncio.gather(
            *(self._token((digest, audience), identity.subject_token) for audience in AUDIENCES),
            return_exceptions=True,
        )
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return tuple(
            (f"x-{audience}-token", str(token))
            for audience, token in zip(AUDIENCES, found, strict=True)
        )

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _token(self, key: tuple[str, str], subject: str) -> str:
        known = self._known.get(key)
        if known is not None and self._clock() < known[0]:
            self._known.move_to_end(key)
            return known[1]
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._exchange(key, subject))
        # Shielded: one caller who leaves must not take the token from the others.
        return await asyncio.shield(asking)

    async def _exchange(self, key: tuple[str, str], subject: str) -> str:
        asked_at = self._clock()
        try:
            token, life_s = _read(*await self._ask(subject, audience=key[1]), audience=key[1])
        finally:
            self._asking.pop(key, None)
        self._known[key] = (asked_at + min(life_s - MARGIN_S, LONGEST_S), token)
        self._known.move_to_end(key)
        while len(self._known) > CAPACITY:
            self._known.popitem(last=False)
        return token

    async def _ask(self, subject: str, *, audience: str) -> tuple[int, bytes]:
        """Status and body of the provider's answer."""
        form = {
            "grant_type": GRANT,
            "subject_token": subject,
            "subject_token_type": ACCESS_TOKEN,
            "requested_token_type": ACCESS_TOKEN,
            "audience": audience,
        }
        if self._client is None:
            limits = httpx.Limits(max_connections=CONNECTIONS)
            self._client = httpx.AsyncClient(
                auth=self._auth, limits=limits, timeout=self._answers_within_s, trust_env=False
            )
        try:
            async with asyncio.timeout(self._answers_within_s):
                try:
                    return await self._post(self._client, form)
                except (httpx.NetworkError, httpx.RemoteProtocolError):
                    # The provider closes a connection that was idle just when it is used again;
                    # asking for a token twice does no harm.
                    return await self._post(self._client, form)
        except (httpx.HTTPError, TimeoutError) as error:
            raise _unavailable(type(error).__name__) from None

    async def _post(self, client: httpx.AsyncClient, form: dict[str, str]) -> tuple[int, bytes]:
        body = bytearray()
        async with client.stream("POST", self._url, data=form) as answer:
            async for part in answer.aiter_bytes(MAX_BYTES):
                body += part
                if len(body) > MAX_BYTES:
                    raise _unavailable("too_large")
            return answer.status_code, bytes(body)


def _read(status: int, body: bytes, *, audience: str) -> tuple[str, float]:
    """The token in an answer, and how many seconds it is good."""
    try:
        answer: Any = msgspec.json.decode(body)
    except msgspec.DecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise _unavailable(f"status_{status}")
    if status != 200:
        error = answer.get("error")
        told = isinstance(error, str) and _ERROR.fullmatch(error)
        if told and error in _OF_CALLER and 400 <= status < 500:
            raise Failure(
                Code.TOKEN_EXCHANGE_REFUSED,
                message=f"The identity provider gives no token for {audience} on your behalf.",
            )
        raise _unavailable(str(error) if told else f"status_{status}")
    token, life_s = answer.get("access_token"), answer.get("expires_in", UNTOLD_S)
    good = (
        isinstance(token, str)
        and len(token) <= MAX_TOKEN
        and _TOKEN.fullmatch(token)
        and str(answer.get("token_type", "")).lower() in ("bearer", "n_a")
        and answer.get("issued_token_type", ACCESS_TOKEN) in (ACCESS_TOKEN, JWT)
        and isinstance(life_s, int | float)
        and not isinstance(life_s, bool)
        and life_s > 0
    )
    if not good:
        raise _unavailable("odd_answer")
    return str(token), float(life_s)


def _unavailable(why: str) -> Failure:
    log.warning("token_exchange_failed", why=why)
    return Failure(
        Code.TOKEN_EXCHANGE_UNAVAILABLE,
        message="Access to the data services cannot be had at the moment; try again shortly.",
        retry_after_s=5,
    )
