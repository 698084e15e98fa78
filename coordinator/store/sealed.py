"""A store that keeps what users submitted sealed: who has only a copy of the store cannot read it.

What was kept before there was a key is read as it is: no document begins with MARK by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from coordinator.core.decision import Changed, Retired
from coordinator.core.records import Documents
from coordinator.store.protocol import Batch, Store, StoreLost

if TYPE_CHECKING:  # who seals nothing loads no cryptography
    from coordinator.store.seal import Seal

MARK = b"\0sealed1"


class Sealed:
    """A store behind a seal; all but documents goes through as it is."""

    def __init__(self, store: Store, seal: Seal) -> None:
        self._store = store
        self._seal = seal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, batch: Batch, *, epoch: int, expected_version: int) -> int:
        """See Store."""
        events = tuple(self._closed(event) for event in batch.events)
        sealed = replace(batch, events=events)
        return await self._store.commit(sealed, epoch=epoch, expected_version=expected_version)

    async def document(self, job_id: str) -> bytes | None:
        """See Store."""
        return (await self.documents((job_id,))).get(job_id)

    async def documents(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        """See Store. Raises StoreLost as well."""
        kept = await self._store.documents(job_ids)
        return {job_id: self._seal.open(job_id, body) for job_id, body in kept.items()}

    def _closed(self, event: Changed | Retired) -> Changed | Retired:
        if not isinstance(event, Changed) or not isinstance(event.record, Documents):
            return event
        close = self._seal.close
        bodies = tuple((job_id, close(job_id, body)) for job_id, body in event.record.bodies)
        return replace(event, record=replace(event.record, bodies=bodies))


async def check_seal(store: Store, job_ids: Iterable[str]) -> None:
    """Looks whether what was submitted can be read, by one of some jobs.

    Raises:
        StoreLost: it cannot; the text says what to do.
    """
    for body in (await store.documents(tuple(islice(job_ids, 1)))).values():
        if body.startswith(MARK):
            raise StoreLost("what was submitted is sealed: name the key's file with seal_key_file")
