"""What a store promises about batches: whole or not at all, once, by the leader, on the right version."""

import asyncio

import pytest

from coordinator.core.decision import Retired
from coordinator.core.records import Documents, JobStatus, Kind
from coordinator.store.protocol import Conflict, Fenced, Store, StoreUnavailable
from tests.contract.stores.conftest import Home
from tests.contract.stores.faulty import Fault, FaultyStore
from tests.contract.stores.samples import batch, job, key, lease, node, request, retired


async def test_a_new_store_is_empty_and_at_version_0(store: Store) -> None:
    snapshot = await store.load()
    assert snapshot.records == ()
    assert snapshot.version == 0


async def test_each_batch_raises_the_version_by_one(store: Store) -> None:
    epoch = await store.acquire("me")
    assert await store.commit(batch("a", job(1)), epoch=epoch, expected_version=0) == 1
    assert await store.commit(batch("b"), epoch=epoch, expected_version=1) == 2
    assert (await store.load()).version == 2


async def test_what_was_committed_is_there_after_opening_again(store: Store, home: Home) -> None:
    epoch = await store.acquire("me")
    await store.commit(batch("a", job(1), node(), lease()), epoch=epoch, expected_version=0)
    before = await store.load()
    await store.renew(epoch, ttl_s=0)
    await store.close()
    again = home()
    await again.open()
    assert await again.load() == before
    assert await again.acquire("me again") > epoch
    await again.close()


async def test_a_batch_that_is_offered_again_is_answered_and_not_repeated(store: Store) -> None:
    epoch = await store.acquire("me")
    first = batch("a", job(1))
    assert await store.commit(first, epoch=epoch, expected_version=0) == 1
    assert await store.commit(batch("b", job(2)), epoch=epoch, expected_version=1) == 2
    assert await store.commit(first, epoch=epoch, expected_version=0) == 1
    assert (await store.load()).version == 2
    assert len(await store.events()) == 2


async def test_the_last_thousand_batches_are_known_again(store: Store) -> None:
    epoch = await store.acquire("me")
    for number in range(1000):
        await store.commit(batch(f"b{number}"), epoch=epoch, expected_version=number)
    assert await store.commit(batch("b0"), epoch=epoch, expected_version=0) == 1
    with pytest.raises(Conflict):
        await store.commit(batch("another"), epoch=epoch, expected_version=0)


async def test_a_batch_of_an_older_epoch_is_refused_and_changes_nothing(store: Store) -> None:
    old = await store.acquire("me")
    await store.commit(batch("a", job(1)), epoch=old, expected_version=0)
    await store.renew(old, ttl_s=0)
    new = await store.acquire("you")
    before = await store.load()
    for id in ("b", "a"):
        with pytest.raises(Fenced):
            await store.commit(batch(id, job(1, name="x")), epoch=old, expected_version=1)
    assert await store.load() == before
    assert await store.commit(batch("c"), epoch=new, expected_version=1) == 2


async def test_a_batch_of_an_epoch_that_nobody_was_given_is_refused(store: Store) -> None:
    epoch = await store.acquire("me")
    with pytest.raises(Fenced):
        await store.commit(batch("a"), epoch=epoch + 1, expected_version=0)


@pytest.mark.parametrize("version", [-1, 0, 2, 99])
async def test_a_batch_on_another_version_is_refused_and_changes_nothing(
    store: Store, version: int
) -> None:
    epoch = await store.acquire("me")
    await store.commit(batch("a", job(1)), epoch=epoch, expected_version=0)
    with pytest.raises(Conflict):
        await store.commit(batch("b", job(2)), epoch=epoch, expected_version=version)
    assert await store.job("job_0002") is None
    assert len(await store.events()) == 1


async def test_epochs_rise_with_every_leader(store: Store) -> None:
    epochs = []
    for number in range(3):
        epochs.append(await store.acquire(f"holder {number}"))
        await store.renew(epochs[-1], ttl_s=0)
    assert epochs == sorted(set(epochs))
    assert epochs[0] >= 1


async def test_records_load_in_an_order_in_which_they_can_be_applied(store: Store) -> None:
    epoch = await store.acquire("me")
    everything = (lease("job_0002"), job(2), job(10), request(), key(), node("n2"), node("n1"))
    await store.commit(batch("a", *everything), epoch=epoch, expected_version=0)
    loaded = (await store.load()).records
    assert [record.id for record in loaded] == [
        "n1",
        "n2",
        "k1",
        "acme/r1",
        "job_0002",
        "job_0010",
        "job_0002.1.0",
    ]
    assert set(loaded) == set(everything)


