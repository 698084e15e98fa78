"""Many submits in one call and one commit."""

from __future__ import annotations

from coordinator.core.commands import SubmitJob, SubmitJobs
from coordinator.core.reasons import TABLE, Reason
from coordinator.core.records import JobStatus, Outcome
from coordinator.rpc import convert
from coordinator.rpc.admit import Jobs, submit_command
from coordinator.rpc.border import Call
from coordinator.rpc.documents import Documents
from coordinator.rpc.errors import cleaned
from coordinator.rpc.fetching import Fetching
from coordinator.rpc.jobs import JobMethods, caller_of, new_job_id, note_replay
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.waits import Waits
from scaimind.v1 import mind_coordinator_pb2 as api


class BatchMethods:
    """BatchSubmitJobs."""

    def __init__(
        self,
        driver: Driver,
        *,
        documents: Documents,
        jobs: JobMethods,
        fetching: Fetching,
        waits: Waits,
    ) -> None:
        self._waits = waits
        self._fetching = fetching
        self._driver = driver
        self._documents = documents
        self._jobs = jobs

    async def BatchSubmitJobs(
        self, request: api.BatchSubmitJobsRequest, call: Call
    ) -> api.BatchSubmitJobsResponse:
        """Judges each job by itself; what is left is decided at once and committed once."""
        alike = Jobs()
        judged = [await self._judge(one, call, alike=alike) for one in request.jobs]
        sent = [one for one in judged if isinstance(one, SubmitJob)]
        if request.atomic and len(sent) < len(judged):
            others = Refusal(Reason.BATCH_REFUSED, "another job of the atomic batch was refused")
            return api.BatchSubmitJobsResponse(
                results=[_refused(one if isinstance(one, Refusal) else others) for one in judged]
            )
        command = SubmitJobs(
            caller=caller_of(call, request), jobs=tuple(sent), atomic=request.atomic
        )
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        waits_s = self._waits.first_all_s([one.job_id for one in reply.outcomes])
        decided = zip(sent, reply.outcomes, waits_s, strict=True)
        return api.BatchSubmitJobsResponse(
            results=[
                _refused(one) if isinstance(one, Refusal) else self._result(*next(decided))
                for one in judged
            ]
        )

    async def _judge(
        self, request: api.SubmitJobRequest, call: Call, *, alike: Jobs
    ) -> SubmitJob | Refusal:
        caller = caller_of(call, request)
        try:
            command = submit_command(request, caller=caller, job_id=new_job_id(), judge=alike.judge)
        except Refusal as refusal:
            return refusal
        self._fetching.keep(command.job_id, call.tokens)
        if command.policy.depends_on:
            command = await self._jobs.with_dependencies(command)
        return command

    def _result(
        self, command: SubmitJob, outcome: Outcome, wait_s: float | None
    ) -> api.BatchResult:
        if outcome.reason:
            violations = ((outcome.field, outcome.message),) if outcome.field else ()
            return _refused(Refusal(Reason(outcome.reason), outcome.message, violations=violations))
        if outcome.job_id == command.job_id and not command.validate_only:
            self._documents.remember(command.job_id, command.document)
        done = api.SubmitJobResponse(
            job_id="" if command.validate_only else outcome.job_id,
            status=convert.status_value(JobStatus(outcome.status)),
            message="the job is valid" if command.validate_only else TABLE[Reason.ACCEPTED].doc,
            estimated_wait_seconds=wait_s,
        )
        return api.BatchResult(job=done)


def _refused(raw: Refusal) -> api.BatchResult:
    return api.BatchResult(error=error_message(raw))


def error_message(raw: Refusal) -> api.BatchError:
    """Why one of many was refused."""
    refusal = cleaned(raw)
    return api.BatchError(
        code=refusal.reason.value,
        message=refusal.message,
        details=[api.FieldError(field=field, message=text) for field, text in refusal.violations],
    )
