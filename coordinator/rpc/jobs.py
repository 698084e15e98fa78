"""Methods about jobs: submit, read, list, cancel, metrics."""

from __future__ import annotations

import hashlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from coordinator.core import commands
from coordinator.core.commands import Caller
from coordinator.core.decision import Reply
from coordinator.core.reasons import TABLE, Reason
from coordinator.core.records import Job
from coordinator.rpc import convert
from coordinator.rpc.admit import Jobs
from coordinator.rpc.border import Call
from coordinator.rpc.documents import Documents
from coordinator.rpc.fetching import Fetching
from coordinator.rpc.pages import PageTokens
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.telemetry import Telemetry
from coordinator.runtime.view import View
from coordinator.runtime.waits import Waits
from coordinator.store.protocol import JobFilter, Store
from coordinator.streams.protocol import Streams
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api

DEFAULT_PAGE_SIZE = 20
DEFAULT_POINTS = 1000
MAX_POINTS = 10_000
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TIME_SHIFTS = range(40, -1, -5)
RANDOM = 11  # characters
CHARACTERS = (ALPHABET * 8).encode()  # one for each byte

# Ids must differ, not be secret: a job is found by its id only by its tenant.
_random = random.Random(secrets.randbits(256))


def new_job_id() -> str:
    """`job_` and 20 characters: 9 of the time in milliseconds, so that ids sort by age, 11 random."""
    return new_job_ids(1)[0]


def new_job_ids(count: int) -> list[str]:
    """The same of several, in their order: a store takes most kindly to what goes to its end."""
    now_ms = time.time_ns() // 1_000_000
    head = "job_" + "".join(ALPHABET[now_ms >> shift & 31] for shift in TIME_SHIFTS)
    text = _random.randbytes(count * RANDOM).translate(CHARACTERS).decode()
    return sorted(head + text[at : at + RANDOM] for at in range(0, len(text), RANDOM))


def caller_of(call: Call, request: Any) -> Caller:
    """The core's caller. A request id is remembered with a digest of method and body."""
    identity = call.identity
    request_id = getattr(request, "request_id", "")
    return Caller(
        tenant_id=identity.tenant_id,
        user_id=identity.user_id,
        request_id=request_id,
        digest=_digest(request) if request_id else "",
    )


def _digest(request: Message) -> str:
    body = request.SerializeToString(deterministic=True)
    name: str = request.DESCRIPTOR.full_name
    return hashlib.sha256(name.encode() + b"\0" + body).hexdigest()


async def remembered(driver: Driver, caller: Caller) -> Reply | None:
    """The first answer to the request, where it was answered before.

    For methods that judge a request by what may have changed since.

    Raises:
        Refusal: REQUEST_ID_REUSED.
    """
    if not caller.request_id:
        return None
    reply = await driver.submit(commands.Recall(caller=caller))
    return reply if reply.replayed else None


def note_replay(call: Call, reply: Reply) -> None:
    """Lets the caller know that the answer is the remembered one."""
    if reply.replayed:
        call.trailing.append(("x-idempotency-replayed", "true"))


class JobReader:
    """Finds jobs as a tenant may see them."""

    def __init__(self, view: View, stored: Callable[[str], Awaitable[Job | None]]) -> None:
        self._view = view
        self._stored = stored

    async def find(self, job_id: str, tenant_id: str) -> Job:
        """A job of the tenant. Raises Refusal JOB_NOT_FOUND, also for a job of another tenant."""
        job = self._view.job(job_id) or await self._stored(job_id)
        if job is None or job.tenant_id != tenant_id:
            raise Refusal(
                Reason.JOB_NOT_FOUND, f"there is no job {job_id}", facts=(("job_id", job_id),)
            )
        return job


