"""Methods that change live jobs: one, or all that match."""

from __future__ import annotations

from dataclasses import replace

from coordinator.core import commands
from coordinator.core.commands import Caller
from coordinator.core.reasons import Reason
from coordinator.core.records import FINAL, Job, JobStatus, OnTimeout, Outcome
from coordinator.rpc import convert
from coordinator.rpc.batch import error_message
from coordinator.rpc.border import Call
from coordinator.rpc.documents import Documents
from coordinator.rpc.jobs import JobReader, caller_of, label_of, note_replay, remembered
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.store.protocol import JobFilter, Store
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api

MOST = 1_000
LIVE = tuple(sorted(one.value for one in JobStatus if one not in FINAL))
Act = commands.CancelJob | commands.PauseJob | commands.ResumeJob | commands.UpdateJob


class ChangeMethods:
    """UpdateJob, ActOnJobs."""

    def __init__(
        self, driver: Driver, store: Store, *, documents: Documents, reader: JobReader
    ) -> None:
        self._driver = driver
        self._store = store
        self._documents = documents
        self._reader = reader

    async def UpdateJob(self, request: api.UpdateJobRequest, call: Call) -> job_pb2.Job:
        """Changes what is given of a live job."""
        caller = caller_of(call, request)
        reply = await remembered(self._driver, caller)
        if reply is None:
            job = await self._reader.find(request.job_id, call.identity.tenant_id)
            if job.is_final:
                text = f"the job is {job.status} and cannot be changed"
                raise Refusal(Reason.WRONG_STATUS, text)
            command = replace(
                _update(caller, job.job_id, change=request),
                validate_only=request.validate_only,
            )
            reply = await self._driver.submit(command)
        note_replay(call, reply)
        assert reply.job is not None
        return await self._documents.message(reply.job)

    async def ActOnJobs(self, request: api.ActOnJobsRequest, call: Call) -> api.ActOnJobsResponse:
        """Does one thing to all live jobs that match, in one commit."""
        is_update = request.action == api.ActOnJobsRequest.UPDATE
        if is_update != request.HasField("update"):
            text = (
                "has to be given with action UPDATE"
                if is_update
                else "goes with action UPDATE only"
            )
            fault = ("update", text)
            raise Refusal(Reason.INVALID_ARGUMENT, f"update {text}", violations=(fault,))
        if not (request.label or request.status or request.queue_name or request.name_prefix):
            # a selector that came out empty by mistake must not be all there is
            text = "label, status, queue_name or name_prefix has to be given"
            raise Refusal(Reason.INVALID_ARGUMENT, text, violations=(("label", text),))
        jobs = await self._matching(request, call.identity.tenant_id)
        if request.validate_only:
            outcomes = tuple(Outcome(job_id=one.job_id, status=one.status.value) for one in jobs)
        else:
            caller = caller_of(call, request)
            each = replace(caller, request_id="", digest="")
            acts = tuple(_act(request, one.job_id, caller=each) for one in jobs)
            reply = await self._driver.submit(commands.ActOnJobs(caller=caller, acts=acts))
            note_replay(call, reply)
            tenant_id = call.identity.tenant_id
            outcomes = tuple([await self._settled(one, tenant_id) for one in reply.outcomes])
        return api.ActOnJobsResponse(
            results=[_result(one) for one in outcomes], more=len(outcomes) >= MOST
        )

    async def _settled(self, outcome: Outcome, tenant_id: str) -> Outcome:
        """A job that ended between the look and its turn is not unknown: it cannot be changed any more."""
        if outcome.reason != Reason.JOB_NOT_FOUND:
            return outcome
        job = await self._reader.find(outcome.job_id, tenant_id)
        text = f"job {job.job_id} is {job.status}"
        return replace(
            outcome, status=job.status.value, reason=Reason.WRONG_STATUS.value, message=text
        )

    async def _matching(self, request: api.ActOnJobsRequest, tenant_id: str) -> list[Job]:
        named = {job_pb2.Job.Status.Name(one) for one in request.status}
        where = JobFilter(
            tenant_id=tenant_id,
            statuses=tuple(one for one in LIVE if not named or one in named),
            labels=tuple(sorted({label_of(text) for text in request.label})),
            queue_name=request.queue_name,
            name_prefix=request.name_prefix,
            descending=False,
        )
        found: list[Job] = []
        if not where.statuses:
            return found
        after = None
        while len(found) < MOST:
            page = await self._store.list_jobs(where, limit=MOST - len(found), after=after)
            found += page.jobs
            after = page.next_key
            if after is None:
                break
        return found


def _act(request: api.ActOnJobsRequest, job_id: str, *, caller: Caller) -> Act:
    match request.action:
        case api.ActOnJobsRequest.CANCEL:
            return commands.CancelJob(caller=caller, job_id=job_id)
        case api.ActOnJobsRequest.PAUSE:
            return commands.PauseJob(
                caller=caller, job_id=job_id, on_timeout=OnTimeout.KEEP_RUNNING
            )
        case api.ActOnJobsRequest.RESUME:
            return commands.ResumeJob(caller=caller, job_id=job_id)
        case _:
            return _update(caller, job_id, change=request.update)


def _update(
    caller: Caller, job_id: str, *, change: api.UpdateJobRequest | api.JobChange
) -> commands.UpdateJob:
    limit_s = change.max_runtime_seconds if change.HasField("max_runtime_seconds") else None
    expected_s = (
        change.expected_duration_seconds if change.HasField("expected_duration_seconds") else None
    )
    return commands.UpdateJob(
        caller=caller,
        job_id=job_id,
        priority=change.priority if change.HasField("priority") else None,
        queue_name=change.queue_name if change.HasField("queue_name") else None,
        max_runtime_ms=None if limit_s is None else limit_s * 1000,
        expected_duration_ms=None if expected_s is None else expected_s * 1000,
    )


def _result(outcome: Outcome) -> api.JobOutcome:
    result = api.JobOutcome(job_id=outcome.job_id)
    if outcome.status:  # not of a refusal that was remembered by an older version
        result.status = convert.status_value(JobStatus(outcome.status))
    if outcome.reason:
        refusal = Refusal(Reason(outcome.reason), outcome.message)
        result.error.CopyFrom(error_message(refusal))
    return result
