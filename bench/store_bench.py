"""What durability costs: the embedded store and streams, against bare SQLite inserts of the same bytes.

`python -m bench.store_bench` prints the table by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from bench.report import Figure, Row, Target, in_turn, text_table
from coordinator.core.decision import Changed
from coordinator.core.reasons import Reason
from coordinator.core.records import Demand, Documents, Job, JobStatus, Kind, Policy, Request
from coordinator.store.codec import decode, encode
from coordinator.store.protocol import Batch, JobFilter
from coordinator.store.sqlite import SqliteStore
from coordinator.streams.protocol import Append, Source
from coordinator.streams.sqlite import SqliteStreams

ROUNDS = 5
SUBMITS = 300  # of one measure
GROUP = 64
LINES = 500  # of one batch
BATCHES = 200
RANKS = 4
DOCUMENT_BYTES = 700  # a submit of about forty fields
FEW, MANY = 10_000, 200_000


def rows() -> list[Row]:
    """Commits one by one and in groups, appends, first pages, the codec."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        do = runner.run
        return [
            *_commits(Path(folder), do),
            _appends(Path(folder), do),
            *_pages(Path(folder), do),
            *_codec(),
        ]


Do = Callable[[Coroutine[Any, Any, Any]], Any]  # runs something asynchronous to its end


def _job(number: int, **fields: object) -> Job:
    values: dict[str, object] = {
        "job_id": f"job_{number:026d}",
        "sequence": number,
        "lineage_id": f"job_{number:026d}",
        "tenant_id": "default",
        "user_id": "admin",
        "name": "llama-3-8b-support-tone",
        "labels": (("experiment", "tone-7"), ("team", "support"), ("type", "training")),
        "demand": Demand(device_count=1, memory_bytes=1 << 30),
        "policy": Policy(max_retries=2),
        "status": JobStatus.QUEUED,
        "reason": "WAITING_FOR_CAPACITY",
        "created_at_ms": 1_700_000_000_000 + number,
        "updated_at_ms": 1_700_000_000_000 + number,
    }
    return Job(**(values | fields))  # type: ignore[arg-type]


def _submits(first: int, amount: int) -> Batch:
    """What the core makes of some submits."""
    events: list[Changed] = []
    for number in range(first, first + amount):
        job = _job(number)
        document = Documents(bodies=((job.job_id, b"x" * DOCUMENT_BYTES),))
        request = Request(
            tenant_id="default",
            request_id=f"req_{number:026d}",
            digest="0" * 64,
            expires_at_ms=job.created_at_ms,
            job=job,
        )
        events.extend(
            Changed(record=record, cause=Reason.ACCEPTED, actor="admin", at_ms=job.created_at_ms)
            for record in (job, document, request)
        )
    return Batch(id=f"batch-{first}", events=tuple(events))


class _Store:
    """An open store that a bench commits to."""

    def __init__(self, path: Path, do: Do) -> None:
        self._do = do
        self.store = SqliteStore(path)
        do(self.store.open())
        self._epoch = do(self.store.acquire("bench"))
        self._version = 0
        self._numbers = count(0, 10_000)

    def commits(self, commits: int, amount: int) -> float:
        """Commits so many times so many submits; answers submits per second."""
        first = next(self._numbers)
        batches = [_submits(first + amount * index, amount) for index in range(commits)]
        begun_s = time.perf_counter()
        self._do(self._commit_all(batches))
        return commits * amount / (time.perf_counter() - begun_s)

    async def _commit_all(self, batches: list[Batch]) -> None:
        for batch in batches:
            self._version = await self.store.commit(
                batch, epoch=self._epoch, expected_version=self._version
            )


