"""A store that fails in the ways that real ones do, where the test says so."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum

from coordinator.core.records import Job
from coordinator.store.protocol import (
    LEASE_TTL_S,
    Batch,
    JobFilter,
    JobPage,
    Snapshot,
    Store,
    StoredEvent,
    StoreUnavailable,
    UsageFilter,
    UsageGroup,
)


class Fault(Enum):
    """What becomes of one commit."""

    NONE = "it works"
    BEFORE = "it fails and changes nothing"
    AFTER = "it lands, and failure is reported"


class FaultyStore:
    """A Store around another one.

    Attributes:
        faults: what becomes of the next commits, in order; NONE when empty.
        before_commit: awaited before each commit reaches the inner store: delays, or holds it back.
        loads_fail: whether `load` fails.
    """

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.faults: deque[Fault] = deque()
        self.before_commit: Callable[[], Awaitable[None]] = _nothing
        self.loads_fail = False

    async def commit(self, batch: Batch, *, epoch: int, expected_version: int) -> int:
        await self.before_commit()
        fault = self.faults.popleft() if self.faults else Fault.NONE
        if fault is Fault.BEFORE:
            raise StoreUnavailable("planted: before the commit")
        version = await self._inner.commit(batch, epoch=epoch, expected_version=expected_version)
        if fault is Fault.AFTER:
            raise StoreUnavailable("planted: after the commit")
        return version

    async def load(self) -> Snapshot:
        if self.loads_fail:
            raise StoreUnavailable("planted: load")
        return await self._inner.load()

    async def open(self) -> None:
        await self._inner.open()

    async def close(self) -> None:
        await self._inner.close()

    async def acquire(self, holder: str, *, address: str = "", ttl_s: float = LEASE_TTL_S) -> int:
        return await self._inner.acquire(holder, address=address, ttl_s=ttl_s)

    async def renew(self, epoch: int, *, ttl_s: float = LEASE_TTL_S) -> None:
        await self._inner.renew(epoch, ttl_s=ttl_s)

    async def secret(self) -> bytes:
        return await self._inner.secret()

    async def job(self, job_id: str) -> Job | None:
        return await self._inner.job(job_id)

    async def document(self, job_id: str) -> bytes | None:
        return await self._inner.document(job_id)

    async def documents(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        return await self._inner.documents(job_ids)

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: tuple[str | int, str] | None = None
    ) -> JobPage:
        return await self._inner.list_jobs(where, limit=limit, after=after)

    async def usage(self, where: UsageFilter, *, limit: int) -> tuple[UsageGroup, ...]:
        return await self._inner.usage(where, limit=limit)

    async def count_jobs(self, tenant_id: str) -> dict[str, int]:
        return await self._inner.count_jobs(tenant_id)

    async def events(
        self, *, id: str | None = None, after: int = 0, limit: int = 100
    ) -> tuple[StoredEvent, ...]:
        return await self._inner.events(id=id, after=after, limit=limit)


async def _nothing() -> None:
    await asyncio.sleep(0)
