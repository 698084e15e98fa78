"""The audit is bounded: the newest lines are kept, the oldest leave a few at a time."""

from pathlib import Path

import pytest

from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import Store
from coordinator.store.sqlite import EVENTS_SLACK, SqliteStore
from tests.contract.stores.samples import batch, job

KEPT = 100
LINES = 5  # of one batch


async def write(store: Store, batches: int) -> None:
    """Commits so many batches on what is there."""
    epoch, version = await store.acquire("me"), (await store.load()).version
    for number in range(version, version + batches):
        jobs = [job(LINES * number + index) for index in range(LINES)]
        await store.commit(batch(f"b{number}", *jobs), epoch=epoch, expected_version=number)


async def sequences(store: Store) -> list[int]:
    return [line.sequence for line in await store.events(limit=10_000)]


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
async def test_the_newest_lines_are_kept(kind: str, tmp_path: Path) -> None:
    store: Store = MemoryStore(events_kept=KEPT)
    if kind == "sqlite":
        store = SqliteStore(tmp_path / "store.db", events_kept=KEPT)
    await store.open()
    await write(store, 10)
    assert await sequences(store) == list(range(1, 51))
    await write(store, 50)
    assert await sequences(store) == list(range(201, 301))
    assert [line.sequence for line in await store.events(after=250, limit=2)] == [251, 252]
    await store.close()


async def test_a_smaller_budget_is_met_a_little_with_each_commit(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    await write(store, 60)
    await store.close()
    store = SqliteStore(tmp_path / "store.db", events_kept=KEPT)
    await store.open()
    await write(store, 1)
    assert await sequences(store) == list(range(LINES + EVENTS_SLACK + 1, 306))
    await write(store, 20)
    assert await sequences(store) == list(range(306, 406))
    await store.close()
