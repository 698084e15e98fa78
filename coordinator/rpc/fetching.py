"""What is known of the data that agents fetch: with whose tokens, how far they are, what they hold.

All of it is in memory, bounded, and lost with the process: tokens are never written down, and the rest is
told again by the agents.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

from coordinator.core.records import Job
from coordinator.runtime.clock import Clock
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1 import node_pb2

JOBS_MAX = 10_000
TOKENS_KEPT_MS = 3_600_000  # they live for minutes
TEXT_MAX = 2048
PINS_MAX = 64
Amounts = tuple[int, int]  # bytes that are there, and bytes in all
_NOTHING = agent_api.ReportCacheRequest()


class Fetching:
    """What one coordinator knows of it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tokens: OrderedDict[str, tuple[int, dict[str, str]]] = OrderedDict()
        self._amounts: dict[str, dict[str, Amounts]] = {}  # node → lease → amounts
        self._caches: dict[str, agent_api.ReportCacheRequest] = {}  # by node

    def keep(self, job_ids: Iterable[str], tokens: Mapping[str, str]) -> None:
        """Keeps the tokens with which jobs were submitted."""
        now_ms = self._clock.now_ms()
        for job_id in job_ids if tokens else ():
            self._tokens[job_id] = now_ms, dict(tokens)
        while self._tokens:
            oldest = next(iter(self._tokens))
            if len(self._tokens) <= JOBS_MAX and self._tokens[oldest][0] > now_ms - TOKENS_KEPT_MS:
                return
            del self._tokens[oldest]

    def tokens(self, job_id: str) -> Mapping[str, str]:
        """The tokens of a job, as far as they are known still."""
        kept = self._tokens.get(job_id)
        if kept is None or kept[0] <= self._clock.now_ms() - TOKENS_KEPT_MS:
            return {}
        return kept[1]

    def hold(self, told: agent_api.ReportCacheRequest, known: Collection[str]) -> None:
        """Takes what a node's cache holds, in place of what it told before.

        What was told by nodes that are not `known` any more is dropped.
        """
        for one in told.entries:
            one.entry.uri = one.entry.uri[:TEXT_MAX]
            one.entry.digest = one.entry.digest[:TEXT_MAX]
            del one.entry.pinned_by[PINS_MAX:]
        self._caches[told.node_id] = told
        for kept in (self._caches, self._amounts):
            if len(kept) > len(known):
                for node_id in kept.keys() - set(known):
                    del kept[node_id]

    def cache(self, node_id: str) -> node_pb2.NodeCache:
        """What a node's cache holds, in sum."""
        told = self._caches.get(node_id, _NOTHING)
        return node_pb2.NodeCache(
            entries_count=told.entries_count,
            used_bytes=told.used_bytes,
            budget_bytes=told.budget_bytes,
        )

    def entries(self, node_id: str, *, tenant_id: str) -> list[api.CacheEntry]:
        """What a node's cache holds that jobs of a tenant have read; "": of all tenants."""
        told = self._caches.get(node_id, _NOTHING)
        return [one.entry for one in told.entries if not tenant_id or tenant_id in one.tenants]

    def prepared(self, node_id: str, leases: Iterable[agent_api.ObservedLease]) -> None:
        """Takes how far a node's leases are, in place of what it told before."""
        told = {
            lease.lease_id: (lease.prepared_bytes, lease.preparing_bytes)
            for lease in leases
            if lease.preparing_bytes > 0
        }
        if told:
            self._amounts[node_id] = told
        else:
            self._amounts.pop(node_id, None)

    def progress(self, job: Job) -> float | None:
        """How much of what a job names is on its nodes, 0 to 100; None where nobody told."""
        if job.attempt is None:
            return None
        own = f"{job.job_id}.{job.attempt.number}."
        found = [
            amounts
            for share in job.attempt.shares
            for lease_id, amounts in self._amounts.get(share.node_id, {}).items()
            if lease_id.startswith(own)
        ]
        total = sum(one for _, one in found)
        return min(100.0, 100.0 * sum(max(0, one) for one, _ in found) / total) if total else None