class _Bare:
    """One table of bodies in a file of its own, as durable, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, body BLOB)")

    def inserts(self, commits: int, bodies: list[bytes], *, of: int) -> float:
        """Inserts the bodies in so many transactions; answers units of work per second."""
        begun_s = time.perf_counter()
        for _ in range(commits):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT INTO rows (body) VALUES (?)", [(body,) for body in bodies]
            )
            self._connection.execute("COMMIT")
        return commits * of / (time.perf_counter() - begun_s)


def _commits(folder: Path, do: Do) -> Iterator[Row]:
    bench, bare = _Store(folder / "commits.db", do), _Bare(folder / "bare-commits.db")
    body = b"".join(
        event.record.bodies[0][1] if isinstance(event.record, Documents) else encode(event.record)
        for event in _submits(0, 1).events
        if isinstance(event, Changed)
    )
    for amount, name in ((1, "one by one"), (GROUP, f"in groups of {GROUP}"), (1000, "by 1,000")):
        commits = max(2, SUBMITS // amount)
        ours, floor = in_turn(
            (
                partial(bench.commits, commits, amount),
                partial(bare.inserts, commits, [body] * amount, of=amount),
            ),
            rounds=ROUNDS,
        )
        yield Row(
            f"Submits into the store, {name}; bare rows of the same bytes",
            Figure(ours, "/s"),
            Figure(floor, "/s"),
        )
    do(bench.store.close())


def _lines(rank: int, number: int) -> Append:
    size = 120
    begin = number * LINES * size
    return Append(
        source=Source(job_id="job", attempt=1, rank=rank, channel=1, node_id="node"),
        begin=begin,
        end=begin + LINES * size,
        texts=[
            f"step {number * LINES + index} loss={index / 7:.6f} lr=0.0003 "
            f"tokens_per_s={index * 7919 % 10007} grad_norm={index / 3:.5f} mem=71.{index}G "
            for index in range(LINES)
        ],
        ends=[begin + size * (index + 1) for index in range(LINES)],
        times_ms=[1_700_000_000_000 + index for index in range(LINES)],
        levels=[2] * LINES,
    )


def _appends(folder: Path, do: Do) -> Row:
    streams, bare = SqliteStreams(folder / "streams.db"), _Bare(folder / "bare-streams.db")
    do(streams.open())
    per_rank = BATCHES // RANKS
    text = "\n".join(_lines(0, 0).texts).encode()
    pushed = [[_lines(rank, number) for number in range(per_rank)] for rank in range(RANKS)]

    async def push(batches: list[Append]) -> None:
        for batch in batches:
            await streams.append([batch])

    async def push_all() -> None:
        await streams.drop("job")
        await asyncio.gather(*(push(batches) for batches in pushed))

    def ours() -> float:
        begun_s = time.perf_counter()
        do(push_all())
        return BATCHES * LINES / (time.perf_counter() - begun_s)

    figure, floor = in_turn(
        (ours, lambda: bare.inserts(per_rank, [text] * RANKS, of=RANKS * LINES)), rounds=ROUNDS
    )
    do(streams.close())
    return Row(
        f"Log lines appended, {LINES} in a batch, {RANKS} ranks; bare rows of the same bytes",
        Figure(figure, "/s"),
        Figure(floor, "/s"),
        Target(150_000, 200_000, of_ratio=False, unit="/s"),
    )


def _pages(folder: Path, do: Do) -> Iterator[Row]:
    stores = [_filled(folder / f"pages-{amount}.db", amount, do=do) for amount in (FEW, MANY)]
    target = Target(10, 4, at_most=True, of_ratio=False, unit="ms")
    for name, where, wanted in (
        ("newest first", _where(), target),
        ("of one status by name", _where(statuses=("FAILED",), order_by="name"), target),
        ("with a label that all have", _where(labels=(("team", "support"),)), None),
    ):
        few, many = in_turn([partial(_page_ms, store, where, do=do) for store in stores], rounds=20)
        yield Row(
            f"First page of {MANY:,} jobs, {name}; of {FEW:,}",
            Figure(many, "ms"),
            Figure(few, "ms"),
            wanted,
        )
    for store in stores:
        do(store.close())


def _where(**fields: object) -> JobFilter:
    return JobFilter(tenant_id="default", **fields)  # type: ignore[arg-type]


def finished(numbers: range, amount: int) -> tuple[Changed, ...]:
    """Jobs of all kinds of ends; `amount` is how many there will be in all."""
    ends = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
    return tuple(
        Changed(
            record=_job(number, status=ends[number % 3], name=f"job {number * 7919 % amount}"),
            cause=Reason.FINISHED,
            actor="core",
            at_ms=number,
        )
        for number in numbers
    )


def _filled(path: Path, amount: int, *, do: Do) -> SqliteStore:
    """A store of finished jobs of all kinds of ends."""

    async def fill() -> SqliteStore:
        store = SqliteStore(path)
        await store.open()
        epoch = await store.acquire("bench")
        for version, first in enumerate(range(0, amount, 1000)):
            batch = Batch(id=str(version), events=finished(range(first, first + 1000), amount))
            await store.commit(batch, epoch=epoch, expected_version=version)
        return store

    store: SqliteStore = do(fill())
    return store


def _page_ms(store: SqliteStore, where: JobFilter, *, do: Do) -> float:
    begun_s = time.perf_counter()
    page = do(store.list_jobs(where, limit=20))
    assert len(page.jobs) == 20
    return (time.perf_counter() - begun_s) * 1000


def _codec() -> Iterator[Row]:
    job = _job(1)
    body = encode(job)
    repeats = 2000
    for name, work in (
        ("encoded", lambda: encode(job)),
        ("decoded", lambda: decode(Kind.JOB, body)),
    ):

        def measure(work: Callable[[], object] = work) -> float:
            begun_s = time.perf_counter()
            for _ in range(repeats):
                work()
            return (time.perf_counter() - begun_s) / repeats * 1e6

        (value,) = in_turn([measure], rounds=ROUNDS)
        yield Row(
            f"A job record {name}",
            Figure(value, "µs"),
            None,
            Target(10, at_most=True, of_ratio=False, unit="µs"),
        )


if __name__ == "__main__":
    print(text_table(rows()))
