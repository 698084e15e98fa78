"""Stores that an older version has written: their jobs are filed anew, and lists find all of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.core.records import Job
from coordinator.redis import Server
from coordinator.store import redis as redis_store
from coordinator.store.protocol import Fenced, JobFilter, Store, StoreUnavailable
from coordinator.store.redis import RedisStore
from coordinator.store.sqlite import SCHEMA, SqliteStore
from tests.contract.stores.samples import batch, job, whole
from tests.contract.stores.test_reads import FILTERS, all_pages, some_jobs, wanted
from tests.support.redis_server import shared

COLUMNS = "job_id, tenant_id, status, priority, name, created_at, updated_at, sequence, live"


def old_row(one: Job) -> tuple[object, ...]:
    order = (one.priority, one.name, one.created_at_ms, one.updated_at_ms, one.sequence, 1)
    labels = json.dumps(dict(one.labels))
    return (one.job_id, one.tenant_id, str(one.status), *order, labels, whole(one).decode())


async def check(store: Store, holder: str = "me") -> None:
    """Lists find everything, and go on doing so."""
    for asked in FILTERS:
        where = JobFilter(tenant_id="acme", **asked)
        assert await all_pages(store, where, 7) == wanted(where)
    epoch = await store.acquire(holder)
    version = (await store.load()).version
    moved = job(1, labels=(("team", "rl"),), queue_name="other", parent_job_id="job_0009")
    await store.commit(batch("b", moved), epoch=epoch, expected_version=version)
    for asked, expected in (
        ({"labels": (("team", "rl"),)}, [moved]),
        ({"queue_name": "other", "parent_job_id": "job_0009"}, [moved]),
        ({"parent_job_id": "job_0000", "name_prefix": "name-1", "created_until_ms": 1}, []),
    ):
        assert await all_pages(store, JobFilter(tenant_id="acme", **asked), 7) == expected


async def test_a_file_of_the_first_version_is_migrated_with_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA.migrations[0])
        connection.executemany(
            f"INSERT INTO jobs ({COLUMNS}, labels, body) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            [old_row(one) for one in some_jobs()],
        )
        connection.execute("PRAGMA user_version = 1")
        connection.execute(f"PRAGMA application_id = {SCHEMA.application_id}")
        connection.commit()
    store = SqliteStore(path)
    await store.open()
    await check(store)
    await store.close()


class Old:
    """A Redis store as layout 1 had it."""

    def __init__(self, folder: Path) -> None:
        self._prefix = str(folder)
        self.server = Server(shared().url, prefix=self._prefix, trouble=StoreUnavailable)
        self.store = self.another(folder)

    def another(self, folder: Path) -> RedisStore:
        """A coordinator on the same store."""
        return RedisStore(shared().url, folder / "store.id", prefix=self._prefix)

    async def make(self) -> None:
        """Fills it, and takes away what layout 2 has added."""
        await self.store.open()
        epoch = await self.store.acquire("old", ttl_s=0)
        await self.store.commit(batch("a", *some_jobs()), epoch=epoch, expected_version=0)
        await self.server.open()
        key = self.server.key
        await self.server.each(
            [
                ("DEL", key("filed"), key("marks")),
                ("HDEL", key("state"), "layout"),
                ("HSET", key("counts"), "x", 1),
                ("ZADD", key("labels"), 0, "x"),
            ]
        )


@pytest.fixture
async def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Old]:
    monkeypatch.setattr(redis_store, "REFILED", 7)
    made = Old(tmp_path)
    await made.make()
    yield made
    await made.store.close()
    await made.server.close()


async def test_a_redis_of_the_first_layout_is_filed_anew_by_its_next_leader(old: Old) -> None:
    await old.store.acquire("me")
    await check(old.store)
    key = old.server.key
    left = await old.server.each([("EXISTS", key("labels"), key("counts"))])
    assert left == [0]


async def test_a_leader_that_is_deposed_while_it_files_stops_and_the_next_one_goes_on(
    old: Old, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = old.another(tmp_path)
    await another.open()
    renew = old.store.renew

    async def late(epoch: int, *, ttl_s: float) -> None:
        await renew(epoch, ttl_s=0)
        await another.acquire("other")
        await renew(epoch, ttl_s=ttl_s)

    monkeypatch.setattr(old.store, "renew", late)
    with pytest.raises(Fenced):
        await old.store.acquire("me")
    await check(another, "other")
    await another.close()


async def test_a_redis_of_a_newer_layout_is_left_alone(old: Old) -> None:
    await old.server.each([("HSET", old.server.key("state"), "layout", 3)])
    with pytest.raises(StoreUnavailable, match="newer version"):
        await old.store.acquire("me")
