"""The ledger in a store: each entry counts once, and what is asked for is summed."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.records import Entry
from coordinator.core.times import Day, Spent
from coordinator.store.protocol import Store, UsageBy, UsageFilter, UsageGroup
from coordinator.store.redis import RedisStore
from coordinator.store.sqlite import SqliteStore
from coordinator.store.usage import Sums
from tests.contract.stores.samples import batch
from tests.support.redis_server import shared

ALL: dict[str, Any] = {"from_day": 0, "until_day": 1 << 20, "until_version": 1 << 40}
FILTERS: list[dict[str, Any]] = [
    {},
    {"tenant_id": "acme"},
    {"tenant_id": "globex", "queue_name": "night"},
    {"user_id": "ada", "node_id": "n1"},
    {"job_id": "job_3", "tenant_id": "acme"},
    {"from_day": 102, "until_day": 104},
    {"from_day": 103, "until_day": 103},
    {"until_version": 1},
    {"tenant_id": "nobody"},
]


def entries() -> list[Entry]:
    """Of two tenants with users of one name; every third has lost something."""
    return [
        Entry(
            lease_id=f"job_{number}.1.0",
            job_id=f"job_{number}",
            tenant_id="globex" if number % 3 else "acme",
            user_id="ada" if number % 2 else "bob",
            queue_name="night" if number % 5 else "day",
            node_id=f"n{number % 4}",
            milli=250 * (number + 1),
            days=tuple(
                Day(100 + number + k, Spent(1, 10 * k, 0, number if number % 3 == 2 else 0, k, 7))
                for k in range(1 + number % 3)
            ),
            cause="PREEMPTED" if number % 3 == 2 else "",
            cause_id=f"job_{number % 2}" if number % 3 == 2 else "",
            is_foreign=number % 4 == 1,
            booked_at_ms=(100 + number + number % 3) * 86_400_000 + 5,
        )
        for number in range(12)
    ]


@pytest.fixture
async def full(store: Store) -> Store:
    epoch = await store.acquire("me")
    await store.commit(batch("a", *entries()[:7]), epoch=epoch, expected_version=0)
    await store.commit(batch("b", *entries()[7:]), epoch=epoch, expected_version=1)
    return store


def ordered(groups: tuple[UsageGroup, ...]) -> list[UsageGroup]:
    return sorted(groups, key=lambda group: (group.key, group.tenant_id))


async def test_what_is_asked_for_is_summed_by_group(full: Store) -> None:
    for by, asked in product(UsageBy, FILTERS):
        where = UsageFilter(by=by, **(ALL | asked))
        expected = Sums(where)
        for entry in entries()[: 7 if where.until_version == 1 else 12]:
            expected.add(entry)
        found = await full.usage(where, limit=100)
        assert ordered(found) == ordered(expected.groups(100)), (by, asked)
        assert len(await full.usage(where, limit=2)) == min(2, len(found))


async def test_every_grouping_adds_up_to_the_same(full: Store) -> None:
    leased = sum(entry.milli * sum(sum(day.spent) for day in entry.days) for entry in entries())
    for by in UsageBy:
        found = await full.usage(UsageFilter(by=by, **ALL), limit=100)
        assert sum(sum(group.spent) for group in found) == leased


async def test_a_tenant_is_not_told_which_job_of_another_took_its_place(full: Store) -> None:
    everybody = await full.usage(UsageFilter(by=UsageBy.CAUSE, **ALL), limit=100)
    assert {group.key for group in everybody} == {"", "PREEMPTED/job_0", "PREEMPTED/job_1"}
    own = await full.usage(UsageFilter(by=UsageBy.CAUSE, tenant_id="globex", **ALL), limit=100)
    assert {group.key for group in own} == {"", "PREEMPTED", "PREEMPTED/job_0", "PREEMPTED/job_1"}


async def test_a_batch_that_is_offered_again_books_nothing_twice(full: Store) -> None:
    epoch = await full.acquire("me")
    where = UsageFilter(by=UsageBy.JOB, **ALL)
    before = await full.usage(where, limit=100)
    await full.commit(batch("b", *entries()[7:]), epoch=epoch, expected_version=1)
    assert ordered(await full.usage(where, limit=100)) == ordered(before)


async def test_the_ledger_outlives_the_store_object_and_is_not_loaded(full: Store) -> None:
    assert not (await full.load()).records
    await full.close()
    await full.open()
    assert len(await full.usage(UsageFilter(by=UsageBy.JOB, **ALL), limit=100)) == 12


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_the_oldest_entries_go_where_there_are_too_many(kind: str, tmp_path: Path) -> None:
    store: Store
    if kind == "sqlite":
        store = SqliteStore(tmp_path / "store.db", entries_kept=40)
    else:
        known, prefix = tmp_path / "store.id", str(tmp_path)
        store = RedisStore(shared().url, known, prefix=prefix, entries_kept=40)
    await store.open()
    epoch = await store.acquire("me")
    for version in range(30):
        await store.commit(batch(str(version), *entries()), epoch=epoch, expected_version=version)
    where = UsageFilter(by=UsageBy.JOB, from_day=0, until_day=1 << 20, until_version=1 << 40)
    found = await store.usage(where, limit=100)
    starting = sum(group.spent.starting // (250 * (int(group.key[4:]) + 1)) for group in found)
    assert 40 <= starting <= 400  # of 720 days in 360 entries; Redis lets whole nodes go
    await store.close()
