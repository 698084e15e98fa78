"""Methods about evaluations: jobs labelled `type=evaluation`, which the coordinator makes itself.

What was asked for stays in the job's document, as JSON in `framework.config["evaluation"]`, where the
program reads it; so a retry of an evaluation is one as well. Scores come back as its metrics: those of
benchmark n are the last point at step n.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from google.protobuf import json_format

from coordinator.core.decision import Reply
from coordinator.core.reasons import TABLE, Reason
from coordinator.core.records import Job, JobStatus
from coordinator.rpc import convert
from coordinator.rpc.admit import submit_command
from coordinator.rpc.border import Call
from coordinator.rpc.documents import Documents
from coordinator.rpc.jobs import (
    JobMethods,
    JobReader,
    caller_of,
    new_job_id,
    note_replay,
    remembered,
)
from coordinator.runtime.driver import Driver
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.waits import Waits
from coordinator.streams.protocol import Point, Streams
from scaimind.evaluation import registry
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api

LABEL = ("type", "evaluation")
PROGRAM = "module://scaimind.evaluation"
ASKED = "evaluation"
SAMPLES = "num_samples"
POINTS_MAX = 1000  # of one evaluation: one for each of at most 64 benchmarks and attempt
NAME_MAX = 256
ARRIVAL_S, ARRIVAL_LOOKS = 1.0, 5


class EvaluationMethods:
    """Submit, get, list."""

    def __init__(
        self,
        driver: Driver,
        streams: Streams,
        *,
        documents: Documents,
        reader: JobReader,
        jobs: JobMethods,
        waits: Waits,
    ) -> None:
        self._driver = driver
        self._streams = streams
        self._documents = documents
        self._reader = reader
        self._jobs = jobs
        self._waits = waits

    async def SubmitEvaluation(
        self, request: api.SubmitEvaluationRequest, call: Call
    ) -> api.SubmitEvaluationResponse:
        """Queues an evaluation; durable when answered."""
        caller = caller_of(call, request)
        # Its checkpoint may be gone since, or a benchmark be offered no more.
        known = await remembered(self._driver, caller)
        if known is not None:
            return self._submitted(known, call)
        parent = await self._reader.find(request.job_id, call.identity.tenant_id)
        _check_benchmarks(request)
        asked = api.SubmitEvaluationRequest()
        asked.CopyFrom(request)
        asked.ClearField("request_id")
        asked.model_uri = _model_uri(parent, request)
        submit = _submit(asked, parent, await self._documents.message(parent))
        command = submit_command(submit, caller=caller, job_id=new_job_id())
        reply = await self._driver.submit(replace(command, parent_job_id=parent.job_id))
        return self._submitted(reply, call)

    def _submitted(self, reply: Reply, call: Call) -> api.SubmitEvaluationResponse:
        note_replay(call, reply)
        job = reply.job
        assert job is not None
        return api.SubmitEvaluationResponse(
            evaluation_id=job.job_id,
            status=convert.status_value(job.status),
            message=job.message or TABLE[Reason.ACCEPTED].doc,
            estimated_wait_seconds=self._waits.first_s(job.job_id),
        )

    async def GetEvaluation(self, request: api.GetEvaluationRequest, call: Call) -> api.Evaluation:
        """An evaluation, with results once it is COMPLETED."""
        job = await self._reader.find(request.evaluation_id, call.identity.tenant_id)
        if LABEL not in job.labels:
            raise Refusal(
                Reason.JOB_NOT_FOUND,
                f"there is no evaluation {job.job_id}",
                facts=(("evaluation_id", job.job_id),),
            )
        record = await self._documents.message(job)
        asked = _asked(record)
        points: list[Point] = []
        if job.status is JobStatus.COMPLETED:
            points = await self._points(job.job_id, len(asked.benchmarks))
        return api.Evaluation(
            evaluation_id=job.job_id,
            job_id=asked.job_id or job.parent_job_id,
            status=record.status,
            model_uri=asked.model_uri,
            checkpoint_id=asked.checkpoint_id,
            benchmarks=asked.benchmarks,
            results=_results(asked, points),
            error=record.error if record.HasField("error") else None,
            created_at=record.created_at,
            completed_at=record.completed_at if record.HasField("completed_at") else None,
        )

    async def ListEvaluations(
        self, request: api.ListEvaluationsRequest, call: Call
    ) -> api.ListJobsResponse:
        """A page of the tenant's evaluations."""
        asked: dict[str, Any] = {field.name: value for field, value in request.ListFields()}
        where = api.ListJobsRequest(**asked)
        where.label.append("=".join(LABEL))
        return await self._jobs.ListJobs(where, call)

    async def _points(self, job_id: str, count: int) -> list[Point]:
        """The points of an evaluation. The last ones may come a moment later than its end."""
        news = self._streams.subscribe(job_id)
        try:
            for _ in range(ARRIVAL_LOOKS):
                points, _ = await self._streams.sampled(job_id, max_points=POINTS_MAX)
                if len({point.step for point in points}) >= count:
                    break
                if not await news.wait(ARRIVAL_S):
                    break
            return points
        finally:
            news.close()


