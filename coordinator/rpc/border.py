"""What stands between the wire and a servicer's method; written once for every method.

The handlers are built from the service's descriptor: the method's `rule` gives the permission, the
messages' annotations the bounds. A method that the servicer does not have answers UNIMPLEMENTED. A refusal
becomes a status with details; any other exception becomes INTERNAL with the request's id and no text.

Two traps of grpc.aio are closed here: a CancelledError that a handler lets out (without the call having
been cancelled) would leave the client waiting for its own deadline, and any other exception would reach
it as UNKNOWN with the exception's text.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from coordinator.core.reasons import Reason
from coordinator.rpc.bounds import Bounds, Seen
from coordinator.rpc.errors import Metadata, cleaned, status_of
from coordinator.rpc.identity import NAMES, Authenticator, Identity
from coordinator.runtime.bootstrap import OWN_TENANT
from coordinator.runtime.refusal import Refusal
from coordinator.store.protocol import StoreUnavailable
from coordinator.streams.protocol import StreamsUnavailable
from scaimind.v1 import options_pb2

log = structlog.get_logger("coordinator.rpc")

REQUEST_ID_MAX = 128
PUBLIC_BYTES_MAX = 4 * 1024 * 1024  # of one request of the public services
RETRY_AFTER_S = 1.0
TOKEN_KEYS = ("x-scaidrive-token", "x-scaiatlas-token")
_TOKEN = re.compile(r"[!-~]{1,8192}")
OPEN: Metadata = (("x-stream", "open"),)


@dataclass(slots=True)
class Call:
    """One call as a servicer sees it. `trailing` is sent with a good answer.

    `tokens` are the caller's own for data services, by scheme; they are for one use, and shown nowhere.
    `seen` is what was read already of the jobs that it submits.
    """

    identity: Identity
    request_id: str
    trailing: list[tuple[str, str]]
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    seen: list[Seen] = field(default_factory=list, repr=False)


Unary = Callable[[Any, Call], Awaitable[Message]]
Streaming = Callable[[Any, Call], AsyncGenerator[Message | None, None]]


class _Request(NamedTuple):
    """A request as it came; `message` is None where the bytes are none."""

    body: bytes
    message: Message | None


def handlers(
    service: ServiceDescriptor,
    servicers: Sequence[object],
    *,
    authenticator: Authenticator,
    gate: Callable[[], None],
) -> grpc.GenericRpcHandler:
    """The gRPC handlers of a service whose methods are those of the servicers, by name.

    `gate` raises the Refusal of a coordinator that may not answer now; it is asked at both ends of a call.
    """

    def find(name: str) -> Any:
        return next((getattr(one, name) for one in servicers if hasattr(one, name)), None)

    built = {
        method.name: _Border(
            method, find(method.name), authenticator=authenticator, gate=gate
        ).handler()
        for method in service.methods
    }
    generic: grpc.GenericRpcHandler = grpc.method_handlers_generic_handler(service.full_name, built)
    return generic


class _Border:
    """The border of one method."""

    def __init__(
        self,
        method: MethodDescriptor,
        function: Any,
        *,
        authenticator: Authenticator,
        gate: Callable[[], None],
    ) -> None:
        self._name = method.full_name
        self._method = method
        self._function = function
        self._authenticator = authenticator
        self._gate = gate
        rule = method.GetOptions().Extensions[options_pb2.rule]
        self._any_of = frozenset(NAMES[number] for number in rule.any_of)
        self._program = rule.program
        self._takes_tokens = rule.token_exchange
        self._operators_only = rule.operators_only
        self._bounds = Bounds()

    def handler(self) -> Any:
        """A handler of the method's own kind."""
        request = message_factory.GetMessageClass(self._method.input_type)
        response = message_factory.GetMessageClass(self._method.output_type)
        if self._method.client_streaming:
            make: Any = grpc.stream_stream_rpc_method_handler
            behaviour: Any = self._two_way
        elif self._method.server_streaming:
            make, behaviour = grpc.unary_stream_rpc_method_handler, self._stream
        else:
            make, behaviour = grpc.unary_unary_rpc_method_handler, self._unary
        return make(
            behaviour,
            request_deserializer=lambda data: _parsed(request, data),
            response_serializer=response.SerializeToString,
        )

    async def _unary(self, request: _Request, context: Any) -> Message | None:
        metadata = context.invocation_metadata() or ()
        request_id = request_id_of(metadata)
        try:
            call = await self._admit(metadata, request_id)
            answer: Message = await self._function(self._checked(request, call), call)
            self._gate()
            if call.trailing:
                context.set_trailing_metadata(tuple(call.trailing))
        except (Exception, asyncio.CancelledError) as error:
            await self._abort(context, error, request_id)
            raise AssertionError("abort returned") from error
        return answer

    async def _stream(self, request: _Request, context: Any) -> AsyncIterator[Message]:
        metadata = context.invocation_metadata() or ()
        request_id = request_id_of(metadata)
        try:
            call = await self._admit(metadata, request_id)
            # The first step of the generator judges the call; only a good one gets past it, so
            # that a client can tell a refusal from a stream that broke.
            opened = False
            async with aclosing(self._function(self._checked(request, call), call)) as responses:
                async for response in responses:
                    self._gate()
                    self._authenticator.confirm(call.identity)
                    if not opened:
                        await context.send_initial_metadata(OPEN)
                        opened = True
                    if response is not None:
                        yield response
        except (Exception, asyncio.CancelledError) as error:
            await self._abort(context, error, request_id)

    async def _two_way(
        self, requests: AsyncIterator[_Request], context: Any
    ) -> AsyncIterator[Message]:
        metadata = context.invocation_metadata() or ()
        request_id = request_id_of(metadata)
        try:
            call = await self._admit(metadata, request_id)
            await context.send_initial_metadata(OPEN)
            async with aclosing(
                self._function(self._all_checked(requests, call), call)
            ) as responses:
                async for response in responses:
                    self._gate()
                    yield response
        except (Exception, asyncio.CancelledError) as error:
            await self._abort(context, error, request_id)

    async def _admit(self, metadata: Metadata, request_id: str) -> Call:
        self._gate()
        identity = await self._authenticator.caller(metadata)
        open_to_all = self._program or not self._any_of
        if identity.program != self._program or not (
            open_to_all or self._any_of & identity.permissions
        ):
            needed = _CREDENTIALS.get(self._program) or " or ".join(sorted(self._any_of))
            raise Refusal(Reason.AUTHZ_PERMISSION_DENIED, f"this needs {needed}")
        if self._operators_only and not identity.is_operator:
            text = f"this needs {NAMES[options_pb2.CLUSTER_ADMIN]} of tenant {OWN_TENANT}"
            raise Refusal(Reason.AUTHZ_PERMISSION_DENIED, text)
        if self._function is None:
            raise Refusal(
                Reason.UNIMPLEMENTED, f"{self._method.name} is not offered by this version"
            )
        tokens = _tokens(metadata) if self._takes_tokens else {}
        return Call(identity, request_id, [], tokens)

    def _checked(self, request: _Request, call: Call) -> Message:
        message = request.message
        if message is None:
            raise Refusal(
                Reason.INVALID_ARGUMENT, f"the request is not a {self._method.input_type.name}"
            )
        if self._program == options_pb2.AGENT:
            _speaks_for_itself(message, call.identity)
        if not self._program and len(request.body) > PUBLIC_BYTES_MAX:
            raise Refusal(
                Reason.INVALID_ARGUMENT,
                f"the request is larger than {PUBLIC_BYTES_MAX >> 20} MiB",
            )
        violations = self._bounds.violations(message, request.body, call.seen)
        if violations:
            raise Refusal.of_fields(violations)
        return message

    async def _all_checked(
        self, requests: AsyncIterator[_Request], call: Call
    ) -> AsyncIterator[Message]:
        async for request in requests:
            self._authenticator.confirm(call.identity)
            yield self._checked(request, call)

    async def _abort(self, context: Any, error: BaseException, request_id: str) -> None:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise error  # the client has gone away, or the server stops
        raw = self._refusal(error, request_id)
        refusal = cleaned(raw)
        if refusal is not raw:
            log.warning(
                "refusal_withheld",
                method=self._name,
                request_id=request_id,
                reason=raw.reason,
                raw_detail=raw.message,
                violations=raw.violations,
            )
        code, message, trailing = status_of(refusal, request_id=request_id)
        await context.abort(code, message, trailing)

    def _refusal(self, error: BaseException, request_id: str) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, StoreUnavailable | StreamsUnavailable):
            log.warning("store_unavailable", method=self._name, error=str(error))
            return Refusal(
                Reason.STORE_UNAVAILABLE,
                "the store does not answer; ask again",
                retry_after_s=RETRY_AFTER_S,
            )
        log.error("call_failed", method=self._name, request_id=request_id, exc_info=error)
        return Refusal(Reason.INTERNAL, f"internal error (request {request_id})")


