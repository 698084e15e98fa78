"""What users submitted, parsed; the newest few thousand are kept."""

from __future__ import annotations

from collections import OrderedDict

from coordinator.core.records import Job
from coordinator.rpc import convert
from coordinator.rpc.admit import submitted
from coordinator.store.protocol import Store
from coordinator.streams.protocol import Streams
from scaimind.v1 import job_pb2
from scaimind.v1.mind_coordinator_pb2 import SubmitJobRequest

CACHE_SIZE = 4096


class Documents:
    """Reads submitted jobs from the store, and joins them with records and figures."""

    def __init__(self, store: Store, streams: Streams) -> None:
        self._store = store
        self._streams = streams
        self._cache: OrderedDict[str, SubmitJobRequest] = OrderedDict()

    def remember(self, job_id: str, body: bytes) -> None:
        """Keeps what was just submitted, so that its first reader need not ask the store."""
        self._put(job_id, submitted(body))

    async def get(self, job_id: str) -> SubmitJobRequest | None:
        """What was submitted as this job; shared, not to be changed."""
        known = self._cache.get(job_id)
        if known is not None:
            self._cache.move_to_end(job_id)
            return known
        body = await self._store.document(job_id)
        return None if body is None else self._put(job_id, submitted(body))

    async def message(self, job: Job) -> job_pb2.Job:
        """The full public record of one job."""
        latest = await self._streams.latest((job.job_id,))
        return convert.job_message(job, await self.get(job.job_id), latest.get(job.job_id))

    async def messages(self, jobs: tuple[Job, ...]) -> list[job_pb2.Job]:
        """The full public records of some jobs."""
        latest = await self._streams.latest([job.job_id for job in jobs])
        return [
            convert.job_message(job, await self.get(job.job_id), latest.get(job.job_id))
            for job in jobs
        ]

    def _put(self, job_id: str, submit: SubmitJobRequest) -> SubmitJobRequest:
        self._cache[job_id] = submit
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return submit
