"""The client that loads a server, a process of its own: one JSON line asks, one JSON line answers.

gRPC messages are sent as bytes that were made once, HTTP requests too, so that what is measured is
the server, and both sides of a comparison cost this client the same.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import cycle
from typing import Any

import grpc

from bench.report import quantile

Call = Callable[[], Awaitable[None]]


class HttpConnection(asyncio.Protocol):
    """One kept-alive connection; answers must carry Content-Length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or self._waiting is None:
            return
        lower = head.lower()
        at = lower.index(b"content-length:") + len(b"content-length:")
        length = int(lower[at:].split(b"\r\n", 1)[0])
        if len(rest) >= length:
            self._buffer = rest[length:]
            waiting, self._waiting = self._waiting, None
            waiting.set_result(head)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None:
            self._waiting.set_exception(exc or ConnectionError("closed"))

    async def ask(self, request: bytes) -> None:
        """One request. Raises ValueError where the answer is not a success."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        head = await self._waiting
        if not head.startswith(b"HTTP/1.1 2"):
            raise ValueError(head[:80].decode())


async def grpc_calls(channels: dict[str, grpc.aio.Channel], order: dict[str, Any]) -> list[Call]:
    """One caller per connection wanted, all on one channel."""
    target = order["target"]
    if target not in channels:
        channels[target] = grpc.aio.insecure_channel(target)
    send: Any = channels[target].unary_unary(order["path"])
    requests = cycle([bytes.fromhex(one) for one in order["requests"]])
    metadata = tuple(map(tuple, order["metadata"]))

    async def call() -> None:
        await send(next(requests), metadata=metadata, timeout=30)

    return [call] * int(order["concurrency"])


async def http_calls(order: dict[str, Any]) -> list[Call]:
    """One caller per connection wanted."""
    host, _, port = order["target"].rpartition(":")
    request = bytes.fromhex(order["request"])
    loop = asyncio.get_running_loop()
    calls: list[Call] = []
    for _ in range(int(order["concurrency"])):
        _, connection = await loop.create_connection(HttpConnection, host, int(port))
        calls.append(lambda one=connection: one.ask(request))  # type: ignore[misc]
    return calls


async def measure(calls: list[Call], *, seconds: float, count: int) -> dict[str, float]:
    """Calls until the time is up, or so many times in all where `count` is given."""
    took: list[float] = []
    left = count or sys.maxsize
    began = time.perf_counter()

    async def work(call: Call) -> None:
        nonlocal left
        while left > 0 and time.perf_counter() - began < seconds:
            left -= 1
            at = time.perf_counter()
            await call()
            took.append(time.perf_counter() - at)

    await asyncio.gather(*(work(call) for call in calls))
    wall_s = time.perf_counter() - began
    return {
        "per_s": len(took) / wall_s,
        "p50_ms": quantile(took, 0.5) * 1000,
        "p99_ms": quantile(took, 0.99) * 1000,
        "count": len(took),
    }


async def main() -> None:
    """Serves orders until standard input ends."""
    channels: dict[str, grpc.aio.Channel] = {}
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        is_grpc = order["kind"] == "grpc"
        calls = await (grpc_calls(channels, order) if is_grpc else http_calls(order))
        answer = await measure(calls, seconds=order["seconds"], count=order["count"])
        print(json.dumps(answer), flush=True)
    for channel in channels.values():
        await channel.close()


if __name__ == "__main__":
    asyncio.run(main())
