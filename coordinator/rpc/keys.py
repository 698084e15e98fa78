"""The key service: makes, lists, revokes and resolves API keys."""

from __future__ import annotations

import secrets
from bisect import bisect_right
from dataclasses import replace

from coordinator.core.commands import PutKey
from coordinator.core.decision import Reply
from coordinator.core.reasons import Reason
from coordinator.core.records import Key
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.identity import NAMES, NUMBERS, Authenticator, Identity
from coordinator.rpc.jobs import caller_of, note_replay, remembered
from coordinator.rpc.pages import PageTokens
from coordinator.runtime.bootstrap import OWN_TENANT, derived_key, digest_of
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import key_service_pb2 as api
from scaimind.v1 import options_pb2

DEFAULT_PAGE_SIZE = 20


class KeyMethods:
    """CreateKey, ListKeys, RevokeKey, ResolveCredential."""

    def __init__(
        self,
        driver: Driver,
        authenticator: Authenticator,
        clock: Clock,
        *,
        tokens: PageTokens,
        secret: str,
    ) -> None:
        """`secret` is the installation's; keys are made of it, so that an answer can be given again."""
        self._driver = driver
        self._authenticator = authenticator
        self._clock = clock
        self._tokens = tokens
        self._secret = secret

    async def CreateKey(self, request: api.CreateKeyRequest, call: Call) -> api.CreateKeyResponse:
        """Makes a key; its secret is in this answer and nowhere else."""
        caller = caller_of(call, request)
        known = await remembered(self._driver, caller)
        if known is not None:
            return self._made(known, call)
        _may_make(request, call.identity)
        now_ms = self._clock.now_ms()
        expires_at_ms = convert.milliseconds(request.expires_at)
        if request.HasField("expires_at") and expires_at_ms <= now_ms:
            text = "must be in the future, before the year 10000"
            raise Refusal(
                Reason.INVALID_ARGUMENT, f"expires_at {text}", violations=(("expires_at", text),)
            )
        key_id, salt = f"key_{secrets.token_hex(8)}", secrets.token_hex(32)
        key = Key(
            key_id=key_id,
            sha256=digest_of(derived_key(self._secret, key_id, salt)),
            tenant_id=request.tenant_id,
            user_id=request.user_id or f"key:{key_id}",
            permissions=tuple(
                sorted(options_pb2.Permission.Name(number) for number in request.permissions)
            ),
            created_at_ms=now_ms,
            expires_at_ms=expires_at_ms,
        )
        reply = await self._driver.submit(PutKey(caller=caller, key=key, salt=salt))
        return self._made(reply, call)

    async def ListKeys(self, request: api.ListKeysRequest, call: Call) -> api.ListKeysResponse:
        """A page of keys without their secrets, by id."""
        question = f"keys {request.tenant_id}"
        after = self._tokens.read(request.page_token, question=question)
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        keys = self._driver.view.keys
        seen = sorted(
            key_id
            for key_id, key in keys.items()
            if request.tenant_id in ("", key.tenant_id) and _sees(call.identity, key)
        )
        start = bisect_right(seen, after[1]) if after else 0
        page = seen[start : start + size]
        more = (page[-1], page[-1]) if start + size < len(seen) else None
        return api.ListKeysResponse(
            keys=[convert.key_message(keys[key_id]) for key_id in page],
            next_page_token=self._tokens.make(more, question=question),
            total_count=len(seen),
        )

    async def RevokeKey(self, request: api.RevokeKeyRequest, call: Call) -> api.RevokeKeyResponse:
        """Revokes a key at once; revoking twice changes nothing."""
        key = self._driver.view.keys.get(request.key_id)
        if key is None or not _sees(call.identity, key):
            raise Refusal(Reason.KEY_NOT_FOUND, f"there is no key {request.key_id}")
        caller = caller_of(call, request)
        if not key.revoked_at_ms or caller.request_id:
            at_ms = key.revoked_at_ms or self._clock.now_ms()
            command = PutKey(caller=caller, key=replace(key, revoked_at_ms=at_ms))
            reply = await self._driver.submit(command)
            note_replay(call, reply)
            assert reply.key is not None
            key = reply.key
        return api.RevokeKeyResponse(info=convert.key_message(key))

    def _made(self, reply: Reply, call: Call) -> api.CreateKeyResponse:
        note_replay(call, reply)
        key = reply.key
        assert key is not None
        secret = derived_key(self._secret, key.key_id, reply.salt)
        if digest_of(secret) != key.sha256:
            text = "the installation's secret was changed since; make another key"
            raise Refusal(Reason.WRONG_STATUS, text)
        return api.CreateKeyResponse(key=secret, info=convert.key_message(key))

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


def _sees(identity: Identity, key: Key) -> bool:
    """Whether an admin has a say in a key. Credentials of nodes are no keys."""
    return not key.node_id and (identity.is_operator or identity.tenant_id == key.tenant_id)


def _may_make(request: api.CreateKeyRequest, identity: Identity) -> None:
    """A tenant's admin makes keys of that tenant; nobody gives what the maker may not do."""
    if not identity.is_operator and request.tenant_id != identity.tenant_id:
        text = f"only admins of tenant {OWN_TENANT} make keys of other tenants"
        raise Refusal(Reason.AUTHZ_PERMISSION_DENIED, text)
    beyond = sorted({NAMES[number] for number in request.permissions} - identity.permissions)
    if beyond:
        text = f"you cannot give what you do not have: {', '.join(beyond)}"
        raise Refusal(Reason.AUTHZ_PERMISSION_DENIED, text)
