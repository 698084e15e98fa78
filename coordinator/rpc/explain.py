"""Why a job waits, when it starts, what would make it start sooner; why it was preempted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from coordinator.core.reasons import Reason
from coordinator.core.records import WHOLE, Ruling
from coordinator.core.replay import is_same, spared
from coordinator.forecast.terms import Explained
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.jobs import JobReader
from coordinator.runtime.forecaster import Forecaster, Unforeseen
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.rulings import Rulings
from scaimind.v1 import mind_coordinator_pb2 as api

RETRY_AFTER_S = 2.0
MOST_PREEMPTIONS = 100
DECIDED_AGAIN = {True: "SAME", False: "DIFFERENT", None: ""}


class ExplainMethods:
    """ExplainJob."""

    def __init__(self, forecaster: Forecaster, reader: JobReader, rulings: Rulings) -> None:
        self._forecaster = forecaster
        self._rulings = rulings
        self._reader = reader

    async def ExplainJob(
        self, request: api.ExplainJobRequest, call: Call
    ) -> api.ExplainJobResponse:
        """What keeps a job from starting; a job that does not wait is explained by its status."""
        job = await self._reader.find(request.job_id, call.identity.tenant_id)
        answer = api.ExplainJobResponse(job_id=job.job_id, status=convert.status_value(job.status))
        await self._put_preemptions(answer, call)
        if job.is_final:
            return answer
        try:
            found = await self._forecaster.explain(job.job_id)
        except Unforeseen:
            raise Refusal(
                Reason.OVERLOADED,
                "it cannot be explained just now; ask again",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        _put(answer, found)
        told = [one for one in found.after_job_ids if await self._tells(one, call)]
        answer.after_job_ids.extend(told)
        return answer

    async def _put_preemptions(self, answer: api.ExplainJobResponse, call: Call) -> None:
        for ruling in self._rulings.of(answer.job_id)[:MOST_PREEMPTIONS]:
            own = next(one for one in ruling.considered if one.job_id == answer.job_id)
            names = (ruling.job_id, *(one.job_id for one in ruling.considered))
            told = {job_id: await self._tells(job_id, call) for job_id in names if job_id}
            answer.preemptions.add(
                at=convert.timestamp(ruling.at_ms),
                attempt=own.attempt,
                rule=own.rule,
                for_job_id=ruling.job_id if told.get(ruling.job_id) else "",
                for_queue_name=ruling.queue_name if told.get(ruling.job_id) else "",
                for_priority=ruling.priority,
                for_devices=ruling.devices_milli / WHOLE,
                node_ids=ruling.node_ids,
                lost_device_seconds=own.loss_ms / 1000,
                others=_others(ruling, answer.job_id, told),
                others_count=len(ruling.considered) - 1,
                reason=ruling.reason,
                actor=ruling.actor if call.identity.is_operator else "",
                decided_again=DECIDED_AGAIN[is_same(ruling)],
                would_have_stayed=_spared(ruling, answer.job_id, told),
                checkpoint_awaited_until=convert.timestamp(own.awaited_ms),
            )

    async def _tells(self, job_id: str, call: Call) -> bool:
        """Whether the caller may know a job by name."""
        if call.identity.is_operator:
            return True
        try:
            await self._reader.find(job_id, call.identity.tenant_id)
        except Refusal:
            return False
        return True


def _others(ruling: Ruling, job_id: str, told: Mapping[str, bool]) -> Iterator[api.ConsideredJob]:
    for one in ruling.considered:
        if one.job_id != job_id and told[one.job_id]:
            yield api.ConsideredJob(
                job_id=one.job_id,
                attempt=one.attempt,
                rule=one.rule,
                lost_device_seconds=one.loss_ms / 1000,
                preempted=one.goes,
            )


def _spared(ruling: Ruling, job_id: str, told: Mapping[str, bool]) -> Iterator[api.Spared]:
    for one in spared(ruling, job_id):
        names = [name for name in one.instead if told[name]]
        yield api.Spared(change=one.change, instead_job_ids=names, instead_count=len(one.instead))


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
    answer.after_jobs_count = len(found.after_job_ids)
    answer.forecast_age_seconds = found.age_ms / 1000
    answer.untried_changes_count = found.untried
    for one in found.sooner:
        answer.counterfactuals.add(change=one.change, eta_seconds=one.wait_ms / 1000)