async def test_the_last_of_several_changes_in_one_batch_counts(store: Store) -> None:
    epoch = await store.acquire("me")
    changes = [job(1, status=status) for status in (JobStatus.QUEUED, JobStatus.TRAINING)]
    await store.commit(batch("a", *changes), epoch=epoch, expected_version=0)
    assert await store.job("job_0001") == changes[-1]
    assert await store.count_jobs("acme") == {"TRAINING": 1}


async def test_a_retired_job_is_history(store: Store) -> None:
    epoch = await store.acquire("me")
    done = job(1, status=JobStatus.COMPLETED)
    await store.commit(batch("a", job(1), job(2)), epoch=epoch, expected_version=0)
    await store.commit(batch("b", done, retired(done)), epoch=epoch, expected_version=1)
    await store.commit(batch("c", retired(job(2))), epoch=epoch, expected_version=2)
    assert (await store.load()).records == ()
    assert await store.job("job_0001") == done
    assert await store.job("job_0002") == job(2)


async def test_a_job_that_changes_after_it_retired_is_live_again(store: Store) -> None:
    epoch = await store.acquire("me")
    await store.commit(batch("a", job(1), retired(job(1))), epoch=epoch, expected_version=0)
    await store.commit(batch("b", retired(job(1)), job(1)), epoch=epoch, expected_version=1)
    assert (await store.load()).records == (job(1),)


async def test_other_records_that_retire_are_gone(store: Store) -> None:
    epoch = await store.acquire("me")
    gone = (lease(), node(), key(), request())
    await store.commit(batch("a", *gone), epoch=epoch, expected_version=0)
    await store.commit(
        batch("b", *(retired(record) for record in gone)), epoch=epoch, expected_version=1
    )
    assert (await store.load()).records == ()


async def test_retiring_what_is_not_there_is_harmless(store: Store) -> None:
    epoch = await store.acquire("me")
    nobody = [Retired(kind=kind, id="nobody", at_ms=1) for kind in Kind]
    assert await store.commit(batch("a", *nobody), epoch=epoch, expected_version=0) == 1


async def test_a_document_is_written_once_and_is_not_loaded(store: Store) -> None:
    epoch = await store.acquire("me")
    first, second = (Documents(bodies=(("job_0001", body),)) for body in (b"\x00first", b"second"))
    await store.commit(batch("a", first), epoch=epoch, expected_version=0)
    await store.commit(batch("b", second), epoch=epoch, expected_version=1)
    assert await store.document("job_0001") == b"\x00first"
    assert await store.document("job_0002") is None
    assert await store.documents(["job_0001", "job_0002"]) == {"job_0001": b"\x00first"}
    assert (await store.load()).records == ()


async def test_a_batch_of_a_thousand_jobs_lands_whole(store: Store) -> None:
    epoch = await store.acquire("me")
    jobs = [job(number) for number in range(1000)]
    await store.commit(batch("a", *jobs), epoch=epoch, expected_version=0)
    assert (await store.load()).records == tuple(jobs)


async def test_a_closed_store_answers_nothing(store: Store) -> None:
    epoch = await store.acquire("me")
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.commit(batch("a"), epoch=epoch, expected_version=0)
    with pytest.raises(StoreUnavailable):
        await store.load()


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
async def test_asking_again_after_a_failure_of_unknown_effect_lands_the_batch_once(
    store: Store, fault: Fault
) -> None:
    faulty = FaultyStore(store)
    epoch = await store.acquire("me")
    faulty.faults.append(fault)
    one = batch("a", job(1))
    with pytest.raises(StoreUnavailable):
        await faulty.commit(one, epoch=epoch, expected_version=0)
    assert await faulty.commit(one, epoch=epoch, expected_version=0) == 1
    assert (await store.load()).version == 1
    assert len(await store.events()) == 1


async def test_a_commit_that_takes_long_changes_nothing_before_it_lands(store: Store) -> None:
    faulty = FaultyStore(store)
    epoch = await store.acquire("me")
    reached, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        reached.set()
        await go.wait()

    faulty.before_commit = hold
    committing = asyncio.create_task(
        faulty.commit(batch("a", job(1)), epoch=epoch, expected_version=0)
    )
    await reached.wait()
    assert await faulty.job("job_0001") is None
    go.set()
    assert await committing == 1
    assert await faulty.job("job_0001") == job(1)
