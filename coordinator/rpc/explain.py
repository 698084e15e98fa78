"""Why a job waits, when it starts, what would make it start sooner."""

from __future__ import annotations

from coordinator.core.reasons import Reason
from coordinator.forecast.terms import Explained
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.jobs import JobReader
from coordinator.runtime.forecaster import Forecaster, Unforeseen
from coordinator.runtime.refusal import Refusal
from scaimind.v1 import mind_coordinator_pb2 as api

RETRY_AFTER_S = 2.0


class ExplainMethods:
    """ExplainJob."""

    def __init__(self, forecaster: Forecaster, reader: JobReader) -> None:
        self._forecaster = forecaster
        self._reader = reader

    async def ExplainJob(
        self, request: api.ExplainJobRequest, call: Call
    ) -> api.ExplainJobResponse:
        """What keeps a job from starting; a job that does not wait is explained by its status."""
        job = await self._reader.find(request.job_id, call.identity.tenant_id)
        answer = api.ExplainJobResponse(job_id=job.job_id, status=convert.status_value(job.status))
        if job.is_final:
            return answer
        try:
            _put(answer, await self._forecaster.explain(job.job_id))
        except Unforeseen:
            raise Refusal(
                Reason.OVERLOADED,
                "it cannot be explained just now; ask again",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        return answer


def _put(answer: api.ExplainJobResponse, found: Explained) -> None:
    explanation = found.explanation
    answer.position = explanation.position
    for blocker in explanation.blockers:
        answer.blockers.add(code=blocker.reason.value, message=blocker.message)
    for verdict in explanation.verdicts:
        answer.nodes.add(
            node_id=verdict.node_id,
            fits=verdict.reason is None,
            code=verdict.reason.value if verdict.reason else "",
            message=verdict.message,
        )
    if found.wait_p50_ms is not None:
        answer.eta_p50_seconds = found.wait_p50_ms / 1000
    if found.wait_p90_ms is not None:
        answer.eta_p90_seconds = found.wait_p90_ms / 1000
    for one in found.sooner:
        answer.counterfactuals.add(change=one.change, eta_seconds=one.wait_ms / 1000)
