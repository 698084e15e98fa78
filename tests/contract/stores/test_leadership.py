"""Stores that several processes may open: one leads, for a time, and the others are told who."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.store.protocol import (
    Fenced,
    Led,
    StoreLost,
    StoreUnavailable,
)
from coordinator.store.redis import RedisStore
from tests.contract.stores.conftest import Home
from tests.contract.stores.samples import batch, job
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer, shared


def at(path: Path, name: str = "store.id", *, server: RedisServer | None = None) -> RedisStore:
    """A store object as another process has it: what it remembers is in a file of its own."""
    return RedisStore((server or shared()).url, path / name, prefix=str(path))


@pytest.fixture
async def two(tmp_path: Path) -> tuple[RedisStore, RedisStore]:
    first, second = at(tmp_path, "first.id"), at(tmp_path, "second.id")
    await first.open()
    await second.open()
    return first, second


State = Callable[..., None]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """Writes into what Redis holds of the leader."""
    client = shared().client()

    def write(**fields: int) -> None:
        for name, value in fields.items():
            client.hset(f"{{{tmp_path}}}:state", name, str(value))

    yield write
    client.close()


async def test_whoever_asks_while_another_leads_is_told_who_and_for_how_long(
    two: tuple[RedisStore, RedisStore],
) -> None:
    first, second = two
    epoch = await first.acquire("a", address="a:1", ttl_s=60)
    with pytest.raises(Led) as caught:
        await second.acquire("b", address="b:1", ttl_s=60)
    leader = caught.value.leader
    assert (leader.epoch, leader.holder, leader.address) == (epoch, "a", "a:1")
    assert 0 < caught.value.for_s <= 60
    await asyncio.gather(first.close(), second.close())


async def test_a_leader_that_does_not_renew_is_followed_by_another(
    two: tuple[RedisStore, RedisStore], state: State
) -> None:
    first, second = two
    epoch = await first.acquire("a", ttl_s=60)
    state(until=0)
    newer = await second.acquire("b", ttl_s=60)
    assert newer > epoch
    for call in (first.renew(epoch), first.commit(batch("x"), epoch=epoch, expected_version=0)):
        with pytest.raises(Fenced):
            await call
    await asyncio.gather(first.close(), second.close())


async def test_a_leader_leads_on_after_its_time_where_nobody_took_over(
    two: tuple[RedisStore, RedisStore], state: State
) -> None:
    first, second = two
    epoch = await first.acquire("a", ttl_s=60)
    state(until=0)
    assert await first.commit(batch("x"), epoch=epoch, expected_version=0) == 1
    await first.renew(epoch, ttl_s=60)
    with pytest.raises(Led):
        await second.acquire("b")
    await asyncio.gather(first.close(), second.close())


async def test_a_leader_that_lets_go_is_followed_at_once(
    two: tuple[RedisStore, RedisStore],
) -> None:
    first, second = two
    epoch = await first.acquire("a", ttl_s=60)
    await first.renew(epoch, ttl_s=0)
    assert await second.acquire("b") > epoch
    await asyncio.gather(first.close(), second.close())


async def test_renewing_an_epoch_that_is_over_is_refused_by_every_store(home: Home) -> None:
    store = home()
    await store.open()
    epoch = await store.acquire("me")
    await store.renew(epoch)
    await store.acquire("me")
    with pytest.raises(Fenced):
        await store.renew(epoch)
    await store.close()


async def test_a_store_that_was_emptied_is_not_led_by_anyone_who_knew_it(
    two: tuple[RedisStore, RedisStore], tmp_path: Path
) -> None:
    first, second = two
    epoch = await first.acquire("a", ttl_s=60)
    await first.commit(batch("x", job(1)), epoch=epoch, expected_version=0)
    with pytest.raises(Led):
        await second.acquire("b")
    client = shared().client()
    client.delete(*client.keys(f"{{{tmp_path}}}:*"))
    client.close()
    with pytest.raises(Fenced):
        await first.commit(batch("y"), epoch=epoch, expected_version=1)
    for one in (first, second):
        with pytest.raises(StoreLost, match="backup"):
            await one.acquire("c")
    (tmp_path / "first.id").unlink()
    assert await first.acquire("c") > 0
    assert (await first.load()).records == ()
    await asyncio.gather(first.close(), second.close())


async def test_an_epoch_is_not_given_again_when_redis_forgets_the_last_ones(
    two: tuple[RedisStore, RedisStore], state: State
) -> None:
    first, second = two
    before = await first.acquire("a", ttl_s=60)
    assert before > 1_000_000  # seconds
    lost = await first.acquire("a", ttl_s=60)
    state(epoch=before - 1000, until=0)  # a fail-over to a replica that was far behind
    assert await second.acquire("c") >= lost - 1
    await asyncio.gather(first.close(), second.close())


async def test_a_redis_that_throws_keys_away_is_refused(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "r") as server:
        client = server.client()
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreUnavailable, match="noeviction"):
            await at(tmp_path, server=server).open()
        client.config_set("maxmemory-policy", "noeviction")
        store = at(tmp_path, server=server)
        await store.open()
        await store.close()
        client.close()


async def test_a_redis_that_is_full_refuses_a_batch_whole(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "r") as server:
        client = server.client()
        store = at(tmp_path, server=server)
        await store.open()
        epoch = await store.acquire("a", ttl_s=60)
        await store.commit(batch("x", job(1)), epoch=epoch, expected_version=0)
        client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreUnavailable, match="memory"):
            await store.commit(batch("y", job(2)), epoch=epoch, expected_version=1)
        assert [record.id for record in (await store.load()).records] == ["job_0001"]
        client.config_set("maxmemory", "0")
        assert await store.commit(batch("y", job(2)), epoch=epoch, expected_version=1) == 2
        await store.close()
        client.close()


async def test_every_acknowledged_batch_survives_kill_9_of_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "r", fsync="always") as server:
        store = at(tmp_path, server=server)
        await store.open()
        epoch, told = await store.acquire("a", ttl_s=60), 0
        enough = asyncio.Event()

        async def write() -> None:
            nonlocal told
            for count in itertools.count():
                if count == 50:
                    enough.set()
                number = told + 1
                told = await store.commit(
                    batch(f"b{number}", job(number)), epoch=epoch, expected_version=told
                )

        for _ in range(3):
            enough.clear()
            writing = asyncio.create_task(write())
            await enough.wait()
            server.kill()
            with pytest.raises(StoreUnavailable):
                await writing
            server.start()
            snapshot = await store.load()
            assert snapshot.version in (told, told + 1)
            assert len(snapshot.records) == snapshot.version
            told = snapshot.version
        await store.close()


async def test_the_oldest_lines_of_the_audit_go_and_so_do_their_entries(tmp_path: Path) -> None:
    store = RedisStore(shared().url, tmp_path / "id", prefix=str(tmp_path), events_kept=10)
    await store.open()
    epoch = await store.acquire("a")
    for number in range(20):
        await store.commit(
            batch(f"b{number}", job(number % 2)), epoch=epoch, expected_version=number
        )
    assert [line.sequence for line in await store.events()] == list(range(11, 21))
    ours = await store.events(id="job_0001")
    assert [line.sequence for line in ours] == [12, 14, 16, 18, 20]
    client = shared().client()
    assert client.zcard(f"{{{tmp_path}}}:events_of") == 10
    client.close()
    await store.close()


async def test_a_name_that_is_no_redis_and_a_redis_that_is_not_there_say_so(tmp_path: Path) -> None:
    for url in ("redis://127.0.0.1:1/0", "redis://127.0.0.1/no-database"):
        with pytest.raises(StoreUnavailable, match="127"):
            await RedisStore(url, tmp_path / "id").open()


async def test_a_password_is_never_part_of_a_message(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await RedisStore("redis://ann:s3cret@127.0.0.1:1/0", tmp_path / "id").open()
    assert "s3cret" not in str(caught.value)


async def test_a_commit_is_answered_once_it_is_on_the_disk_of_redis(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "r", fsync="no"):
        async with RedisProxy(tmp_path / "r" / "redis.sock", tmp_path / "p") as proxy:
            store = RedisStore(proxy.url, tmp_path / "id")
            await store.open()
            epoch = await store.acquire("a", ttl_s=60)
            await store.commit(batch("w"), epoch=epoch, expected_version=0)
            before = proxy.asked
            assert await store.commit(batch("x", job(1)), epoch=epoch, expected_version=1) == 2
            assert proxy.asked == before + 1
            proxy.on_disk = 0
            with pytest.raises(StoreUnavailable, match="disk"):
                await store.commit(batch("y", job(2)), epoch=epoch, expected_version=2)
            proxy.on_disk = 1
            assert await store.commit(batch("y", job(2)), epoch=epoch, expected_version=2) == 3
            await store.renew(epoch)
            assert proxy.asked == before + 3
            await store.close()
