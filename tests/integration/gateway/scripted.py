"""A coordinator whose answers a test writes, behind a real gRPC server; and a gateway in front."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gateway.app import Gateway, create_app
from gateway.catalog import Catalog, Method
from gateway.endpoint import Limits
from gateway.server import Server, listen, server
from gateway.upstream import Upstream
from scaimind.v1 import job_pb2, options_pb2
from scaimind.v1 import key_service_pb2 as keys

OPEN = (("x-stream", "open"),)
SECRET = "installation-secret"
ALL_KEY = "sgk_all"
GRANTS: dict[str, list[int]] = {ALL_KEY: [1, 2, 3, 4], "sgk_view": [1], "sgk_none": []}

WITHIN_S = 60.0  # whatever is waited for: far beyond what a busy machine needs

Script = Callable[[Any, Any], Any]


@dataclass
class Coordinator:
    """Answers by method name; a unary script is a coroutine, a stream's an async generator."""

    scripts: dict[str, Script] = field(default_factory=dict)
    metadata: list[dict[str, str]] = field(default_factory=list)
    """Of every call but those that resolve keys."""
    requests: list[Any] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a call was cancelled while its script ran."""
    grants: dict[str, list[int]] = field(default_factory=lambda: dict(GRANTS))
    health: health.aio.HealthServicer = field(default_factory=health.aio.HealthServicer)
    port: int = 0
    _server: grpc.aio.Server | None = None

    async def start(self, catalog: Catalog) -> None:
        """Serves all methods of the catalog; on the same port when started again."""
        self._server = grpc.aio.server()
        services = {method.service for method in catalog.methods}
        for name in sorted(services):
            handlers = {m.name: self._handler(m) for m in catalog.methods if m.service == name}
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(name, handlers),)
            )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Goes away at once, as a program that is killed."""
        if self._server is not None:
            await self._server.stop(None)

    async def serving(self, yes: bool) -> None:
        """Sets what the health service says."""
        status = health_pb2.HealthCheckResponse
        await self.health.set("", status.SERVING if yes else status.NOT_SERVING)

    async def resolve(self, request: Any, context: Any) -> Any:
        """Resolves the keys in `grants`; the tenant is `acme`."""
        self.resolved.append(request.key_sha256)
        for key, permissions in self.grants.items():
            granted = [options_pb2.Permission.ValueType(number) for number in permissions]
            if hashlib.sha256(key.encode()).hexdigest() == request.key_sha256:
                return keys.Identity(tenant_id="acme", user_id="ann", permissions=granted)
        return await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown key")

    def _handler(self, method: Method) -> Any:
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.streaming
            else grpc.unary_unary_rpc_method_handler
        )
        behaviour = self._stream(method.name) if method.streaming else self._unary(method)
        return make(
            behaviour,
            request_deserializer=method.request_class.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _unary(self, method: Method) -> Any:
        async def behave(request: Any, context: Any) -> Any:
            if method.authenticates:
                return await self.resolve(request, context)
            self._note(request, context)
            try:
                return await self.scripts[method.name](request, context)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        return behave

    def _stream(self, name: str) -> Any:
        async def behave(request: Any, context: Any) -> AsyncIterator[Any]:
            self._note(request, context)
            try:
                async for message in self.scripts[name](request, context):
                    yield message
            except (asyncio.CancelledError, GeneratorExit):
                self.cancelled.set()
                raise

        return behave

    def _note(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))


@dataclass
class World:
    """A coordinator, a gateway, and a client with a key that may do everything."""

    coordinator: Coordinator
    gateway: Gateway
    client: httpx.AsyncClient
    address: tuple[str, int]
    server: Server


@asynccontextmanager
async def world(
    *,
    catalog: Catalog | None = None,
    limits: Limits | None = None,
    timeout_s: float = 30.0,
    **parts: Any,
) -> AsyncIterator[World]:
    """Both programs on free ports, in this loop; `parts` go to create_app."""
    catalog = catalog or Catalog.default()
    coordinator = Coordinator()
    await coordinator.start(catalog)
    upstream = Upstream(f"127.0.0.1:{coordinator.port}", secret=SECRET, timeout_s=timeout_s)
    gateway = create_app(upstream, catalog=catalog, limits=limits, access_log=False, **parts)
    limits = limits or Limits()
    sock = listen("127.0.0.1", 0, send_timeout_s=limits.send_timeout_s)
    http = server(gateway, shutdown_s=1)
    serving = asyncio.create_task(http.serve(sockets=[sock]))
    host, port = sock.getsockname()
    base = f"http://{host}:{port}"
    try:
        async with httpx.AsyncClient(
            base_url=f"{base}/v1/modules/scaimind",
            headers={"authorization": f"Bearer {ALL_KEY}"},
            timeout=WITHIN_S,
        ) as client:
            yield World(coordinator, gateway, client, (host, port), http)
    finally:
        http.should_exit = True
        await serving
        sock.close()
        await coordinator.stop()


async def answering(made: World) -> None:
    """Waits until the gateway has a connection, and knows the caller: both may take a while, and a test
    of short times is not about them."""

    async def found(request: Any, context: Any) -> Any:
        return job_pb2.Job(job_id=request.job_id)

    async def answers() -> bool:
        return (await made.client.get("/jobs/first")).status_code == 200

    made.coordinator.scripts["GetJob"] = found
    await eventually(answers)


async def eventually(condition: Callable[[], Awaitable[bool]], within_s: float = WITHIN_S) -> None:
    """Waits until a condition holds.

    Raises:
        TimeoutError: it did not in time.
    """
    async with asyncio.timeout(within_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.02)


async def refuse(
    context: Any, code: grpc.StatusCode, text: str, *details: Any, trailing: Any = ()
) -> None:
    """Ends a call with google.rpc details, as the coordinator does."""
    status = status_pb2.Status(code=code.value[0], message=text)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    packed_status = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, text, (*packed_status, *trailing))


def reason(name: str) -> Any:
    """ErrorInfo with a reason."""
    return error_details_pb2.ErrorInfo(reason=name, domain="mindcoordinator")
