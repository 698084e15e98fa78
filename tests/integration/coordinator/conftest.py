"""A coordinator for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, Program, open_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture
def admin(house: House) -> Caller:
    return house.admin


@pytest.fixture
async def agent(house: House) -> FakeAgent:
    """The agent of a node of four devices, heard once."""
    made = FakeAgent(house.agents)
    await made.sync()
    return made


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    made = Program(tmp_path)
    await made.start()
    yield made
    await made.close()
