"""What a store answers about jobs and about what happened."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from coordinator.core.reasons import Reason
from coordinator.core.records import Attempt, Job, JobStatus, LeaseState
from coordinator.store import listing
from coordinator.store.protocol import JobFilter, Store, StoredEvent
from tests.contract.stores.conftest import Home
from tests.contract.stores.samples import (
    DOCUMENT,
    batch,
    changed,
    job,
    lease,
    node,
    request,
    retired,
)

ORDERS = ("created_at", "updated_at", "name", "priority", "status")
STATUSES = list(JobStatus)


def some_jobs() -> list[Job]:
    """Jobs with ties in every order, of two tenants."""
    return [
        job(
            number,
            tenant_id="globex" if number % 7 == 0 else "acme",
            status=STATUSES[number % 5],
            priority=number % 3,
            name=f"name-{number % 4}",
            labels=(("shard", str(number % 2)), ("team", "nlp" if number % 3 else "cv")),
            queue_name="night" if number % 4 == 3 else "default",
            parent_job_id=f"job_{number % 5 - 1:04d}" if number % 5 else "",
            created_at_ms=number // 3,
            updated_at_ms=100 - number // 2,
        )
        for number in range(60)
    ]


@pytest.fixture
async def full(store: Store) -> Store:
    epoch = await store.acquire("me")
    jobs = some_jobs()
    history = [retired(one) for one in jobs[::2]]
    await store.commit(batch("a", *jobs, *history), epoch=epoch, expected_version=0)
    return store


async def all_pages(store: Store, where: JobFilter, limit: int) -> list[Job]:
    found: list[Job] = []
    after = None
    while True:
        page = await store.list_jobs(where, limit=limit, after=after)
        found.extend(page.jobs)
        assert len(page.jobs) == limit or page.next_key is None
        if page.next_key is None:
            assert page.total_count == len(found)
            return found
        after = page.next_key


@pytest.mark.parametrize(("order_by", "descending"), list(product(ORDERS, (True, False))))
async def test_pages_in_every_order_give_each_job_once(
    full: Store, order_by: str, descending: bool
) -> None:
    field = {"created_at": "created_at_ms", "updated_at": "updated_at_ms"}.get(order_by, order_by)
    expected = sorted(
        (one for one in some_jobs() if one.tenant_id == "acme"),
        key=lambda one: (getattr(one, field), one.job_id),
        reverse=descending,
    )
    where = JobFilter(tenant_id="acme", order_by=order_by, descending=descending)
    for limit in (1, 7, 100):
        assert await all_pages(full, where, limit) == expected


NLP, ODD = ("team", "nlp"), ("shard", "1")
FILTERS: list[dict[str, Any]] = [
    {},
    {"statuses": ("QUEUED",)},
    {"statuses": ("QUEUED", "PAUSED", "PENDING", "QUEUED")},
    {"statuses": ("COMPLETED",)},
    {"labels": (NLP,)},
    {"labels": (NLP, ODD), "statuses": ("QUEUED", "TRAINING")},
    {"labels": (("team", "nobody"),)},
    {"labels": (("=queue", "night"),), "queue_name": "default"},
    {"queue_name": "night"},
    {"queue_name": "night", "labels": (NLP,), "name_prefix": "name-"},
    {"parent_job_id": "job_0001", "statuses": ("PENDING", "SCHEDULING", "QUEUED")},
    {"parent_job_id": "job_0002", "queue_name": "night"},
    {"created_from_ms": 5},
    {"created_until_ms": 5},
    {"created_from_ms": 5, "created_until_ms": 11, "queue_name": "default"},
    {"created_from_ms": 11, "created_until_ms": 5},
    {"name_prefix": "name-1"},
    {"name_prefix": "name-", "created_from_ms": 12},
    {"name_prefix": "name-2\U0010ffff"},
]


def wanted(where: JobFilter) -> list[Job]:
    """What a list shall show, worked out anew."""
    field = {"created_at": "created_at_ms", "updated_at": "updated_at_ms"}
    order = field.get(where.order_by, where.order_by)
    found = [
        one
        for one in some_jobs()
        if one.tenant_id == where.tenant_id
        and (not where.statuses or one.status in where.statuses)
        and {*where.labels} <= {*one.labels, ("=queue", one.queue_name)}
        and where.queue_name in ("", one.queue_name)
        and where.parent_job_id in ("", one.parent_job_id)
        and (where.created_from_ms is None or one.created_at_ms >= where.created_from_ms)
        and (where.created_until_ms is None or one.created_at_ms < where.created_until_ms)
        and one.name.startswith(where.name_prefix)
    ]
    found.sort(key=lambda one: (getattr(one, order), one.job_id), reverse=where.descending)
    return found


async def test_filters_keep_only_what_matches_and_count_it(full: Store) -> None:
    for asked, order_by, descending in product(FILTERS, ORDERS, (True, False)):
        where = JobFilter(tenant_id="acme", order_by=order_by, descending=descending, **asked)
        assert await all_pages(full, where, 4) == wanted(where)


async def test_where_much_must_be_looked_through_each_job_still_comes_once(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED_MAX", 5)
    monkeypatch.setattr(listing, "COUNTED_MAX", 7)
    for asked, order_by in product(FILTERS, ORDERS):
        where = JobFilter(tenant_id="acme", order_by=order_by, **asked)
        found: list[Job] = []
        expected, after, more = wanted(where), None, True
        while more:
            page = await full.list_jobs(where, limit=3, after=after)
            found.extend(page.jobs)
            assert len(page.jobs) <= 3
            assert page.total_count <= len(expected)
            assert page.total_is_least or page.total_count == len(expected)
            after, more = page.next_key, page.next_key is not None
        assert found == expected


async def test_a_label_is_told_from_others_that_are_written_alike(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNTED_MAX", 1)  # so that each job is looked at by itself
    epoch = await store.acquire("me")
    labels = [
        (("a", "1"),), (('x"a', "1"),), (('x,"a', "1"),), (("x", ',"a":"1"'),), (("a", '1"'),),
        (("a", "1\\"),), (("a", "11"),), (("xa", "1"),), (("b", "2"), ("a", "1")), (("\u4e16", "1"),),
    ]  # fmt: skip
    jobs = [job(number, labels=one) for number, one in enumerate(labels)]
    await store.commit(batch("b", *jobs), epoch=epoch, expected_version=0)
    for asked in dict.fromkeys(pair for one in labels for pair in one):
        where = JobFilter(tenant_id="acme", labels=(asked,), order_by="name", name_prefix="t")
        where = replace(where, descending=False)
        found = [one.labels for one in (await store.list_jobs(where, limit=20)).jobs]
        assert found == [one.labels for one in jobs if asked in one.labels], asked


async def test_jobs_that_come_and_go_hide_no_other(full: Store) -> None:
    epoch = await full.acquire("me")
    where = JobFilter(tenant_id="acme", statuses=("QUEUED", "SCHEDULING"), queue_name="default")
    expected = wanted(where)
    first = await full.list_jobs(where, limit=3)
    gone = replace(expected[1], status=JobStatus.CANCELLED, updated_at_ms=900)
    also = replace(expected[5], status=JobStatus.CANCELLED, updated_at_ms=900)
    new = job(61, status=JobStatus.QUEUED, created_at_ms=900, updated_at_ms=900)
    await full.commit(batch("b", gone, also, new), epoch=epoch, expected_version=1)
    rest = await full.list_jobs(where, limit=100, after=first.next_key)
    assert [*first.jobs, *rest.jobs] == [one for one in expected if one.job_id != also.job_id]


async def test_a_store_has_a_secret_that_stays(home: Home) -> None:
    found = []
    for _ in range(2):
        store = home()
        await store.open()
        found.append(await store.secret())
        await store.close()
    assert len(found[0]) == 32
    assert found[0] == found[1]


async def test_a_tenant_without_jobs_has_an_empty_page(full: Store) -> None:
    page = await full.list_jobs(JobFilter(tenant_id="nobody"), limit=10)
    assert (page.jobs, page.next_key, page.total_count) == ((), None, 0)


async def test_an_unknown_order_is_refused(full: Store) -> None:
    where = JobFilter(tenant_id="acme", order_by="job_id; DROP TABLE jobs")
    with pytest.raises(ValueError, match="ordered"):
        await full.list_jobs(where, limit=10)


async def test_jobs_are_counted_by_status(full: Store) -> None:
    expected: dict[str, int] = {}
    for one in some_jobs():
        if one.tenant_id == "acme":
            expected[one.status.value] = expected.get(one.status.value, 0) + 1
    assert await full.count_jobs("acme") == expected
    assert await full.count_jobs("nobody") == {}


async def test_lists_and_counts_follow_a_job_that_changes(full: Store) -> None:
    epoch = await full.acquire("me")
    before = await full.count_jobs("acme")
    moved = job(1, status=JobStatus.CANCELLED, labels=(("team", "rl"),), name="zz")
    await full.commit(batch("b", moved), epoch=epoch, expected_version=1)
    after = await full.count_jobs("acme")
    assert after["CANCELLED"] == 1
    assert sum(after.values()) == sum(before.values())
    by_label = JobFilter(tenant_id="acme", labels=(("team", "rl"),))
    assert await all_pages(full, by_label, 5) == [moved]
    by_name = await full.list_jobs(JobFilter(tenant_id="acme", order_by="name"), limit=1)
    assert by_name.jobs == (moved,)


async def test_hostile_text_is_only_text(store: Store) -> None:
    epoch = await store.acquire("me")
    text = "'); DROP TABLE jobs; -- \" \\ \n\t ünï 🐍 , [ ] { }"
    one = job(1, name=text, tenant_id=text, message=text, labels=((text, text),))
    await store.commit(batch("a", one), epoch=epoch, expected_version=0)
    where = JobFilter(tenant_id=text, labels=((text, text),))
    assert await all_pages(store, where, 5) == [one]
    assert await store.job("job_0001") == one


async def test_the_audit_tells_what_changed_why_and_by_whom(store: Store) -> None:
    epoch = await store.acquire("me")
    placed = job(
        1,
        status=JobStatus.SCHEDULING,
        attempt=Attempt(number=2, shares=(), granted_at_ms=1),
    )
    granted = lease(state=LeaseState.RUNNING, attempt=2)
    await store.commit(
        batch(
            "a",
            changed(placed, cause=Reason.PLACED, at_ms=7),
            changed(granted, cause=Reason.LEASE_GRANTED, at_ms=7),
            request(),
            DOCUMENT,
            node(),
            retired(placed),
        ),
        epoch=epoch,
        expected_version=0,
    )
    lines = await store.events()
    assert [line.sequence for line in lines] == [1, 2, 3, 4]
    assert lines[0] == StoredEvent(
        sequence=1,
        at_ms=7,
        kind="job",
        id="job_0001",
        cause="PLACED",
        actor="ada",
        status="SCHEDULING",
        attempt=2,
    )
    assert [(line.kind, line.cause, line.status, line.attempt) for line in lines[1:]] == [
        ("lease", "LEASE_GRANTED", "RUNNING", 2),
        ("node", "ACCEPTED", "", 0),
        ("job", "RETIRED", "", 0),
    ]


async def test_the_audit_is_read_in_pages_of_one_record_or_of_all(store: Store) -> None:
    epoch = await store.acquire("me")
    for number in range(10):
        await store.commit(
            batch(f"b{number}", job(1), job(2)), epoch=epoch, expected_version=number
        )
    assert [line.sequence for line in await store.events(limit=3)] == [1, 2, 3]
    assert [line.sequence for line in await store.events(after=17)] == [18, 19, 20]
    assert [line.sequence for line in await store.events(id="job_0002", after=3, limit=2)] == [4, 6]
    assert await store.events(id="nobody") == ()
    assert await store.events(limit=0) == ()
