"""A page of 20 at 1,000,000 finished jobs against the same page at 1,000: both stores, every filter.

Each filter is asked in all orders, for the first page and for one from the middle of the history; the row
shows the page whose ratio is worst. Measured is processor time, of the store's code and of Redis together.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import count, product
from pathlib import Path
from typing import Any, NamedTuple

from bench.report import Figure, Row, Target, in_turn, text_table
from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.core.records import Demand, Job, JobStatus, Policy
from coordinator.store.protocol import Batch, JobFilter, Store
from coordinator.store.redis import RedisStore
from coordinator.store.rows import ORDERS, matches
from coordinator.store.sqlite import SqliteStore
from tests.support.redis_server import RedisServer

FEW, MANY = 1_000, 1_000_000
CHUNK = 10_000  # jobs that are made at once
GROUPS = {"SQLite": 10_000, "Redis": 1_000}  # jobs of a commit
SOME = 50  # jobs that the narrow filters find
LIMIT = 20
ROUNDS, CALLS = 3, 4
FIRST_MS, STEP_MS = 1_700_000_000_000, 1_000
MIXED = 0x9E3779B1  # odd; what is multiplied by it looks like chance
POLICY = Policy(max_retries=2)
DEMAND = Demand(device_count=1, memory_bytes=1 << 30)
TENANT, PARENT = "default", f"job_{7:026d}"
ENDS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
QUEUES = ("default", "day", "night", "research")
WORDS = ("tone", "chat", "code", "math", "vision", "speech", "rank", "embed", "judge", "toy")
AT_MOST = Target(2.0, at_most=True)


class Page(NamedTuple):
    """One page of a list."""

    order_by: str
    descending: bool
    is_first: bool


PAGES = tuple(
    Page(order, order == "created_at", first) for order, first in product(ORDERS, (True, False))
)


def rows() -> list[Row]:
    """Fills four stores, then asks them in turns."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory(prefix="redis-") as home,
        RedisServer(Path(home), fsync="no") as server,
        asyncio.Runner() as runner,
        server.client() as client,
    ):
        client.config_set("appendonly", "no")
        stores = {
            amount: (
                Filled("SQLite", SqliteStore(Path(folder) / f"{amount}.db"), amount),
                Filled(
                    "Redis",
                    RedisStore(server.url, Path(folder) / f"{amount}.id", prefix=str(amount)),
                    amount,
                    client=client,
                ),
            )
            for amount in (MANY, FEW)
        }
        for some in stores.values():
            runner.run(_fill(some))
        found = [
            _worst(runner, name, pair)
            for pair in zip(stores[MANY], stores[FEW], strict=True)
            for name in _filters(FEW)
        ]
        for store in (*stores[MANY], *stores[FEW]):
            runner.run(store.close())
    return found


class Filled:
    """A store of so many finished jobs; `client` asks the server what it costs, where there is one."""

    def __init__(self, kind: str, store: Store, amount: int, *, client: Any = None) -> None:
        self.kind, self.amount = kind, amount
        self._store, self._client = store, client
        self._epoch, self._version = 0, 0

    async def open(self) -> None:
        await self._store.open()
        self._epoch = await self._store.acquire("bench", ttl_s=3600.0)

    async def close(self) -> None:
        await self._store.close()

    async def put(self, events: Sequence[Changed]) -> None:
        """By the store's own commits."""
        group = GROUPS[self.kind]
        for first in range(0, len(events), group):
            batch = Batch(id=str(self._version), events=tuple(events[first : first + group]))
            self._version = await self._store.commit(
                batch, epoch=self._epoch, expected_version=self._version
            )

    async def page_ms(self, filters: str, page: Page) -> float:
        """Processor time of a page, in milliseconds."""
        where, after = _question(self.amount, filters, page)
        began_s = self._processor_s()
        for _ in range(CALLS):
            await self._store.list_jobs(where, limit=LIMIT, after=after)
        return (self._processor_s() - began_s) / CALLS * 1000

    def _processor_s(self) -> float:
        used_s = time.process_time()
        if self._client is not None:
            used = self._client.info("cpu")
            used_s += used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"]
        return used_s


async def _fill(stores: Sequence[Filled]) -> None:
    """The same jobs into some stores, side by side."""
    amount = stores[0].amount
    for store in stores:
        await store.open()
    for first in range(0, amount, CHUNK):
        events = [
            Changed(record=_job(number, amount), cause=Reason.FINISHED, actor="core", at_ms=number)
            for number in range(first, min(first + CHUNK, amount))
        ]
        await asyncio.gather(*(store.put(events) for store in stores))


