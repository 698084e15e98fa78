"""Many submits in one call and one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from coordinator.core.commands import SubmitJob, SubmitJobs
from coordinator.core.reasons import TABLE, Reason
from coordinator.core.records import JobStatus, Outcome
from coordinator.rpc import convert
from coordinator.rpc.border import Call
from coordinator.rpc.documents import Documents
from coordinator.rpc.errors import MESSAGE_BYTES_MAX, cleaned, cut, told
from coordinator.rpc.fetching import Fetching
from coordinator.rpc.jobs import JobMethods, caller_of, new_job_ids, note_replay
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
        judged = await self._judge_all(request, call)
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
        decided = zip(sent, reply.outcomes, strict=True)
        pairs = [
            (one, Outcome() if isinstance(one, Refusal) else next(decided)[1]) for one in judged
        ]
        return self._answer(pairs)

    async def _judge_all(
        self, request: api.BatchSubmitJobsRequest, call: Call
    ) -> list[SubmitJob | Refusal]:
        """The command of each job, or why there is none."""
        found: list[SubmitJob | Refusal] = []
        nameless = caller_of(call, api.SubmitJobRequest())
        job_ids = new_job_ids(len(request.jobs))
        self._fetching.keep(job_ids, call.tokens)
        for one, seen, job_id in zip(request.jobs, call.seen, job_ids, strict=True):
            if seen.faults:
                found.append(Refusal.of_fields(seen.faults))
                continue
            caller = caller_of(call, one) if one.request_id else nameless
            try:
                command = self._jobs.admitted.command(one, seen, caller=caller, job_id=job_id)
            except Refusal as refusal:
                found.append(refusal)
                continue
            if command.policy.depends_on:
                command = await self._jobs.with_dependencies(command)
            found.append(command)
        return found

    def _answer(
        self, decided: Sequence[tuple[SubmitJob | Refusal, Outcome]]
    ) -> api.BatchSubmitJobsResponse:
        """A result for each job: most are alike but for the id, and are made of the same bytes."""
        waits_s = self._waits.first_all_s([outcome.job_id for _, outcome in decided])
        known: dict[tuple[bool, str, float | None, int], list[bytes]] = {}
        parts: list[bytes] = []
        new: dict[str, bytes] = {}
        for (command, outcome), wait_s in zip(decided, waits_s, strict=True):
            if isinstance(command, Refusal) or outcome.reason:
                parts.append(_bytes(_refused(_refusal(command, outcome))))
                continue
            job_id = "" if command.validate_only else outcome.job_id
            if job_id and job_id == command.job_id:
                new[job_id] = command.document
            what = command.validate_only, outcome.status, wait_s, len(job_id)
            around = known.get(what)
            if around is None:
                result = _bytes(_accepted(*what[:3], id_length=len(job_id)))
                around = result.split(b"\0" * len(job_id), 1) if job_id else [result]
                known[what] = around
            parts.append(job_id.encode().join(around))
        # of use to who reads these jobs, and that is later
        asyncio.get_running_loop().call_soon(self._documents.remember, new)
        return api.BatchSubmitJobsResponse.FromString(b"".join(parts))


def _bytes(result: api.BatchResult) -> bytes:
    """A result as it stands in the answer."""
    return api.BatchSubmitJobsResponse(results=[result]).SerializeToString()


def _accepted(
    is_only_checked: bool, status: str, wait_s: float | None, *, id_length: int
) -> api.BatchResult:
    """What is told of an accepted job, with NUL for each character of its id."""
    job = api.SubmitJobResponse(
        job_id="\0" * id_length,
        status=convert.status_value(JobStatus(status)),
        message="the job is valid" if is_only_checked else TABLE[Reason.ACCEPTED].doc,
        estimated_wait_seconds=wait_s,
    )
    return api.BatchResult(job=job)


def _refusal(command: SubmitJob | Refusal, outcome: Outcome) -> Refusal:
    if isinstance(command, Refusal):
        return command
    violations = ((outcome.field, outcome.message),) if outcome.field else ()
    return Refusal(Reason(outcome.reason), outcome.message, violations=violations)


def _refused(raw: Refusal) -> api.BatchResult:
    return api.BatchResult(error=error_message(raw))


def error_message(raw: Refusal) -> api.BatchError:
    """Why one of many was refused, as a call for it alone would be; a thousand of them fit into an answer."""
    refusal = cleaned(raw)
    return api.BatchError(
        code=refusal.reason.value,
        message=cut(refusal.message, MESSAGE_BYTES_MAX),
        details=[api.FieldError(field=field, message=text) for field, text in told(refusal)],
    )
