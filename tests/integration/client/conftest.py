"""A scripted coordinator for each test, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scaimind.client import Client
from tests.integration.client.scripted import Scripted


@pytest.fixture
def coordinator() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.stop()


@pytest.fixture
def client(coordinator: Scripted) -> Iterator[Client]:
    with Client(coordinator.address, "sgk_test", timeout_s=60, retry_s=30, reconnect_s=30) as made:
        yield made
