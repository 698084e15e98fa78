"""Methods about data: checking sources, and what the nodes' caches hold."""

from __future__ import annotations

from coordinator.core.reasons import Reason
from coordinator.data.checker import Busy, Checker
from coordinator.data.terms import Finding, Source
from coordinator.rpc.border import RETRY_AFTER_S, Call
from coordinator.rpc.fetching import Fetching
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.view import View
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api

ENTRIES_MAX = 5_000  # of one answer


class DataMethods:
    """Validate and cache."""

    def __init__(self, view: View, checker: Checker, fetching: Fetching) -> None:
        self._fetching = fetching
        self._view = view
        self._checker = checker

    async def ValidateData(
        self, request: api.ValidateDataRequest, call: Call
    ) -> api.ValidateDataResponse:
        """Whether each source can be reached and parsed, with the caller's own tokens."""
        try:
            findings = await self._checker.check(
                [_source(one) for one in request.sources],
                tenant_id=call.identity.tenant_id,
                tokens=call.tokens,
            )
        except Busy:
            raise Refusal(
                Reason.OVERLOADED, "too many checks at once", retry_after_s=RETRY_AFTER_S
            ) from None
        return api.ValidateDataResponse(
            valid=all(one.reachable and one.parseable for one in findings),
            results=[
                _result(source.path, finding)
                for source, finding in zip(request.sources, findings, strict=True)
            ],
        )

    async def GetDataCache(
        self, request: api.GetDataCacheRequest, call: Call
    ) -> api.GetDataCacheResponse:
        """What nodes report of their caches: to a tenant what its own jobs have read, to operators all."""
        if request.node_id and request.node_id not in self._view.nodes:
            raise Refusal(
                Reason.NODE_NOT_FOUND,
                f"there is no node {request.node_id}",
                facts=(("node_id", request.node_id),),
            )
        nodes = [request.node_id] if request.node_id else sorted(self._view.nodes)
        answer = api.GetDataCacheResponse()
        for node_id in nodes:
            told = self._fetching.cache(node_id)
            answer.entries_count += told.entries_count
            answer.total_bytes += told.used_bytes
            view = answer.nodes.add(
                node_id=node_id, used_bytes=told.used_bytes, budget_bytes=told.budget_bytes
            )
            tenant_id = "" if call.identity.is_operator else call.identity.tenant_id
            left = max(0, ENTRIES_MAX - sum(len(one.entries) for one in answer.nodes))
            for entry in self._fetching.entries(node_id, tenant_id=tenant_id)[:left]:
                shown = view.entries.add()
                shown.CopyFrom(entry)
                del shown.pinned_by[:]
                shown.pinned_by.extend(one for one in entry.pinned_by if self._shown(one, call))
        return answer

    def _shown(self, job_id: str, call: Call) -> bool:
        job = self._view.job(job_id)
        known = job is not None and job.tenant_id == call.identity.tenant_id
        return known or call.identity.is_operator


def _source(message: job_pb2.DataSource) -> Source:
    return Source(
        path=message.path,
        type=message.type,
        format=message.format,
        columns=tuple(message.columns),
    )


def _result(path: str, finding: Finding) -> api.DataSourceResult:
    return api.DataSourceResult(
        path=path,
        reachable=finding.reachable,
        parseable=finding.parseable,
        format=finding.format,
        num_samples=finding.num_samples,
        size_bytes=finding.size_bytes,
        error=finding.error,
    )
