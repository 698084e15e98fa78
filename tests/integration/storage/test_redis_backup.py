"""Backups of a shared store: of one moment while it is written, and good for either kind of store."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.backup import EXIT_REFUSED, main
from coordinator.core.records import Entry, Job, JobStatus, Node, Record
from coordinator.core.times import DAY_MS, Day, Spent
from coordinator.data_dir import STORE, STORE_ID, STREAMS
from coordinator.store import redis_copy
from coordinator.store.protocol import JobFilter, Led, Store, StoreUnavailable, UsageBy, UsageFilter
from coordinator.store.redis import RedisStore
from coordinator.store.sqlite import SqliteStore
from coordinator.streams.protocol import Append, Point, Source, Streams
from coordinator.streams.redis import RedisStreams
from coordinator.streams.sqlite import SqliteStreams
from tests.contract.stores.samples import batch, changed, job, key, lease, node, retired
from tests.support.redis_server import RedisServer

DAY = 20_000
ENTRY = Entry(
    lease_id="job_0001.1.0",
    job_id="job_0001",
    tenant_id="acme",
    user_id="ada",
    queue_name="default",
    node_id="n1",
    milli=500,
    days=(Day(DAY - 3, Spent(1, 2, 3, 4, 5, 6)), Day(DAY, Spent(productive=7))),
    booked_at_ms=(DAY + 1) * DAY_MS,
)
POINT = Point(step=1, values=(("loss", 0.5),), epoch=None, at_ms=1, attempt=1, progress=12.5)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    with RedisServer(folder, fsync="no") as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def urls(redis: RedisServer) -> list[str]:
    """Of empty databases."""
    with redis.client() as client:
        client.flushall()
    return [f"{redis.url}?db={number}" for number in range(3)]


class Home:
    """A store and its streams, in a data directory or in a Redis."""

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder, self.url = folder, url
        folder.mkdir(exist_ok=True)
        self.store: Store = SqliteStore(folder / STORE)
        self.streams: Streams = SqliteStreams(folder / STREAMS)
        if url:
            shared = RedisStore(url, folder / STORE_ID)
            self.store, self.streams = shared, RedisStreams(url, lambda: shared.epoch)
        self.epoch = self.version = 0

    @property
    def words(self) -> list[str]:
        """That name it to the command."""
        return ["--data-dir", str(self.folder), *(["--store", self.url] if self.url else [])]

    async def open(self) -> None:
        await self.store.open()
        await self.streams.open()
        self.epoch = await self.store.acquire("me")
        self.version = (await self.store.load()).version

    async def close(self) -> None:
        await self.store.close()
        await self.streams.close()

    async def commit(self, *records: Record) -> None:
        self.version = await self.store.commit(
            batch(f"b{self.version}", *records), epoch=self.epoch, expected_version=self.version
        )

    async def print(self, job_id: str, number: int, *, point: bool = False) -> None:
        """A job prints its line of this number, counted from 0."""
        await self.streams.append(
            [
                Append(
                    source=Source(job_id=job_id, attempt=1, rank=0, channel=1, node_id="n"),
                    begin=5 * number,
                    end=5 * number + 5,
                    texts=[f"line{number}"],
                    ends=[5 * number + 5],
                    times_ms=[1],
                    levels=[2],
                    points=[POINT] if point else [],
                    point_ends=[5 * number + 5] if point else [],
                )
            ]
        )


@asynccontextmanager
async def opened(folder: Path, url: str = "") -> AsyncIterator[Home]:
    home = Home(folder, url)
    try:
        await home.open()
        yield home
    finally:
        await home.close()


async def backup(home: Home, folder: Path) -> None:
    assert await asyncio.to_thread(main, ["make", str(folder), *home.words]) == 0


async def restore(folder: Path, home: Home) -> int:
    return await asyncio.to_thread(main, ["restore", str(folder), *home.words])


async def all_of(home: Home) -> list[object]:
    """Everything that a store answers, but what a restore changes."""
    snapshot = await home.store.load()
    records = [replace(x, restored=False) if isinstance(x, Node) else x for x in snapshot.records]
    pages = await home.store.list_jobs(JobFilter(tenant_id="acme"), limit=100)
    ids = [one.job_id for one in pages.jobs]
    streams = home.streams
    where = UsageFilter(
        by=UsageBy.QUEUE, from_day=DAY - 9, until_day=DAY + 9, until_version=snapshot.version
    )
    return [
        *(records, snapshot.version, pages, await home.store.count_jobs("acme")),
        *(await home.store.documents(ids), await home.store.secret()),
        await home.store.events(limit=1000),
        await home.store.events(id=ids[0], limit=1000),
        sorted((await home.store.usage(where, limit=100)), key=lambda group: group.key),
        [(await streams.lines(one, after=0, limit=100)) for one in ids],
        [(await streams.points(one, after=0, limit=100)) for one in ids],
        [(await streams.log_bounds(one), await streams.metrics_bounds(one)) for one in ids],
        await streams.latest(ids),
    ]


async def fill(home: Home) -> None:
    """Something of everything."""
    await home.commit(node(), key())
    for number in range(1, 4):
        await home.commit(job(number, labels=(("team", f"t{number % 2}"),)))
        for line in range(3):
            await home.print(f"job_{number:04d}", line, point=line == 2)
    await home.commit(lease("job_0001"), ENTRY)
    done = job(2, status=JobStatus.COMPLETED, version=2)
    await home.commit(changed(done), retired(done))  # type: ignore[arg-type]


async def test_each_kind_of_store_can_be_restored_from_a_backup_of_the_other(
    urls: list[str], tmp_path: Path
) -> None:
    async with opened(tmp_path / "first") as first:
        await fill(first)
        known = await all_of(first)
        await backup(first, tmp_path / "of-sqlite")
    assert await restore(tmp_path / "of-sqlite", Home(tmp_path / "second", urls[0])) == 0
    async with opened(tmp_path / "second", urls[0]) as second:
        assert await all_of(second) == known
        assert second.epoch > first.epoch + 1_000_000
        await backup(second, tmp_path / "of-redis")
    third, fourth = Home(tmp_path / "third"), Home(tmp_path / "fourth", urls[1])
    for home in (third, fourth):
        assert await restore(tmp_path / "of-redis", home) == 0
        await home.open()
        assert await all_of(home) == known
        assert home.epoch > second.epoch
        marked = [x.restored for x in (await home.store.load()).records if isinstance(x, Node)]
        assert marked == [True]  # nothing is placed before they were heard
        await home.commit(job(9))  # and life goes on
        await home.print("job_0001", 3)
        assert (await home.streams.log_bounds("job_0001")).last == 4
        await home.close()
    # Whoever led from the old one knows the new one for the same.
    assert (tmp_path / "fourth" / STORE_ID).read_text() == (
        tmp_path / "second" / STORE_ID
    ).read_text()


async def test_a_backup_during_writes_is_one_moment_whose_logs_are_not_older(
    urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = True

    async def write_on(home: Home) -> None:
        """Each version has one more job, which ends with the next but one; its line comes first."""
        while running:
            at = home.version
            await home.print(f"job_{at:04d}", 0)
            ending = [job(at - 2, status=JobStatus.COMPLETED, version=2)] if at > 2 else []
            await home.commit(*map(changed, (job(at), *ending)), *map(retired, ending))  # type: ignore[arg-type]

    async with opened(tmp_path / "data", urls[0]) as home:
        writing = asyncio.create_task(write_on(home))
        for number in range(2):
            while home.version < 80 * (number + 1):
                await home.store.count_jobs("acme")
            # the second time more changes during the copy than are taken at once
            monkeypatch.setattr(redis_copy, "NEWER_MOST", 2_000 if number == 0 else 12)
            before = home.version
            await backup(home, tmp_path / f"backup-{number}")
            again = Home(tmp_path / f"new-{number}")
            assert await restore(tmp_path / f"backup-{number}", again) == 0
            await again.open()
            assert again.version >= before
            version = again.version
            live = [x.job_id for x in (await again.store.load()).records if isinstance(x, Job)]
            assert live == ["job_0000", *(f"job_{one:04d}" for one in (version - 2, version - 1))]
            counts = await again.store.count_jobs("acme")
            assert sum(counts.values()) == version
            for at in range(version):
                assert (await again.streams.log_bounds(f"job_{at:04d}")).last == 1
            await again.close()
        running = False
        await writing


async def test_nothing_is_put_over_a_store_and_half_of_one_is_led_by_nobody(
    urls: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened(tmp_path / "data", urls[0]) as home:
        await fill(home)
        await backup(home, tmp_path / "backup")
    assert await restore(tmp_path / "backup", home) == EXIT_REFUSED
    assert "holds a store already" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / STORE_ID).write_text("of-another-store\n")
    other = Home(tmp_path / "other", urls[1])
    assert await restore(tmp_path / "backup", other) == EXIT_REFUSED
    assert "names another store" in capsys.readouterr().err
    empty = Home(tmp_path / "empty", urls[1])
    assert await asyncio.to_thread(main, ["make", str(tmp_path / "none"), *empty.words]) == 3
    assert "holds no store" in capsys.readouterr().err

    async def breaks_off(*_: object) -> None:
        raise StoreUnavailable("the network is gone")

    monkeypatch.setattr(redis_copy, "_put_ledger", breaks_off)
    assert await restore(tmp_path / "backup", Home(tmp_path / "half", urls[2])) == EXIT_REFUSED
    with pytest.raises(Led):
        async with opened(tmp_path / "late", urls[2]):
            pass
