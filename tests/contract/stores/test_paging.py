"""Jobs come, go and change between the pages of a list; the list stays right."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.core.records import Job, JobStatus
from coordinator.store import listing
from coordinator.store.protocol import JobFilter, JobPage, Store
from coordinator.store.rows import ORDERS, matches
from tests.contract.stores.conftest import homes
from tests.contract.stores.samples import batch, job, retired

NUMBERS, SMALL = st.integers(0, 29), st.integers(0, 3)
STATUSES = st.sampled_from([JobStatus.QUEUED, JobStatus.TRAINING, JobStatus.COMPLETED])
NAMES = st.sampled_from(["a", "ab", "b"])
LABELS = st.sampled_from([(), (("x", "1"),), (("x", "1"), ("y", "2"))])
QUEUES = st.sampled_from(["default", "night"])

jobs = st.builds(
    job,
    NUMBERS,
    status=STATUSES,
    name=NAMES,
    priority=SMALL,
    labels=LABELS,
    queue_name=QUEUES,
    created_at_ms=SMALL,
    updated_at_ms=SMALL,
)
filters = st.builds(
    JobFilter,
    tenant_id=st.just("acme"),
    statuses=st.lists(STATUSES.map(str), max_size=2, unique=True).map(tuple),
    labels=LABELS,
    queue_name=st.just("") | QUEUES,
    created_from_ms=st.none() | SMALL,
    created_until_ms=st.none() | SMALL,
    name_prefix=st.sampled_from(["", "a"]),
    order_by=st.sampled_from(list(ORDERS)),
    descending=st.booleans(),
)
changes = st.lists(st.lists(jobs, max_size=4), max_size=6)  # before each of the first pages


@dataclass
class Reading:
    """A reader that turns pages, and what it may rely on."""

    store: Store
    where: JobFilter
    version: int = 0
    epoch: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    steady: set[str] = field(default_factory=set)  # match since the first page, in one place
    shown: list[str] = field(default_factory=list)

    async def put(self, some: list[Job]) -> None:
        """Jobs that come, change, move, or leave memory."""
        gone = [retired(one) for one in some if one.status is JobStatus.COMPLETED]
        name = f"batch-{self.version}"
        self.version = await self.store.commit(
            batch(name, *some, *gone), epoch=self.epoch, expected_version=self.version
        )
        for one in some:
            before = self.jobs.get(one.job_id)
            if before is None or self.place(before) != self.place(one) or not self.is_meant(one):
                self.steady.discard(one.job_id)
            self.jobs[one.job_id] = one

    async def turn(self, after: tuple[str | int, str] | None, limit: int) -> JobPage:
        page = await self.store.list_jobs(self.where, limit=limit, after=after)
        assert all(self.jobs[one.job_id] == one and self.is_meant(one) for one in page.jobs)
        places = [*([] if after is None else [after]), *map(self.place, page.jobs)]
        assert places == sorted(set(places), reverse=self.where.descending)
        meant = sum(map(self.is_meant, self.jobs.values()))
        assert page.total_count == meant or (page.total_is_least and page.total_count < meant)
        self.shown += [one.job_id for one in page.jobs]
        return page

    def is_meant(self, one: Job) -> bool:
        return matches(one, self.where)

    def place(self, one: Job) -> tuple[str | int, str]:
        return ORDERS[self.where.order_by](one), one.job_id


async def read_all(
    store: Store, where: JobFilter, first: list[Job], steps: list[list[Job]], *, limit: int
) -> Reading:
    """Turns all pages, with a commit before each as long as there are some."""
    await store.open()
    reading = Reading(store, where, epoch=await store.acquire("me"))
    await reading.put(first)
    reading.steady = {id for id, one in reading.jobs.items() if reading.is_meant(one)}
    page = await reading.turn(None, limit)
    while page.next_key is not None:
        await reading.put(steps.pop(0) if steps else [])
        page = await reading.turn(page.next_key, limit)
    await store.close()
    return reading


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    filters,
    st.lists(jobs, max_size=25),
    changes,
    st.integers(1, 4),
    st.sampled_from([2, listing.SCANNED_MAX]),
)
async def test_a_list_shows_each_job_that_stays_once_whatever_comes_and_goes(
    where: JobFilter, first: list[Job], steps: list[list[Job]], limit: int, looked: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "SCANNED_MAX", looked)
        for home in homes(Path(folder)).values():
            reading = await read_all(home(), where, first, steps.copy(), limit=limit)
            assert reading.steady <= set(reading.shown)
            assert all(reading.shown.count(id) == 1 for id in reading.steady)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("descending", [False, True])
async def test_long_runs_of_several_statuses_are_looked_through_in_order(
    order: str, descending: bool, tmp_path: Path
) -> None:
    rng = Random(order)
    some = [
        job(
            number,
            status=rng.choice([JobStatus.QUEUED, JobStatus.TRAINING, JobStatus.COMPLETED]),
            name=rng.choice("abc") + "\x00" * rng.randrange(2) + rng.choice(["", "é", "b" * 9]),
            priority=rng.randrange(4),
            labels=rng.choice([(), (("x", "1"),), (("x", "1"), ("y", "2"))]),
            queue_name=rng.choice(["default", "night"]),
            created_at_ms=rng.randrange(1 << 40),
            updated_at_ms=rng.randrange(3),
        )
        for number in range(700)
    ]
    where = JobFilter(
        tenant_id="acme",
        labels=(("x", "1"),),
        queue_name="night",
        name_prefix="a",
        created_from_ms=1 << 38,
        order_by=order,
        descending=descending,
    )
    for home in homes(tmp_path).values():
        reading = await read_all(home(), where, some, [], limit=20)
        assert len(reading.shown) == len(set(reading.shown))
        assert set(reading.shown) == {one.job_id for one in some if reading.is_meant(one)}
