"""What jobs that wait for this node name, fetched before they start.

The coordinator tells for whom devices of this node are set aside. What these jobs name is brought here one
thing after the other, the oldest job's first, while no lease fetches anything; what is here already stays
longer. All of it is for speed alone: what fails, and what there is no room for, is left to the lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from node_agent.cache.cache import Cache, Wanted
from node_agent.cache.fetcher import CannotFetch
from node_agent.cache.store import User
from node_agent.runtime.protocol import CannotStart
from node_agent.supplies import Images, remote
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

JOBS_MAX = 8

log = structlog.get_logger()


class Ahead:
    """Fetches ahead for the jobs that are expected here."""

    def __init__(self, cache: Cache, *, images: Images | None = None) -> None:
        """Fetches nothing yet; without `images` there are none to be had here."""
        self._cache = cache
        self._images = images
        self._expected: dict[str, agent_pb2.LeaseSpec] = {}
        self._begun: dict[str, None] = {}  # jobs for which something may be kept
        self._changed = asyncio.Event()

    def expect(self, specs: Sequence[agent_pb2.LeaseSpec]) -> None:
        """Takes over which jobs are expected; the others' data is kept for them no more."""
        before, self._expected = self._expected, {}
        for spec in specs[:JOBS_MAX]:
            own = agent_pb2.LeaseSpec()
            own.CopyFrom(spec)
            self._expected[spec.job_id] = before.get(spec.job_id, own)
        if before.keys() != self._expected.keys():
            self._changed.set()

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for job_id, spec in list(self._expected.items()):
                if job_id not in self._begun:
                    self._begun[job_id] = None
                    await self._bring(spec)
            for job_id in [one for one in self._begun if one not in self._expected]:
                del self._begun[job_id]
                await self._cache.release(_owner(job_id))

    async def _bring(self, spec: agent_pb2.LeaseSpec) -> None:
        image = spec.job.resource_config.image
        try:
            if image and self._images is not None:
                await self._images(image)
            for wanted in remote(spec, spec.tokens):
                await self._fetch(wanted, spec)
        except (CannotFetch, CannotStart) as cannot:
            log.info("not_fetched_ahead", job_id=spec.job_id, reason=str(cannot)[:200])

    async def _fetch(self, wanted: Wanted, spec: agent_pb2.LeaseSpec) -> None:
        """Has it here, as often as leases go before, while the job is expected. CannotFetch."""
        user = User(_owner(spec.job_id), spec.job_id, spec.tenant_id, ahead=True)
        while self._expected.get(spec.job_id) is spec:
            getting = asyncio.ensure_future(self._cache.get_ahead(wanted, user=user))
            try:
                await asyncio.wait((getting,))
            finally:
                getting.cancel()
            if not getting.cancelled():
                getting.result()
                return


def _owner(job_id: str) -> str:
    return f"ahead of {job_id}"
