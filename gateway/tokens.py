"""Callers by what they present: an API key, or the JWT of an identity provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.auth import PREFIX as KEY_PREFIX
from gateway.auth import ApiKeys, Headers, Identity, bearer, unauthenticated
from gateway.codes import Code
from gateway.status import Failure
from scaimind.service.roles import BadToken, KeysOutOfReach
from scaimind.service.tokens import Tokens


class Credentials:
    """Tells callers by what they present: an API key, or a token."""

    def __init__(self, keys: ApiKeys, tokens: Tokens) -> None:
        """Takes who knows API keys, and who knows tokens."""
        self._keys, self._tokens = keys, tokens

    async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
        """See Authenticator."""
        credential = bearer(headers)
        if credential.startswith(KEY_PREFIX):
            return await self._keys.identify(scope, headers)
        return await self._of_token(credential)

    async def stands(self, identity: Identity) -> bool:
        """See Standing. A token ends by its own time, which whoever asks looks at."""
        return not identity.key_sha256 or await self._keys.stands(identity)

    async def _of_token(self, token: bytes) -> Identity:
        try:
            known = await self._tokens.bearer(token)
        except BadToken:
            raise unauthenticated() from None
        except KeysOutOfReach:
            raise Failure(
                Code.IDENTITY_PROVIDER_UNAVAILABLE,
                message="Tokens cannot be checked at the moment; try again shortly.",
                retry_after_s=5,
            ) from None
        return Identity(
            known.tenant_id,
            known.user_id,
            known.permissions,
            subject_token="" if known.exchanged else token.decode("ascii"),
            ends_at=known.ends_at,
        )
