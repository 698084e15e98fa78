"""Serves the newest telemetry to Prometheus: one page over HTTP, for whoever may reach the address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from scaimind.service.settings import split_address

PATH = "/metrics"
HEAD_MAX = 8192
PATIENCE_S = 5.0
MOST_AT_ONCE = 16

log = structlog.get_logger()
Text = Callable[[], str]


@asynccontextmanager
async def metrics_served(address: str | None, text: Text) -> AsyncIterator[None]:
    """Serves what `text` tells at HOST:PORT/metrics; nowhere for None. Raises OSError."""
    if address is None:
        yield
        return
    host, port = split_address(address)
    slots = asyncio.Semaphore(MOST_AT_ONCE)
    answer = partial(_answer, text=text, slots=slots)
    server = await asyncio.start_server(answer, host, port, limit=HEAD_MAX)
    try:
        yield
    finally:
        server.close()


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    text: Text,
    slots: asyncio.Semaphore,
) -> None:
    try:
        if not slots.locked():
            async with slots, asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_page(head, text))
                await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        log.debug("metrics_not_read", reason=type(error).__name__)
    finally:
        writer.close()


def _page(head: bytes, text: Text) -> bytes:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or words[0] != "GET" or words[1].partition("?")[0] != PATH:
        status, body = "404 Not Found", b""
    else:
        status, body = "200 OK", text().encode()
    lines = (
        f"HTTP/1.1 {status}",
        "Content-Type: text/plain; version=0.0.4; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body
