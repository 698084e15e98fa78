"""What this node has at hand, as it is told: lists for people, and hashes for placement with the offer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import RpcError

from node_agent.cache.cache import Cache
from node_agent.cache.store import Entry
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.service.reach.keys import image_key, key_of
from scaimind.v1 import mind_coordinator_pb2 as api

ENTRIES_MAX = 500
PINS_MAX = 64
HOLDS_MAX = 256
IMAGES_MAX = 64
REPEAT_S = 60.0
LEAST_S = 1.0  # between two reports
TIMEOUT_S = 10.0

Report = Callable[[agent_pb2.ReportCacheRequest], Awaitable[object]]
Images = Callable[[], Awaitable[Mapping[str, int]]]
log = structlog.get_logger()


class Holdings:
    """Tells what the cache holds whenever that has changed, and now and then."""

    def __init__(
        self, cache: Cache, report: Report, *, node_id: str, images: Images | None = None
    ) -> None:
        """Tells nothing yet; `images` tells the images that the node has, with their bytes."""
        self._images = images
        self.on_change: Callable[[], None] = lambda: None
        """Called when `keys` or the pace that is told have changed."""
        self.keys: dict[str, int] = {}
        """Hashes of what is here, with how many bytes each has, by hash."""
        self.fetch_bytes_per_s = cache.pace.told_bytes_per_s
        """How fast this node fetches; 0 for not known."""
        self._cache = cache
        self._report = report
        self._node_id = node_id
        self._changed = asyncio.Event()
        cache.on_change = cache.pace.on_change = self._changed.set

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._changed.clear()
            await self._keep_pace()
            await self._tell(await self._cache.entries())
            await asyncio.sleep(LEAST_S)
            try:
                async with asyncio.timeout(REPEAT_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _keep_pace(self) -> None:
        try:
            await self._cache.keep_pace()
        except OSError as error:
            log.debug("pace_not_kept", reason=error.strerror)

    async def _tell(self, entries: Sequence[Entry]) -> None:
        # By name: that something was used again is no news to placement.
        images = await self._images() if self._images else {}
        found = [(image_key(name), size) for name, size in islice(images.items(), IMAGES_MAX)]
        found += [(key_of(uri), one.size_bytes) for one in entries for uri in one.uris]
        keys = dict(sorted(found[:HOLDS_MAX]))
        pace = self._cache.pace.told_bytes_per_s
        if (keys, pace) != (self.keys, self.fetch_bytes_per_s):
            self.keys, self.fetch_bytes_per_s = keys, pace
            self.on_change()
        request = agent_pb2.ReportCacheRequest(
            node_id=self._node_id,
            entries=[_held(one) for one in entries[:ENTRIES_MAX]],
            entries_count=len(entries),
            used_bytes=sum(one.size_bytes for one in entries),
            budget_bytes=self._cache.budget_bytes,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._report(request)
        except (RpcError, TimeoutError, OSError) as error:
            log.debug("cache_not_reported", reason=type(error).__name__)


def _held(entry: Entry) -> agent_pb2.HeldData:
    used_at = Timestamp()
    used_at.FromMilliseconds(entry.used_at_ms)
    return agent_pb2.HeldData(
        entry=api.CacheEntry(
            uri=entry.uris[0] if entry.uris else "",
            digest=entry.digest,
            size_bytes=entry.size_bytes,
            last_used_at=used_at,
            pinned_by=entry.pinned_by[:PINS_MAX],
        ),
        tenants=entry.tenants,
    )
