"""JWTs of an identity provider as credentials (RFC 8725); the gateway and the coordinator share it.

The key decides which algorithm is used; a token has no say in it, nor in where the key comes from.
What is wrong with a token is told to nobody: every bad one has the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jwt
import structlog

from scaimind.service.jwks import MAX_KEY_ID, KeySet
from scaimind.service.roles import BadToken, Bearer, Claims

MAX_TOKEN = 16_384
LEEWAY_S = 30
# Access tokens by RFC 9068, or by the older name that most providers still use.
TYPES = frozenset(("at+jwt", "jwt"))
# Ways to bring a key along, or to change what the rest means.
_FORBIDDEN = frozenset(("jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"))
# Only tokens about a login have these; they say who logged in, not what their bearer may do.
_OF_LOGINS = frozenset(("nonce", "at_hash", "c_hash", "s_hash"))
_TIMES = ("exp", "iat", "nbf")

log = structlog.get_logger("identity")


class Tokens:
    """Tells callers by their JWTs."""

    def __init__(self, keys: KeySet, *, issuer: str, audience: str, claims: Claims) -> None:
        """Takes the provider's keys, its name (`iss`), ours (`aud`), and how to read claims."""
        self._keys, self._issuer, self._audience = keys, issuer, audience
        self._claims = claims

    async def bearer(self, token: bytes) -> Bearer:
        """The caller that a token was given to.

        Raises:
            BadToken: it is not good.
            KeysOutOfReach: the provider's keys cannot be had.
        """
        try:
            return await self._verified(token)
        except (BadToken, jwt.PyJWTError, ValueError, RecursionError) as error:
            log.debug("token_refused", why=type(error).__name__)
            raise BadToken from None

    async def _verified(self, token: bytes) -> Bearer:
        if len(token) > MAX_TOKEN or not token.isascii() or token.count(b".") != 2:
            raise BadToken("no JWT")
        text = token.decode("ascii")
        key = await self._keys.key(_key_id(jwt.get_unverified_header(text)))
        if key is None:
            raise BadToken("no such key")
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
            raise BadToken("a token about a login")
        return self._claims.bearer(claims, ends_at=claims["exp"] + LEEWAY_S)


def _key_id(header: Mapping[str, Any]) -> str:
    if _FORBIDDEN & header.keys():
        raise BadToken("a header that brings a key along")
    kind = header.get("typ")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in TYPES:
        raise BadToken("another type of token")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID:
        raise BadToken("no key id")
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
            raise BadToken("a time that is no number")
