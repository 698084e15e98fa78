"""The stores that are held to the contract. A home is what outlives a store object."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import Store
from coordinator.store.redis import RedisStore
from coordinator.store.sqlite import SqliteStore
from tests.support.redis_server import shared

Home = Callable[[], Store]  # a store object on the same content each time


def homes(path: Path) -> dict[str, Home]:
    """Every kind of store."""
    memory = MemoryStore()
    return {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteStore(path / "store.db"),
        "redis": lambda: RedisStore(shared().url, path / "store.id", prefix=str(path)),
    }


@pytest.fixture(params=["memory", "sqlite", "redis"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return homes(tmp_path)[request.param]


@pytest.fixture
async def store(home: Home) -> AsyncIterator[Store]:
    """An open, empty store."""
    store = home()
    await store.open()
    yield store
    await store.close()
