"""Who calls, and what they may do.

The gateway by itself takes API keys (`Authorization: Bearer sgk_…`) and has the coordinator tell
whose they are, and the JWTs of an identity provider (see gateway.tokens); a host application brings
an Authenticator of its own instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import grpc
import structlog
from google.protobuf.descriptor import FieldDescriptor

from gateway.catalog import BadCatalog, Method
from gateway.codes import Code
from gateway.status import Failure, internal
from gateway.upstream import Metadata, Upstream
from scaimind.service.roles import permission_name

PREFIX = b"sgk_"
MAX_KEY = 512
_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
Headers = Mapping[bytes, bytes]

log = structlog.get_logger("gateway")


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. Texts must be printable ASCII, because they travel as gRPC metadata, and there
    must be a tenant: who has none is another program of the installation.

    Raises:
        ValueError: they are not, or there is none.
    """

    tenant_id: str
    user_id: str
    permissions: frozenset[str]
    """Names such as `scaimind:view`."""
    key_sha256: str = field(default="", repr=False)
    """Of the API key that was presented; empty for other credentials."""
    subject_token: str = field(default="", repr=False)
    """The caller's own token, where tokens of downstream services can be had for it."""
    ends_at: float = 0.0
    """When the credential ends by itself, in seconds since 1970 UTC; 0 where nobody can tell."""
    unconfirmed: grpc.RpcError | None = field(default=None, repr=False, compare=False)
    """Why the coordinator could not be asked again; then it is enough to read copies, no more."""
    metadata: Metadata = field(init=False)

    def __post_init__(self) -> None:
        granted = ",".join(sorted(self.permissions))
        for text in (self.tenant_id, self.user_id, granted):
            if not (text.isascii() and text.isprintable()):
                raise ValueError("an identity must be printable ASCII")
        if not self.tenant_id.strip():
            raise ValueError("an identity must have a tenant")
        object.__setattr__(
            self,
            "metadata",
            (
                ("x-tenant-id", self.tenant_id),
                ("x-user-id", self.user_id),
                ("x-permissions", granted),
            ),
        )


class Authenticator(Protocol):
    """What a host application brings: its own way to tell who calls."""

    async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
        """Tells who calls, from the ASGI scope and the headers (lower-case names).

        Raises:
            Failure: 401 for a missing or bad credential.
        """
        ...


@runtime_checkable
class Standing(Protocol):
    """What an Authenticator may have besides: a way to tell that a caller is one no more."""

    async def stands(self, identity: Identity) -> bool:
        """Whether a caller of before may go on reading; asked every few seconds of open streams."""
        ...


def require(identity: Identity, any_of: frozenset[str]) -> None:
    """Lets a caller pass who holds one of the permissions, or where none is asked for.

    Raises:
        Failure: 403, naming what would suffice.
    """
    if any_of and not any_of & identity.permissions:
        names = " or ".join(sorted(any_of))
        raise Failure(Code.AUTHZ_PERMISSION_DENIED, message=f"This needs {names}.")


class ApiKeys:
    """Tells callers by their API keys.

    Answers are kept for at most `ttl_s`, so that a revoked key ends nearly at once; only digests
    of keys are held, and calls with one key that come together ask once.
    """

    def __init__(
        self,
        resolve: Callable[[str], Awaitable[Identity]],
        *,
        ttl_s: float = 2.0,
        away_s: float = 0.0,
        capacity: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes how to resolve the SHA-256 (lower-case hexadecimal) of a key.

        For `away_s` after it was last asked, keys stay known, unconfirmed, while the coordinator
        is out of reach.
        """
        self._resolve, self._away_s = resolve, away_s
        self._ttl_s, self._capacity, self._clock = ttl_s, capacity, clock
        self._known: OrderedDict[str, tuple[float, Identity]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Identity]] = {}

    async def identify(self, scope: Mapping[str, Any], headers: Headers) -> Identity:
        """Tells whose key the request carries; see Authenticator."""
        key = bearer(headers)
        if not key.startswith(PREFIX) or len(key) > MAX_KEY:
            raise unauthenticated()
        digest = hashlib.sha256(key).hexdigest()
        known = self._known.get(digest)
        try:
            return await self._resolved(digest)
        except grpc.RpcError as error:
            if known is None or self._clock() >= known[0] + self._away_s:
                raise
            return replace(known[1], unconfirmed=error)

    async def _resolved(self, digest: str) -> Identity:
        """The owner of a key, as of the last `ttl_s`."""
        known = self._known.get(digest)
        if known is not None and self._clock() < known[0]:
            return known[1]
        asking = self._asking.get(digest)
        if asking is None:
            asking = self._asking[digest] = asyncio.ensure_future(self._ask(digest))
        # Shielded: one caller who leaves must not take the answer from the others.
        return await asyncio.shield(asking)

    async def stands(self, identity: Identity) -> bool:
        """See Standing. A coordinator that is out of reach has taken nothing back."""
        try:
            await self._resolved(identity.key_sha256)
        except Failure as failure:
            return failure.http_status != 401
        except grpc.RpcError:
            return True
        return True

    async def _ask(self, digest: str) -> Identity:
        asked_at = self._clock()
        try:
            identity = await self._resolve(digest)
        except grpc.RpcError:
            raise
        except BaseException:
            self._known.pop(digest, None)
            raise
        finally:
            self._asking.pop(digest, None)
        self._known[digest] = (asked_at + self._ttl_s, identity)
        self._known.move_to_end(digest)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        return identity


def resolver(upstream: Upstream, method: Method) -> Callable[[str], Awaitable[Identity]]:
    """How to resolve digests with the method that is marked for it.

    Its request has one field, a string, that takes the digest; its response has tenant_id,
    user_id and permissions.

    Raises:
        BadCatalog: the method has another shape.
    """
    fields = method.request.fields
    missing = {"tenant_id", "user_id", "permissions"} - set(method.response.fields_by_name)
    if len(fields) != 1 or fields[0].type != FieldDescriptor.TYPE_STRING or missing:
        raise BadCatalog(f"{method.rpc_path} cannot resolve credentials")
    name = fields[0].name

    async def resolve(digest: str) -> Identity:
        request = method.request_class(**{name: digest})
        try:
            answer = await upstream.start(method, request, metadata=upstream.metadata())
        except grpc.aio.AioRpcError as error:
            raise _refusal(error) from error
        granted = frozenset(permission_name(number) for number in answer.permissions)
        return Identity(answer.tenant_id, answer.user_id, granted, digest)

    return resolve


def _refusal(error: grpc.aio.AioRpcError) -> Exception:
    """A bad key is the caller's fault, a coordinator out of reach is told as such; anything else
    means that the gateway itself may not ask, which is nothing to tell a caller."""
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return unauthenticated()
    if error.code() in _PASSING:
        return error
    log.error("gateway_may_not_ask", grpc_code=error.code().name, raw_detail=error.details())
    return internal()


def bearer(headers: Headers) -> bytes:
    """The credential that a request presents.

    Raises:
        Failure: 401, where it presents none.
    """
    value = headers.get(b"authorization")
    if value is None or not value.strip():
        raise unauthenticated(Code.AUTH_TOKEN_MISSING, "Send a credential as a bearer token.")
    scheme, _, credential = value.partition(b" ")
    if scheme.lower() != b"bearer":
        raise unauthenticated()
    return credential.strip()


def unauthenticated(
    code: str = Code.AUTH_TOKEN_INVALID, message: str = "The credential is not valid."
) -> Failure:
    """The answer to a caller without a good credential."""
    return Failure(code, message=message, headers=((b"www-authenticate", b"Bearer"),))