def _filters(amount: int) -> dict[str, JobFilter]:
    """What is asked of a store of so many jobs; most filters find the same share of every store."""
    middle_ms = FIRST_MS + amount * STEP_MS // 2
    all_of_it: dict[str, dict[str, object]] = {
        "no filter": {},
        "one status": {"statuses": ("FAILED",)},
        "two statuses": {"statuses": ("FAILED", "CANCELLED")},
        "a label that all have": {"labels": (("team", "support"),)},
        f"a label that {SOME} have": {"labels": (("sweep", "1"),)},
        "two labels": {"labels": (("team", "support"), ("half", "1"))},
        "a queue": {"queue_name": "night"},
        "a parent": {"parent_job_id": PARENT},
        "created after": {"created_from_ms": middle_ms},
        "created before": {"created_until_ms": middle_ms},
        f"created between, {SOME} jobs": {
            "created_from_ms": middle_ms,
            "created_until_ms": middle_ms + SOME * STEP_MS,
        },
        "name prefix": {"name_prefix": "chat-"},
        "queue, label and status": {
            "queue_name": "night",
            "labels": (("half", "1"),),
            "statuses": ("FAILED",),
        },
        "queue, created after and name prefix": {
            "queue_name": "night",
            "created_from_ms": middle_ms,
            "name_prefix": "c",
        },
    }
    return {
        name: JobFilter(tenant_id=TENANT, **fields)  # type: ignore[arg-type]
        for name, fields in all_of_it.items()
    }


@cache
def _question(amount: int, filters: str, page: Page) -> tuple[JobFilter, tuple[Any, str] | None]:
    """A filter, and after which job its page begins: one that it finds in the middle of the history."""
    where = replace(_filters(amount)[filters], order_by=page.order_by, descending=page.descending)
    if page.is_first:
        return where, None
    jobs = (_job((amount // 2 + number) % amount, amount) for number in count())
    middle = next(job for job in jobs if matches(job, where))
    return where, (ORDERS[page.order_by](middle), middle.job_id)


def _job(number: int, amount: int) -> Job:
    chance = number * MIXED % (1 << 32) >> 4
    labels: tuple[tuple[str, str], ...] = (("half", str(chance % 2)), ("team", "support"))
    if number % 10 == 1:
        labels = (*labels, ("sweep", str(number // 10 % (amount // 10 // SOME))))
    return Job(
        job_id=f"job_{number:026d}",
        sequence=number,
        lineage_id=f"job_{number:026d}",
        tenant_id=TENANT,
        user_id="admin",
        name=f"{WORDS[chance // 2 % 10]}-{chance // 20 % 10_000:04d}",
        labels=labels,
        demand=DEMAND,
        policy=POLICY,
        queue_name=QUEUES[chance // 7 % 4],
        parent_job_id=PARENT if chance // 11 % 10 == 0 else "",
        priority=chance // 13 % 5,
        status=ENDS[chance // 17 % 3],
        reason="FINISHED",
        created_at_ms=FIRST_MS + number * STEP_MS,
        updated_at_ms=FIRST_MS + (number + chance % 1000) * STEP_MS,
    )


def _worst(runner: asyncio.Runner, filters: str, stores: tuple[Filled, Filled]) -> Row:
    """The page that suffers most from the history, of all pages with a filter."""
    pairs = _measured(runner, filters, stores)
    many_ms, few_ms = max(pairs, key=lambda pair: pair[0] / pair[1])
    return Row(
        f"Page of {LIMIT} of {MANY:,} jobs in {stores[0].kind}, {filters}; of {FEW:,} jobs",
        Figure(many_ms, "ms"),
        Figure(few_ms, "ms"),
        AT_MOST,
    )


def _measured(
    runner: asyncio.Runner, filters: str, stores: tuple[Filled, Filled]
) -> Iterator[tuple[float, float]]:
    for page in PAGES:
        asks = [partial(_page_ms, runner, store, filters=filters, page=page) for store in stores]
        many_ms, few_ms = in_turn(asks, rounds=ROUNDS)
        yield many_ms, few_ms


def _page_ms(runner: asyncio.Runner, store: Filled, *, filters: str, page: Page) -> float:
    return float(runner.run(store.page_ms(filters, page)))


if __name__ == "__main__":
    print(text_table(rows()))
