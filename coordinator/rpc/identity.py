"""Who calls: credentials in, an identity with permissions out.

Direct clients present an API key (`authorization: Bearer sgk_…`) or a JWT of the identity provider; gateways
present the installation's secret and say on whose behalf they call; agents present the credential of their
node, and the join token to get one. Secrets are compared in constant time, and of keys and nodes'
credentials only digests are ever kept.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordinator.core.reasons import Reason
from coordinator.core.records import Key, node_key_id
from coordinator.runtime.bootstrap import OWN_TENANT
from coordinator.runtime.clock import Clock
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from scaimind.service.roles import BadToken, KeysOutOfReach, permission_name
from scaimind.v1 import options_pb2

if TYPE_CHECKING:  # who takes no tokens loads no cryptography
    from scaimind.service.tokens import Tokens

NODE_PREFIX = "nk_"
PROVIDER_RETRY_AFTER_S = 5.0
NAMES = {number: permission_name(number) for number in options_pb2.Permission.values() if number}
NUMBERS = {name: number for number, name in NAMES.items()}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `permissions` are public names such as `scaimind:view`; a program has no tenant."""

    tenant_id: str
    user_id: str
    permissions: frozenset[str]
    key_id: str = ""
    ends_at_ms: int = 0  # when the credential ends by itself; 0 is never
    program: int = 0  # of options.proto; 0 is a user
    node_id: str = ""  # the only node that an agent speaks for

    @property
    def is_operator(self) -> bool:
        """Whether the caller may look across tenants: a cluster admin of the installation's own."""
        return self.tenant_id == OWN_TENANT and NAMES[options_pb2.CLUSTER_ADMIN] in self.permissions


def key_is_valid(key: Key, now_ms: int) -> bool:
    """Whether a key is neither revoked nor expired."""
    return not key.revoked_at_ms and (not key.expires_at_ms or now_ms < key.expires_at_ms)


class Authenticator:
    """Turns a call's metadata into an identity, or refuses."""

    def __init__(
        self,
        view: View,
        clock: Clock,
        *,
        api_secret: str,
        join_token: str,
        tokens: Tokens | None = None,
    ) -> None:
        self._tokens = tokens
        self._view = view
        self._clock = clock
        self._api_secret = api_secret.encode()
        self._join_token = join_token.encode()
        self._identities: dict[str, tuple[Key, Identity]] = {}  # of keys that were seen valid

    async def caller(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """The caller of one call, by any credential.

        Raises:
            Refusal: AUTH_TOKEN_MISSING, AUTH_TOKEN_INVALID or IDENTITY_PROVIDER_UNAVAILABLE.
        """
        fields = {key: value for key, value in metadata if isinstance(value, str)}
        token = fields.get("authorization", "").partition(" ")[2].strip()
        # A token has three parts; API keys and the join token have no dot.
        is_token = token.count(".") == 2 and not token.startswith(NODE_PREFIX)
        if self._tokens is None or "x-api-secret" in fields or not is_token:
            return self.identify(fields.items())
        try:
            bearer = await self._tokens.bearer(token.encode())
        except BadToken:
            raise _invalid() from None
        except KeysOutOfReach:
            raise Refusal(
                Reason.IDENTITY_PROVIDER_UNAVAILABLE,
                "tokens cannot be checked at the moment; ask again",
                retry_after_s=PROVIDER_RETRY_AFTER_S,
            ) from None
        return Identity(
            bearer.tenant_id,
            bearer.user_id,
            bearer.permissions,
            ends_at_ms=int(bearer.ends_at * 1000),
        )

    def identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> Identity:
        """The caller, by a credential that the coordinator keeps itself.

        Raises:
            Refusal: AUTH_TOKEN_MISSING or AUTH_TOKEN_INVALID.
        """
        fields = {key: value for key, value in metadata if isinstance(value, str)}
        secret = fields.get("x-api-secret")
        if secret is not None:
            return self._gateway(secret, fields)
        scheme, _, token = fields.get("authorization", "").partition(" ")
        if not token:
            raise Refusal(Reason.AUTH_TOKEN_MISSING, "no credential was sent")
        if scheme.lower() != "bearer":
            raise Refusal(Reason.AUTH_TOKEN_INVALID, "the credential is not a bearer token")
        token = token.strip()
        if token.startswith(NODE_PREFIX):
            return self._agent(token)
        if hmac.compare_digest(token.encode(), self._join_token):
            return Identity("", "joiner", frozenset(), program=options_pb2.JOINER)
        return self.resolve(hashlib.sha256(token.encode()).hexdigest())

    def resolve(self, key_sha256: str) -> Identity:
        """The identity of the key with this digest. Raises Refusal AUTH_TOKEN_INVALID."""
        key = self._view.keys_by_sha256.get(key_sha256)
        if key is None or not key_is_valid(key, self._clock.now_ms()):
            raise _invalid()
        known = self._identities.get(key_sha256)
        if known is not None and known[0] is key:
            return known[1]
        permissions = frozenset(
            NAMES[options_pb2.Permission.Value(name)] for name in key.permissions
        )
        identity = Identity(
            key.tenant_id,
            key.user_id,
            permissions,
            key_id=key.key_id,
            ends_at_ms=key.expires_at_ms,
        )
        self._identities[key_sha256] = key, identity
        return identity

    def confirm(self, identity: Identity) -> None:
        """Looks whether a caller of before may still be answered.

        Raises:
            Refusal: AUTH_TOKEN_INVALID, where the credential was revoked or has ended since.
        """
        now_ms = self._clock.now_ms()
        key = self._view.keys.get(identity.key_id) if identity.key_id else None
        gone = bool(identity.key_id) and (key is None or not key_is_valid(key, now_ms))
        if gone or (identity.ends_at_ms and now_ms >= identity.ends_at_ms):
            raise _invalid()

    def _agent(self, token: str) -> Identity:
        node_id = token.removeprefix(NODE_PREFIX).rpartition(".")[0]
        key = self._view.keys.get(node_key_id(node_id))
        digest = hashlib.sha256(token.encode()).hexdigest()
        if key is None or not hmac.compare_digest(digest, key.sha256):
            raise _invalid()
        return Identity(
            "", node_id, frozenset(), key_id=key.key_id, program=options_pb2.AGENT, node_id=node_id
        )

    def _gateway(self, secret: str, fields: dict[str, str]) -> Identity:
        if not hmac.compare_digest(secret.encode(), self._api_secret):
            raise Refusal(Reason.AUTH_TOKEN_INVALID, "the installation's secret is wrong")
        tenant_id = fields.get("x-tenant-id", "")
        if not tenant_id:
            return Identity("", "gateway", frozenset(), program=options_pb2.GATEWAY)
        names = fields.get("x-permissions", "").split(",")
        permissions = frozenset(name.strip() for name in names if name.strip() in NUMBERS)
        return Identity(tenant_id, fields.get("x-user-id", ""), permissions)


def _invalid() -> Refusal:
    return Refusal(Reason.AUTH_TOKEN_INVALID, "the credential is unknown or not valid")