def _check_benchmarks(request: api.SubmitEvaluationRequest) -> None:
    known = registry.names(registry.BENCHMARKS)
    faults = []
    for number, one in enumerate(request.benchmarks):
        if one.name not in known:
            text = f"is not known; known are {', '.join(known)}"
            faults.append((f"benchmarks[{number}].name", text))
        elif registry.needs_dataset(one.name) and not one.dataset:
            faults.append((f"benchmarks[{number}].dataset", f"is needed by {one.name}"))
    if faults:
        text = "; ".join(f"{field}: {message}" for field, message in faults[:5])
        raise Refusal(Reason.INVALID_ARGUMENT, text, violations=tuple(faults))


def _model_uri(parent: Job, request: api.SubmitEvaluationRequest) -> str:
    """Where the model is. Raises Refusal where the job has none to show."""
    if request.checkpoint_id:
        for one in parent.checkpoints:
            if one.checkpoint_id == request.checkpoint_id:
                return one.uri
        fault = ("checkpoint_id", f"job {parent.job_id} has no such checkpoint")
        raise Refusal(Reason.INVALID_ARGUMENT, ": ".join(fault), violations=(fault,))
    if parent.status is not JobStatus.COMPLETED:
        raise Refusal(
            Reason.WRONG_STATUS,
            f"job {parent.job_id} is {parent.status.value}: name one of its checkpoints, or wait",
            facts=(("status", parent.status.value),),
        )
    uri = request.model_uri or parent.output_model_uri
    if not uri:
        fault = ("model_uri", f"is needed: job {parent.job_id} tells of no model")
        raise Refusal(Reason.INVALID_ARGUMENT, ": ".join(fault), violations=(fault,))
    return uri


def _submit(
    asked: api.SubmitEvaluationRequest, parent: Job, record: job_pb2.Job
) -> api.SubmitJobRequest:
    """The job of an evaluation: one device of the kind that the parent had, one process."""
    paths = [asked.model_uri, *(one.dataset for one in asked.benchmarks if one.dataset)]
    training = job_pb2.TrainingConfig(
        training_type=record.training_config.training_type,
        base_model=job_pb2.BaseModel(model_id=asked.model_uri),
        framework=job_pb2.Framework(
            type=job_pb2.Framework.CUSTOM,
            custom_script_path=PROGRAM,
            config={ASKED: json_format.MessageToJson(asked, preserving_proto_field_name=True)},
        ),
        priority=parent.priority,
    )
    given = record.resource_config
    return api.SubmitJobRequest(
        name=f"evaluation of {parent.name}"[:NAME_MAX],
        training_config=training,
        data_config=job_pb2.DataConfig(sources=[job_pb2.DataSource(path=one) for one in paths]),
        resource_config=job_pb2.ResourceConfig(
            gpu_count=1,
            gpu_type=given.gpu_type,
            gpu_memory_gb=given.gpu_memory_gb,
            node_selector=given.node_selector,
            image=given.image,
        ),
        scheduling_config=job_pb2.SchedulingConfig(queue_name=parent.queue_name),
        labels=dict((LABEL,)),
    )


def _asked(record: job_pb2.Job) -> api.SubmitEvaluationRequest:
    """What was asked for; empty for a job that a user labelled so."""
    text = record.training_config.framework.config.get(ASKED, "")
    asked = api.SubmitEvaluationRequest()
    try:
        json_format.Parse(text or "{}", asked, ignore_unknown_fields=True)
    except json_format.ParseError:
        return api.SubmitEvaluationRequest()
    return asked


def _results(asked: api.SubmitEvaluationRequest, points: list[Point]) -> list[api.BenchmarkResult]:
    newest = {point.step: dict(point.values) for point in points}
    return [
        api.BenchmarkResult(
            name=one.name,
            num_samples=_count(newest[step].pop(SAMPLES, 0.0)),
            scores=newest[step],
        )
        for step, one in enumerate(asked.benchmarks, 1)
        if step in newest
    ]


def _count(value: float) -> int:
    return int(value) if math.isfinite(value) and 0 <= value < 2**53 else 0
