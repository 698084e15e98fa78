"""The key service: makes, lists, revokes and resolves API keys."""

from __future__ import annotations

import secrets
from dataclasses import replace

from coordinator.core.commands import PutKey
from coordinator.core.reasons import Reason
from coordinator.core.records import Key
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.identity import NUMBERS, Authenticator
from coordinator.rpc.jobs import caller_of
from coordinator.runtime.bootstrap import digest_of, new_key
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import key_service_pb2 as api
from scaimind.v1 import options_pb2


class KeyMethods:
    """CreateKey, ListKeys, RevokeKey, ResolveCredential."""

    def __init__(self, driver: Driver, authenticator: Authenticator, clock: Clock) -> None:
        self._driver = driver
        self._authenticator = authenticator
        self._clock = clock

    async def CreateKey(self, request: api.CreateKeyRequest, call: Call) -> api.CreateKeyResponse:
        """Makes a key; its secret is in this answer and nowhere else."""
        now_ms = self._clock.now_ms()
        expires_at_ms = convert.milliseconds(request.expires_at)
        if request.HasField("expires_at") and expires_at_ms <= now_ms:
            text = "must be in the future, before the year 10000"
            raise Refusal(
                Reason.INVALID_ARGUMENT, f"expires_at {text}", violations=(("expires_at", text),)
            )
        secret = new_key()
        key_id = f"key_{secrets.token_hex(8)}"
        key = Key(
            key_id=key_id,
            sha256=digest_of(secret),
            tenant_id=request.tenant_id,
            user_id=request.user_id or f"key:{key_id}",
            permissions=tuple(
                sorted(options_pb2.Permission.Name(number) for number in request.permissions)
            ),
            created_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
        )
        await self._driver.submit(PutKey(caller=caller_of(call, request), key=key))
        return api.CreateKeyResponse(key=secret, info=convert.key_message(key))

    async def ListKeys(self, request: api.ListKeysRequest, call: Call) -> api.ListKeysResponse:
        """Keys without their secrets, by id."""
        keys = self._driver.view.keys
        return api.ListKeysResponse(
            keys=[
                convert.key_message(keys[key_id])
                for key_id in sorted(keys)
                if not keys[key_id].node_id and request.tenant_id in ("", keys[key_id].tenant_id)
            ]
        )

    async def RevokeKey(self, request: api.RevokeKeyRequest, call: Call) -> api.RevokeKeyResponse:
        """Revokes a key at once; revoking twice changes nothing."""
        key = self._driver.view.keys.get(request.key_id)
        if key is None or key.node_id:
            raise Refusal(Reason.KEY_NOT_FOUND, f"there is no key {request.key_id}")
        if not key.revoked_at_ms:
            key = replace(key, revoked_at_ms=self._clock.now_ms())
            await self._driver.submit(PutKey(caller=caller_of(call, request), key=key))
        return api.RevokeKeyResponse(info=convert.key_message(key))

    async def ResolveCredential(
        self, request: api.ResolveCredentialRequest, call: Call
    ) -> api.Identity:
        """Whose key has this digest."""
        identity = self._authenticator.resolve(request.key_sha256)
        return api.Identity(
            tenant_id=identity.tenant_id,
            user_id=identity.user_id,
            permissions=[NUMBERS[name] for name in sorted(identity.permissions)],
            key_id=identity.key_id,
        )
