"""JWTs of an identity provider as credentials (RFC 8725).

The key decides which algorithm is used; a token has no say in it, nor in where the key comes from.
What is wrong with a token is told to nobody: every bad one has the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jwt
import structlog

from gateway.auth import PREFIX as KEY_PREFIX
from gateway.auth import Authenticator, Headers, Identity, bearer, unauthenticated
from gateway.jwks import MAX_KEY_ID, KeySet, KeysOutOfReach
from gateway.roles import Claims
from gateway.status import Failure

MAX_TOKEN = 16_384
LEEWAY_S = 30
# Access tokens by RFC 9068, or by the older name that most providers still use.
TYPES = frozenset(("at+jwt", "jwt"))
# Ways to bring a key along, or to change what the rest means.
_FORBIDDEN = frozenset(("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"))
# Only tokens about a login have these; they say who logged in, not what their bearer may do.
_OF_LOGINS = frozenset(("nonce", "at_hash", "c_hash", "s_hash"))
_TIMES = ("exp", "iat", "nbf")

log = structlog.get_logger("gateway")


class _Bad(Exception):
    """A token that is not good; the text is for the log at DEBUG alone."""


class Tokens:
    """Tells callers by their JWTs."""

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, claims: Claims) -> None:
        """Takes the provider's keys, its name (`iss`), ours (`aud`), and how to read claims."""
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._claims = claims

    async def identify(self, token: bytes) -> Identity:
        """The caller that a token was given to.

        Raises:
            Failure: 401 for a bad token, 503 while the provider's keys cannot be had.
        """
        try:
            return await self._verified(token)
        except (_Bad, jwt.PyJWTError, ValueError, RecursionError) as error:
            log.debug("token_refused", why=type(error).__name__)
            raise unauthenticated() from None
        except KeysOutOfReach:
            raise Failure(
                503,
                "IDENTITY_PROVIDER_UNAVAILABLE",
                message="Tokens cannot be checked at the moment; try again shortly.",
                retry_after_s=5,
            ) from None

    async def _verified(self, token: bytes) -> Identity:
        if len(token) > MAX_TOKEN or not token.isascii() or token.count(b".") != 2:
            raise _Bad("no JWT")
        text = token.decode("ascii")
        key = await self._keys.key(_key_id(jwt.get_unverified_header(text)))
        if key is None:
            raise _Bad("no such key")
        claims: dict[str, Any] = jwt.decode(
            text,
            key.public,
            algorithms=[key.algorithm],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iat", "iss", "aud"], "enforce_minimum_key_length": True},
        )
        _check_times(claims)
        if _OF_LOGINS & claims.keys():
            raise _Bad("a token about a login")
        return self._claims.identity(claims, token=text)


class Credentials:
    """Tells callers by what they present: an API key, or a token."""

    def __init__(self, keys: Authenticator, tokens: Tokens) -> None:
        """Takes who knows API keys, and who knows tokens."""
        self._keys, self._tokens = keys, tokens

    async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
        """See Authenticator."""
        credential = bearer(headers)
        if credential.startswith(KEY_PREFIX):
            return await self._keys.identify(scope, headers)
        return await self._tokens.identify(credential)


def _key_id(header: Mapping[str, Any]) -> str:
    if _FORBIDDEN & header.keys():
        raise _Bad("a header that brings a key along")
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in TYPES:
        raise _Bad("another type of token")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise _Bad("no key id")
    return key_id


def _check_times(claims: Mapping[str, Any]) -> None:
    """The library takes texts for numbers; what they say was checked by it."""
    for name in _TIMES:
        value = claims.get(name, 0)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise _Bad("a time that is no number")
