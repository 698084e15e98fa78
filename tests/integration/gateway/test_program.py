"""`python -m gateway` as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.catalog import Catalog
from tests.integration.gateway.scripted import ALL_KEY, SECRET, WITHIN_S, Coordinator, eventually
from tests.integration.gateway.test_streams import endless

HEADERS = {"authorization": f"Bearer {ALL_KEY}"}


@asynccontextmanager
async def program(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The program on a free port, and its address from its own log."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "--http", "127.0.0.1:0", "--log-json", *flags,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        line = (await asyncio.wait_for(process.stderr.readline(), WITHIN_S)).decode()
        yield process, line.partition('"http": "')[2].partition('"')[0]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def coordinator() -> AsyncIterator[Coordinator]:
    """A scripted coordinator."""
    made = Coordinator()
    await made.start(Catalog.default())
    yield made
    await made.stop()


async def test_the_program_serves_and_ends_well_on_a_signal(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    coordinator.scripts["StreamJobLogs"] = endless
    target = f"127.0.0.1:{coordinator.port}"
    async with program("--coordinator", target, "--api-secret-file", str(secret)) as (
        process,
        address,
    ):
        base = f"http://{address}/v1/modules/scaimind"
        async with httpx.AsyncClient(base_url=base, headers=HEADERS, timeout=WITHIN_S) as client:

            async def is_ready() -> bool:
                return (await client.get(f"http://{address}/readyz")).status_code == 200

            await eventually(is_ready)
            async with asyncio.timeout(WITHIN_S), client.stream("GET", "/jobs/j/logs") as answer:
                text = ""
                async for part in answer.aiter_text():
                    text += part
                    if "id: a" in text and process.returncode is None:
                        process.send_signal(signal.SIGTERM)
            assert text.endswith('event: error\ndata: {"error": "stream ended"}\n\n')
        assert await asyncio.wait_for(process.wait(), WITHIN_S) == 0
    assert coordinator.metadata[0]["x-api-secret"] == SECRET


async def test_no_key_and_no_secret_is_ever_logged(
    coordinator: Coordinator, tmp_path: Path
) -> None:
    async def broken(request: Any, context: Any) -> Any:
        raise RuntimeError("boom")

    coordinator.scripts["GetJob"] = broken
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    flags = ("--coordinator", f"127.0.0.1:{coordinator.port}", "--api-secret-file", str(secret))
    async with program(*flags, "--log-level", "DEBUG") as (process, address):
        async with httpx.AsyncClient(headers=HEADERS, timeout=WITHIN_S) as client:
            url = f"http://{address}/v1/modules/scaimind/jobs/j"
            assert (await client.get(url)).status_code == 500
        process.send_signal(signal.SIGINT)
        _, log = await asyncio.wait_for(process.communicate(), WITHIN_S)
        assert process.returncode == 0
    assert b'"route": "/jobs/{job_id}"' in log
    assert b"scaimind_coordinator_error" in log
    assert ALL_KEY.encode() not in log
    assert SECRET.encode() not in log


async def test_a_port_that_is_taken_is_said_in_one_line(coordinator: Coordinator) -> None:
    async with program("--coordinator", f"127.0.0.1:{coordinator.port}") as (_, address):
        second = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "--http", address, stderr=asyncio.subprocess.PIPE
        )
        _, log = await asyncio.wait_for(second.communicate(), WITHIN_S)
        assert second.returncode == 1
        assert log.count(b"\n") == 1
        assert b"gateway_cannot_start" in log
