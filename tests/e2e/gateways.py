"""`python -m gateway` before a coordinator that a test chose, with flags of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.ports import Port
from tests.support.waiting import until

MODULE = "/v1/modules/scaimind"


@asynccontextmanager
async def gateway(
    folder: Path, coordinator: str, *flags: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[str]:
    """The program, once it is ready; its URL. Its log is `gateway.log` of the folder.

    `folder` has the coordinator's `gateway.secret`.
    """
    port = Port()
    words = ["--http", str(port), "--coordinator", coordinator, "--log-level", "DEBUG", *flags]
    words += ["--api-secret-file", str(folder / "gateway.secret")]
    with (folder / "gateway.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *words,
            env={**os.environ, **(environ or {})},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        what = "the gateway is ready"
        await asyncio.to_thread(until, lambda: _is_ready(str(port)), what, within_s=120)
        yield f"http://{port}"
    finally:
        process.terminate()
        await process.wait()
        port.close()


def _is_ready(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/readyz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
