"""Random batches: a store in memory, one on disk, and the same opened again never differ."""

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.core.decision import Retired
from coordinator.core.records import Documents, JobStatus
from coordinator.store.protocol import Batch, JobFilter, Store
from tests.contract.stores.conftest import homes
from tests.contract.stores.samples import changed, job, key, lease, node, request

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)
SMALL = st.integers(0, 3)
TENANTS = st.sampled_from(["acme", "globex"])
STATUSES = st.sampled_from(list(JobStatus)[:4])
LABELS = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"]), max_size=2).map(
    lambda labels: tuple(sorted(labels.items()))
)
QUEUES = st.sampled_from(["default", "night"])
PARENTS = st.sampled_from(["", "job_0000", "job_0001"])

jobs = st.builds(
    job,
    SMALL,
    tenant_id=TENANTS,
    status=STATUSES,
    name=TEXT,
    message=TEXT,
    priority=SMALL,
    labels=LABELS,
    queue_name=QUEUES,
    parent_job_id=PARENTS,
    sequence=st.integers(0, 2**62),
    created_at_ms=SMALL,
    updated_at_ms=SMALL,
)
nodes = st.builds(node, st.sampled_from(["n1", "n2"]), version=SMALL)
records = st.one_of(
    jobs,
    st.builds(lease, st.sampled_from(["job_0000", "job_0001"]), SMALL),
    nodes,
    st.builds(key, st.sampled_from(["k1", "k2"])),
    st.builds(request, TEXT, job=st.none() | jobs, node=st.none() | nodes),
    st.builds(
        Documents,
        bodies=st.lists(
            st.tuples(st.sampled_from(["job_0000", "job_0001"]), st.binary()), min_size=1
        ).map(tuple),
    ),
)
events = st.one_of(
    records.map(changed),
    records.map(lambda record: Retired(kind=record.kind, id=record.id, at_ms=3)),
)
batches = st.lists(
    st.builds(
        Batch,
        id=st.sampled_from([f"batch-{number}" for number in range(20)]),
        events=st.lists(events, max_size=8).map(tuple),
    ),
    max_size=6,
)
filters = st.builds(
    JobFilter,
    tenant_id=TENANTS,
    statuses=st.lists(STATUSES.map(str), max_size=2).map(tuple),
    labels=LABELS,
    queue_name=st.just("") | QUEUES,
    parent_job_id=PARENTS,
    created_from_ms=st.none() | SMALL,
    created_until_ms=st.none() | SMALL,
    name_prefix=TEXT.map(lambda text: text[:1]),
    order_by=st.sampled_from(["created_at", "updated_at", "name", "priority", "status"]),
    descending=st.booleans(),
)


async def everything(store: Store, wheres: list[JobFilter]) -> list[Any]:
    """All that a store can be asked."""
    answers: list[Any] = [await store.load(), await store.events()]
    for where in wheres:
        after, more = None, True
        while more:
            page = await store.list_jobs(where, limit=2, after=after)
            answers.append(page)
            after, more = page.next_key, page.next_key is not None
    for tenant_id in ("acme", "globex"):
        answers.append(await store.count_jobs(tenant_id))
    for number in range(4):
        answers.append(await store.job(f"job_{number:04d}"))
        answers.append(await store.document(f"job_{number:04d}"))
        answers.append(await store.events(id=f"job_{number:04d}", after=1, limit=3))
    return answers


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches, st.lists(filters, min_size=1, max_size=4))
async def test_all_stores_answer_the_same_after_any_batches(
    some: list[Batch], wheres: list[JobFilter]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kinds = homes(Path(folder))
        answers = []
        for home in kinds.values():
            store = home()
            await store.open()
            epoch, version = await store.acquire("me"), 0
            for one in some:
                version = max(
                    version, await store.commit(one, epoch=epoch, expected_version=version)
                )
            answers.append(await everything(store, wheres))
            await store.close()
            again = home()
            await again.open()
            answers.append(await everything(again, wheres))
            await again.close()
    assert all(answer == answers[0] for answer in answers)
