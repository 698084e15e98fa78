"""The page for Prometheus: one path, and nothing that a client does keeps it from others."""

from __future__ import annotations

import asyncio

import pytest

from node_agent import metrics
from node_agent.metrics import metrics_served
from tests.support.ports import Port


async def ask(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    async with asyncio.timeout(90):
        answer = await reader.read()
    writer.close()
    return answer


async def test_the_page_is_served_and_nothing_else() -> None:
    with Port() as page:
        port = page.number
        async with metrics_served(str(page), lambda: "up 1\n"):
            answer = await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.endswith(b"\r\n\r\nup 1\n")
            assert b" 404 " in await ask(port, b"GET /other HTTP/1.1\r\n\r\n")
            assert b" 404 " in await ask(port, b"POST /metrics HTTP/1.1\r\n\r\n")


async def test_who_says_nothing_or_too_much_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PATIENCE_S", 0.1)
    with Port() as page:
        port = page.number
        async with metrics_served(str(page), lambda: ""):
            assert await ask(port, b"GET ") == b""
            assert b"200" in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")


async def test_without_an_address_nothing_is_served() -> None:
    async with metrics_served(None, lambda: "never"):
        pass
