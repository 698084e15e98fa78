"""A coordinator and a gateway before it, both in this process, for tests that ask over gRPC and REST."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from gateway.app import Gateway, create_app
from gateway.upstream import Upstream
from tests.integration.coordinator.house import Caller, House, open_house

MODULE = "/v1/modules/scaimind"


@dataclass
class World:
    """Both programs in this process; `rest` calls with the admin's key."""

    house: House
    gateway: Gateway
    rest: httpx.AsyncClient

    def headers(self, caller: Caller) -> dict[str, str]:
        """The credential of a caller over gRPC, for HTTP."""
        return {name: value for name, value in caller.metadata if name == "authorization"}


@asynccontextmanager
async def opened(folder: Path, *words: str, **parts: Any) -> AsyncIterator[World]:
    """Both; `words` go to the coordinator, `parts` to create_app."""
    async with open_house(folder, *words) as house:
        secret = house.now.parts.api_secret
        upstream = Upstream(f"127.0.0.1:{house.now.port}", secret=secret)
        gateway = create_app(upstream, access_log=False, **parts)
        key = (folder / "admin.key").read_text().strip()
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(gateway),
            base_url=f"http://mind{MODULE}",
            headers={"authorization": f"Bearer {key}"},
        ) as rest:
            yield World(house, gateway, rest)
        await gateway.close()
