"""The streams that are held to the contract. A home is what outlives a streams object."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from coordinator.streams.memory import MemoryStreams
from coordinator.streams.protocol import Streams
from coordinator.streams.redis import RedisStreams
from coordinator.streams.sqlite import SqliteStreams
from tests.support.redis_server import shared

Home = Callable[[], Streams]  # a streams object on the same content each time

LOG_BYTES_MAX = 200_000


def homes(path: Path) -> dict[str, Home]:
    """Every kind of streams."""
    memory = MemoryStreams(log_bytes_max=LOG_BYTES_MAX)
    return {
        "memory": lambda: memory,
        "sqlite": lambda: SqliteStreams(path / "streams.db", log_bytes_max=LOG_BYTES_MAX),
        "redis": lambda: RedisStreams(shared().url, prefix=str(path), log_bytes_max=LOG_BYTES_MAX),
    }


@pytest.fixture(params=["memory", "sqlite", "redis"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return homes(tmp_path)[request.param]


@pytest.fixture
async def streams(home: Home) -> AsyncIterator[Streams]:
    """Open, empty streams."""
    streams = home()
    await streams.open()
    yield streams
    await streams.close()
