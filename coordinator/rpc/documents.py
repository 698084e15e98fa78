"""What users submitted, as bytes; the newest of it is kept in memory, bounded by jobs and bytes.

A document is only read as a message once, to make the part of the public record that never changes; and that
is joined with the job's own record once for as long as that stays. A message is copied faster from its bytes
than from another message.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coordinator.core.records import WAITING, Job, JobStatus
from coordinator.core.times import Spent
from coordinator.rpc import convert
from coordinator.rpc.usage import job_usage
from coordinator.store.protocol import Store
from coordinator.streams.protocol import Streams
from scaimind.v1 import job_pb2

CACHE_JOBS = 8192
CACHE_BYTES = 32 * 1024 * 1024


WaitOf = Callable[[Job], float | None]
"""Seconds until a waiting job is expected to start; None where that is not known."""


SpentOf = Callable[[Job], Spent]
"""Device-microseconds of a job up to now."""


def booked(job: Job) -> Spent:
    """Where nobody knows of leases that have not ended."""
    return job.spent


ProgressOf = Callable[[Job], float | None]
"""How much of what a job names is on its nodes, 0 to 100; None where that is not known."""


def unknown_progress(_: Job) -> float | None:
    """Where nobody tells."""
    return None


def unknown_wait(_: Job) -> float | None:
    """Where nobody looks ahead."""
    return None


@dataclass(slots=True)
class _Document:
    body: bytes
    configs: bytes | None = None  # of the public record; made when first asked for
    job: Job | None = None  # as which it was read last,
    record: bytes = b""  # and its public record, but for what changes without it

    @property
    def size(self) -> int:
        return 4 * len(self.body)


class Documents:
    """Reads submitted jobs from the store, and joins them with records and figures."""

    def __init__(
        self,
        store: Store,
        streams: Streams,
        wait_s: WaitOf = unknown_wait,
        *,
        spent: SpentOf = booked,
        prepared: ProgressOf = unknown_progress,
    ) -> None:
        self._store = store
        self._spent = spent
        self._prepared = prepared
        self._streams = streams
        self._wait_s = wait_s
        self._cache: OrderedDict[str, _Document] = OrderedDict()
        self._bytes = 0

    def remember(self, bodies: Mapping[str, bytes]) -> None:
        """Keeps what was just submitted, by job, so that its first reader need not ask the store."""
        for job_id, body in bodies.items():
            if job_id not in self._cache:
                document = self._cache[job_id] = _Document(body)
                self._bytes += document.size
        self._forget()

    async def bodies(self, job_ids: Iterable[str]) -> dict[str, bytes]:
        """What was submitted as each of some jobs (a serialised SubmitJobRequest), where it is known."""
        found = await self._find(job_ids)
        return {job_id: document.body for job_id, document in found.items()}

    async def message(self, job: Job) -> job_pb2.Job:
        """The full public record of one job."""
        return (await self.messages((job,)))[0]

    async def messages(self, jobs: Sequence[Job]) -> list[job_pb2.Job]:
        """The full public records of some jobs."""
        job_ids = [job.job_id for job in jobs]
        latest = await self._streams.latest(job_ids)
        documents = await self._find(job_ids)
        messages = [_record(job, documents.get(job.job_id)) for job in jobs]
        for job, message in zip(jobs, messages, strict=True):
            convert.put_latest(message, job, latest.get(job.job_id))
            wait_s = self._wait_s(job) if job.status in WAITING else None
            if wait_s is not None:
                message.estimated_wait_seconds = wait_s
            if job.status is JobStatus.PREPARING:
                message.progress = self._prepared(job) or message.progress
            message.usage.CopyFrom(job_usage(job, self._spent(job)))
        return messages

    async def _find(self, job_ids: Iterable[str]) -> dict[str, _Document]:
        found: dict[str, _Document] = {}
        missing: list[str] = []
        for job_id in job_ids:
            known = self._cache.get(job_id)
            if known is None:
                missing.append(job_id)
            else:
                self._cache.move_to_end(job_id)
                found[job_id] = known
        if missing:
            for job_id, body in (await self._store.documents(missing)).items():
                found[job_id] = self._put(job_id, body)
        return found

    def _put(self, job_id: str, body: bytes) -> _Document:
        before = self._cache.pop(job_id, None)
        document = self._cache[job_id] = before or _Document(body)
        if before is None:
            self._bytes += document.size
        self._forget()
        return document

    def _forget(self) -> None:
        while len(self._cache) > CACHE_JOBS or self._bytes > CACHE_BYTES:
            _, old = self._cache.popitem(last=False)
            self._bytes -= old.size


def _record(job: Job, document: _Document | None) -> job_pb2.Job:
    """The public record of a job, but for what changes without it. Who waits for a job asks often."""
    if document is None:
        return convert.job_message(job, b"")
    if document.job is job:
        return job_pb2.Job.FromString(document.record)
    if document.configs is None:
        document.configs = convert.configs_of(document.body)
    message = convert.job_message(job, document.configs)
    document.job, document.record = job, message.SerializeToString()
    return message