class JobMethods:
    """Submit, get, list, cancel, metrics."""

    def __init__(
        self,
        driver: Driver,
        store: Store,
        streams: Streams,
        *,
        documents: Documents,
        reader: JobReader,
        tokens: PageTokens,
        fetching: Fetching,
        telemetry: Telemetry,
        waits: Waits,
    ) -> None:
        self._waits = waits
        self.admitted = Jobs()
        self._fetching = fetching
        self._telemetry = telemetry
        self._driver = driver
        self._store = store
        self._streams = streams
        self._documents = documents
        self._reader = reader
        self._tokens = tokens

    async def SubmitJob(self, request: api.SubmitJobRequest, call: Call) -> api.SubmitJobResponse:
        """Accepts a job; durable when answered."""
        (seen,) = call.seen
        caller = caller_of(call, request)
        command = self.admitted.command(request, seen, caller=caller, job_id=new_job_id())
        self._fetching.keep((command.job_id,), call.tokens)  # its agents may ask at once
        reply = await self._accept(command)
        note_replay(call, reply)
        job = reply.job
        assert job is not None
        if request.validate_only:
            return api.SubmitJobResponse(
                status=convert.status_value(job.status), message="the job is valid"
            )
        if job.job_id == command.job_id:
            self._documents.remember({job.job_id: command.document})
        return api.SubmitJobResponse(
            job_id=job.job_id,
            status=convert.status_value(job.status),
            message=job.message or TABLE[Reason.ACCEPTED].doc,
            estimated_wait_seconds=self._waits.first_s(job.job_id),
        )

    async def GetJob(self, request: api.GetJobRequest, call: Call) -> job_pb2.Job:
        """The full record of one job."""
        job = await self._reader.find(request.job_id, call.identity.tenant_id)
        return await self._documents.message(job)

    async def ListJobs(self, request: api.ListJobsRequest, call: Call) -> api.ListJobsResponse:
        """A page of the tenant's jobs."""
        where = list_filter(request, call.identity.tenant_id)
        question = repr(where)
        size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
        page = await self._store.list_jobs(
            where, limit=size, after=self._tokens.read(request.page_token, question=question)
        )
        return api.ListJobsResponse(
            jobs=await self._documents.messages(page.jobs),
            next_page_token=self._tokens.make(page.next_key, question=question),
            total_count=page.total_count,
            total_is_least=page.total_is_least,
        )

    async def CancelJob(self, request: api.CancelJobRequest, call: Call) -> job_pb2.Job:
        """Cancels a job that is not final."""
        job = await self._reader.find(request.job_id, call.identity.tenant_id)
        command = commands.CancelJob(
            caller=caller_of(call, request), job_id=request.job_id, reason=request.reason
        )
        live = self._driver.view.jobs.get(request.job_id)
        if live is None and not command.caller.request_id:
            raise Refusal(Reason.WRONG_STATUS, f"job {job.job_id} is {job.status.value}")
        try:
            reply = await self._driver.submit(command)
        except Refusal as refusal:
            if refusal.reason is not Reason.JOB_NOT_FOUND:
                raise
            # It became history between the look and the turn of the command.
            job = await self._reader.find(request.job_id, call.identity.tenant_id)
            text = f"job {job.job_id} is {job.status.value}"
            raise Refusal(Reason.WRONG_STATUS, text) from refusal
        note_replay(call, reply)
        assert reply.job is not None
        return await self._documents.message(reply.job)

    async def GetJobMetrics(
        self, request: api.GetJobMetricsRequest, call: Call
    ) -> api.GetJobMetricsResponse:
        """The job's metrics, down-sampled."""
        job = await self._reader.find(request.job_id, call.identity.tenant_id)
        most = min(request.max_points or DEFAULT_POINTS, MAX_POINTS)
        points, total = await self._streams.sampled(job.job_id, max_points=most)
        return api.GetJobMetricsResponse(
            job_id=job.job_id,
            points=[convert.point_message(point) for point in points],
            total_points=total,
            devices=self._devices(job.job_id),
        )

    def _devices(self, job_id: str) -> list[api.JobDevice]:
        """What the devices that a job holds measured last."""
        found = []
        for lease in self._driver.view.leases_of_job(job_id):
            sample = self._telemetry.newest(lease.node_id)
            for device_id in () if lease.is_ended else lease.device_ids:
                device = api.JobDevice(node_id=lease.node_id, device_id=device_id)
                measured = sample.devices.get(device_id) if sample else None
                if measured is not None:
                    device.telemetry.ParseFromString(measured)
                found.append(device)
        return found

    async def _accept(self, command: commands.SubmitJob) -> Reply:
        try:
            return await self._driver.submit(await self.with_dependencies(command))
        except Refusal as refusal:
            if refusal.reason is not Reason.DEPENDENCY_NOT_FOUND:
                raise
        # A dependency may become history between the look and the turn: one more look finds it.
        return await self._driver.submit(await self.with_dependencies(command))

    async def with_dependencies(self, command: commands.SubmitJob) -> commands.SubmitJob:
        """The command with what the store knows of jobs that it depends on."""
        missing = [one for one in command.policy.depends_on if one not in self._driver.view.jobs]
        if not missing:
            return command
        found: list[tuple[str, str]] = []
        for job_id in missing:
            job = await self._store.job(job_id)
            if job is not None and job.tenant_id == command.caller.tenant_id:
                found.append((job_id, job.status.value))
        return replace(command, finished_dependencies=tuple(found))


def list_filter(request: api.ListJobsRequest, tenant_id: str) -> JobFilter:
    """What a list asks for; equal questions make equal filters."""
    field, _, direction = (request.order_by or "created_at desc").partition(" ")
    return JobFilter(
        tenant_id=tenant_id,
        statuses=tuple(sorted({job_pb2.Job.Status.Name(one) for one in request.status})),
        labels=tuple(sorted({label_of(text) for text in request.label})),
        queue_name=request.queue_name,
        parent_job_id=request.parent_job_id,
        created_from_ms=_bound_ms(request, "created_after"),
        created_until_ms=_bound_ms(request, "created_before"),
        name_prefix=request.name_prefix,
        order_by=field,
        descending=direction == "desc",
    )


def _bound_ms(request: api.ListJobsRequest, field: str) -> int | None:
    """The first millisecond that is not before a time; None where none is given."""
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    moment = getattr(request, field)
    return int(moment.seconds * 1000 + -(-moment.nanos // 1_000_000))


def label_of(text: str) -> tuple[str, str]:
    """A label from `key=value`."""
    key, _, value = text.partition("=")
    return key, value
