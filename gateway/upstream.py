"""The one channel to the coordinator: options, deadlines, metadata, and who is still listening."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.catalog import Method
from scaimind.channel import Tls, open_aio

Metadata = tuple[tuple[str, str], ...]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

SECRET_KEY = "x-api-secret"
READY_WITHIN_S = 1.0
WATCH_AFTER_S = 0.05

# Reconnecting is quick, so that a coordinator that comes back is found within a second; pings find
# a peer that vanished without a word. Metadata may be large: faults of a request travel in it.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 128 << 10),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


class ClientGone(Exception):
    """The caller went away before there was an answer."""


class Upstream:
    """Calls of the coordinator. The channel opens with the first call, in the running loop."""

    def __init__(
        self, target: str, *, secret: str = "", timeout_s: float = 15.0, tls: Tls | None = None
    ) -> None:
        """Keeps where the coordinator is (`HOST:PORT`, or several parted by commas), the
        installation's secret, the deadline of a unary call, and how to speak TLS."""
        self._tls = tls
        self.timeout_s = timeout_s
        self._target = target
        self._secret: Metadata = ((SECRET_KEY, secret),) if secret else ()
        self._channel: grpc.aio.Channel | None = None
        self._stubs: dict[str, Any] = {}

    def metadata(self, *pairs: tuple[str, str]) -> Metadata:
        """Metadata of a call, with the installation's secret."""
        return (*self._secret, *pairs)

    def start(self, method: Method, request: Any, *, metadata: Metadata) -> Any:
        """Begins a call without waiting for a coordinator that is out of reach.

        A unary call ends at the deadline, a stream has none.
        """
        stub = self._stubs.get(method.rpc_path)
        if stub is None:
            make = self._open().unary_stream if method.streaming else self._open().unary_unary
            stub = self._stubs[method.rpc_path] = make(
                method.rpc_path,
                request_serializer=method.request_class.SerializeToString,
                response_deserializer=method.response_class.FromString,
            )
        timeout = None if method.streaming else self.timeout_s
        return stub(request, timeout=timeout, metadata=metadata, wait_for_ready=False)

    async def ready(self) -> bool:
        """Whether the coordinator says within a second that it serves."""
        stub = health_pb2_grpc.HealthStub(self._open())
        try:
            answer = await stub.Check(
                health_pb2.HealthCheckRequest(), timeout=READY_WITHIN_S, metadata=self.metadata()
            )
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Ends all calls and closes the channel; a later call opens a new one."""
        channel, self._channel = self._channel, None
        self._stubs.clear()
        if channel is not None:
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = open_aio(self._target, OPTIONS, tls=self._tls)
        return self._channel


async def disconnected(receive: Receive) -> None:
    """Returns once the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


class CallWatch:
    """Cancels a call when its caller goes away.

    The watch begins after a moment: nearly every call is over by then and costs no second
    coroutine.
    """

    def __init__(self, call: Any, receive: Receive) -> None:
        """Begins to watch soon; `stop` ends it."""
        self.gone = False
        self._call, self._receive = call, receive
        self._watcher: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    def stop(self) -> None:
        """Ends the watch."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def _begin(self) -> None:
        self._watcher = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        await disconnected(self._receive)
        self.gone = True
        self._call.cancel()


async def answer(call: Any, receive: Receive) -> Any:
    """The response of a unary call.

    Raises:
        ClientGone: the caller went away; the call was cancelled.
        grpc.RpcError: the call ended with another status than OK.
    """
    watch = CallWatch(call, receive)
    try:
        return await call
    except asyncio.CancelledError:
        if watch.gone:
            raise ClientGone from None
        raise
    finally:
        watch.stop()
