"""A running gateway in front of a scripted coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway.scripted import World, world


@pytest.fixture
async def running() -> AsyncIterator[World]:
    """A gateway with the default bounds."""
    async with world() as made:
        yield made