_CREDENTIALS = {
    options_pb2.GATEWAY: "the installation's secret",
    options_pb2.AGENT: "the credential of a node",
    options_pb2.JOINER: "the join token",
}


def _speaks_for_itself(request: Any, identity: Identity) -> None:
    if request.node_id != identity.node_id:
        text = f"this credential is that of node {identity.node_id}, and of no other"
        raise Refusal(Reason.AUTHZ_PERMISSION_DENIED, text)


def _tokens(metadata: Metadata) -> dict[str, str]:
    """Tokens of data services that came with the call, by the scheme that they are for."""
    return {
        key[2:-6]: value
        for key, value in metadata
        if key in TOKEN_KEYS and isinstance(value, str) and _TOKEN.fullmatch(value)
    }


def request_id_of(metadata: Metadata) -> str:
    """The id that the caller gave the call; a new one where it gave none."""
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str) and 0 < len(value) <= REQUEST_ID_MAX:
            return value
    return f"req_{_START}{next(_numbers):08x}"


# Ids of requests that come without one: random per start of the program, then counted.
_START = secrets.token_hex(4)
_numbers = itertools.count(1)


def _parsed(message: type[Message], data: bytes) -> _Request:
    """The request, also one that is none: what is raised here would reach the client with its text."""
    try:
        return _Request(data, message.FromString(data))
    except DecodeError:
        return _Request(data, None)
