"""Methods about the life of a job: pause, resume, retry."""

from __future__ import annotations

from coordinator.core import commands
from coordinator.core.commands import Command
from coordinator.core.decision import Reply
from coordinator.core.reasons import TABLE, Reason
from coordinator.core.records import OnTimeout
from coordinator.rpc import convert
from coordinator.rpc.admit import submit_command
from coordinator.rpc.border import Call
from coordinator.rpc.documents import Documents
from coordinator.rpc.jobs import JobReader, caller_of, new_job_id, note_replay
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.waits import Waits
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api


class LifeMethods:
    """Pause, resume, retry."""

    def __init__(
        self, driver: Driver, *, documents: Documents, reader: JobReader, waits: Waits
    ) -> None:
        self._driver = driver
        self._documents = documents
        self._reader = reader
        self._waits = waits

    async def PauseJob(self, request: api.PauseJobRequest, call: Call) -> job_pb2.Job:
        """Holds a job that waits; stops one that runs once its checkpoint is proven."""
        saves = request.save_checkpoint if request.HasField("save_checkpoint") else True
        choice = request.on_timeout or api.PauseJobRequest.KEEP_RUNNING
        command = commands.PauseJob(
            caller=caller_of(call, request),
            job_id=request.job_id,
            save_checkpoint=saves,
            timeout_ms=request.checkpoint_timeout_seconds * 1000,
            on_timeout=OnTimeout(api.PauseJobRequest.OnTimeout.Name(choice)),
        )
        return await self._act(command, request.job_id, call=call)

    async def ResumeJob(self, request: api.ResumeJobRequest, call: Call) -> job_pb2.Job:
        """Lets a paused job run again, from the newest or a named checkpoint."""
        command = commands.ResumeJob(
            caller=caller_of(call, request),
            job_id=request.job_id,
            checkpoint_id=request.checkpoint_id,
        )
        return await self._act(command, request.job_id, call=call)

    async def RetryJob(self, request: api.RetryJobRequest, call: Call) -> api.RetryJobResponse:
        """Accepts a child of a failed or preempted job."""
        try:
            return await self._retry(request, call)
        except Refusal as refusal:
            raise _in_terms_of(request, refusal) from None

    async def _retry(self, request: api.RetryJobRequest, call: Call) -> api.RetryJobResponse:
        parent = await self._reader.find(request.job_id, call.identity.tenant_id)
        caller = caller_of(call, request)
        child, keeps_image = await self._child_request(request)
        admitted = submit_command(child, caller=caller, job_id=new_job_id())
        command = commands.RetryJob(
            caller=caller,
            job_id=parent.job_id,
            new_job_id=admitted.job_id,
            document=admitted.document,
            demand=admitted.demand,
            policy=admitted.policy,
            checkpoint_id=request.checkpoint_id,
            keeps_image=keeps_image,
            validate_only=request.validate_only,
            parent=parent,
        )
        reply = await self._driver.submit(command)
        note_replay(call, reply)
        job = reply.job
        assert job is not None
        if job.job_id == command.new_job_id and not request.validate_only:
            self._documents.remember({job.job_id: command.document})
        return api.RetryJobResponse(
            job_id="" if request.validate_only else job.job_id,
            status=convert.status_value(job.status),
            message=job.message or TABLE[Reason.ACCEPTED].doc,
            estimated_wait_seconds=(
                None if request.validate_only else self._waits.first_s(job.job_id)
            ),
            parent_job_id=parent.job_id,
        )

    async def _child_request(
        self, request: api.RetryJobRequest
    ) -> tuple[api.SubmitJobRequest, bool]:
        """What the child would have been submitted as, and whether it names the same image.

        It waits for nothing.
        """
        bodies = await self._documents.bodies((request.job_id,))
        child = api.SubmitJobRequest.FromString(bodies.get(request.job_id, b""))
        image = child.resource_config.image
        if request.modify_resources:
            if not request.HasField("new_resource_config"):
                text = "is needed with modify_resources"
                fault = ("new_resource_config", text)
                raise Refusal(
                    Reason.INVALID_ARGUMENT, f"new_resource_config {text}", violations=(fault,)
                )
            child.resource_config.CopyFrom(request.new_resource_config)
        for name in ("depends_on", "start_after", "deadline"):
            child.scheduling_config.ClearField(name)
        return child, child.resource_config.image == image

    async def _act(self, command: Command, job_id: str, *, call: Call) -> job_pb2.Job:
        await self._reader.find(job_id, call.identity.tenant_id)
        reply = await self._decide(command, job_id, call=call)
        note_replay(call, reply)
        assert reply.job is not None
        return await self._documents.message(reply.job)

    async def _decide(self, command: Command, job_id: str, *, call: Call) -> Reply:
        try:
            return await self._driver.submit(command)
        except Refusal as refusal:
            if refusal.reason is not Reason.JOB_NOT_FOUND:
                raise
            # It is history, or became so between the look and the turn of the command.
            job = await self._reader.find(job_id, call.identity.tenant_id)
            text = f"job {job.job_id} is {job.status.value}"
            raise Refusal(Reason.WRONG_STATUS, text) from refusal


def _in_terms_of(request: api.RetryJobRequest, refusal: Refusal) -> Refusal:
    """A fault of the child's resources is one of the field in which the caller gave them."""
    if not request.modify_resources:
        return refusal
    asked = tuple(
        (f"new_{field}" if field.split(".")[0] == "resource_config" else field, text)
        for field, text in refusal.violations
    )
    if asked == refusal.violations:
        return refusal
    message = refusal.message
    if refusal.reason is Reason.INVALID_ARGUMENT:
        message = "; ".join(f"{field}: {text}" for field, text in asked[:5])
    return Refusal(refusal.reason, message, violations=asked, facts=refusal.facts)
