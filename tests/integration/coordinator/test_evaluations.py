"""Evaluations as a caller sees them: refused with the field, or a job with a parent and results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, open_house


def asked(job_id: str, *names: str, **fields: Any) -> api.SubmitEvaluationRequest:
    request = api.SubmitEvaluationRequest(job_id=job_id, **fields)
    for name in names or ("perplexity",):
        request.benchmarks.add(name=name, dataset="/data/test.jsonl")
    return request


CHECKPOINT = job_pb2.Checkpoint(
    checkpoint_id="step-5", step=5, uri="file:///checkpoints/step-5", digest="sha256:ab", attempt=1
)


async def running(admin: Caller, agent: FakeAgent) -> tuple[str, str]:
    """A job that runs and has a checkpoint, and its lease."""
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await agent.reports(lease_id, agent_api.RUNNING, checkpoints=[CHECKPOINT])
    return job_id, lease_id


async def completed(admin: Caller, agent: FakeAgent) -> str:
    """A job that is COMPLETED and made a model."""
    job_id, lease_id = await running(admin, agent)
    await ended(agent, lease_id, output_model_uri="file:///model")
    return job_id


async def ended(agent: FakeAgent, lease_id: str, **fields: Any) -> None:
    lease = agent.observe(lease_id, agent_api.ENDED, done=True, **fields)
    lease.ranks[0].exit_code = 0
    await agent.sync()
    await agent.forgets(lease_id)


async def test_an_evaluation_is_a_job_with_a_parent_and_its_results(
    admin: Caller, agent: FakeAgent
) -> None:
    parent_id = await completed(admin, agent)
    request = asked(parent_id, "perplexity", "exact_match", request_id="once")
    answer = await admin.call("SubmitEvaluation", request)
    again = await admin.call("SubmitEvaluation", request)
    assert again.evaluation_id == answer.evaluation_id
    evaluation_id = answer.evaluation_id
    job = await admin.job(evaluation_id)
    assert (job.parent_job_id, job.lineage_id) == (parent_id, evaluation_id)
    assert dict(job.labels) == {"type": "evaluation"}
    paths = [one.path for one in job.data_config.sources]
    assert paths == ["file:///model", "/data/test.jsonl", "/data/test.jsonl"]

    (lease_id,) = await agent.granted()
    spec = agent.specs[lease_id].job.training_config.framework
    assert spec.custom_script_path == "module://scaimind.evaluation"
    await agent.runs(lease_id)
    points = [
        job_pb2.MetricPoint(step=1, values={"perplexity": 3.5, "num_samples": 7}, attempt=1),
        job_pb2.MetricPoint(step=2, values={"exact_match": 0.25, "num_samples": 8}, attempt=1),
    ]
    metrics: dict[str, Any] = {
        "channel": agent_api.EVENTS,
        "metrics": points,
        "metric_ends": [10, 20],
        "end": 20,
    }
    await agent.push(agent.batch(evaluation_id, [], **metrics))
    find = api.GetEvaluationRequest(evaluation_id=evaluation_id)
    assert not (await admin.call("GetEvaluation", find)).results
    await ended(agent, lease_id)
    found = await admin.call("GetEvaluation", find)
    assert (found.job_id, found.status) == (parent_id, job_pb2.Job.COMPLETED)
    assert found.model_uri == "file:///model"
    assert [(one.name, dict(one.scores), one.num_samples) for one in found.results] == [
        ("perplexity", {"perplexity": 3.5}, 7),
        ("exact_match", {"exact_match": 0.25}, 8),
    ]
    page = await admin.call("ListEvaluations", api.ListEvaluationsRequest())
    assert [one.job_id for one in page.jobs] == [evaluation_id]


async def test_results_are_there_after_a_restart(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        agent = FakeAgent(house.agents)
        await agent.sync()
        parent_id = await completed(house.admin, agent)
        answer = await house.admin.call("SubmitEvaluation", asked(parent_id))
        (lease_id,) = await agent.granted()
        await agent.runs(lease_id)
        points = [job_pb2.MetricPoint(step=1, values={"perplexity": 2.0}, attempt=1)]
        metrics: dict[str, Any] = {"channel": agent_api.EVENTS, "metrics": points, "end": 9}
        await agent.push(agent.batch(answer.evaluation_id, [], metric_ends=[9], **metrics))
        await ended(agent, lease_id)
    async with open_house(tmp_path) as house:
        find = api.GetEvaluationRequest(evaluation_id=answer.evaluation_id)
        found = await house.admin.call("GetEvaluation", find)
    assert found.job_id == parent_id
    assert [dict(one.scores) for one in found.results] == [{"perplexity": 2.0}]


async def test_a_job_that_is_not_completed_is_evaluated_by_a_checkpoint_only(
    admin: Caller, agent: FakeAgent
) -> None:
    job_id, _ = await running(admin, agent)
    fault = await admin.refused("SubmitEvaluation", asked(job_id))
    assert fault.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "TRAINING" in fault.text
    fault = await admin.refused("SubmitEvaluation", asked(job_id, checkpoint_id="step-6"))
    assert (fault.reason, fault.fields) == ("INVALID_ARGUMENT", ("checkpoint_id",))
    answer = await admin.call("SubmitEvaluation", asked(job_id, checkpoint_id="step-5"))
    find = api.GetEvaluationRequest(evaluation_id=answer.evaluation_id)
    assert (await admin.call("GetEvaluation", find)).model_uri == CHECKPOINT.uri


async def test_bad_benchmarks_are_named_with_the_known_ones(
    admin: Caller, agent: FakeAgent
) -> None:
    job_id = await completed(admin, agent)
    request = asked(job_id, "perplexity", "mmlu")
    request.benchmarks.add(name="exact_match")
    fault = await admin.refused("SubmitEvaluation", request)
    assert fault.reason == "INVALID_ARGUMENT"
    assert fault.fields == ("benchmarks[1].name", "benchmarks[2].dataset")
    assert "exact_match, perplexity, token_accuracy" in fault.text


async def test_another_tenants_job_and_a_job_that_is_no_evaluation_are_not_found(
    house: House, admin: Caller, agent: FakeAgent
) -> None:
    job_id = await completed(admin, agent)
    rival = await house.caller("rival")
    assert (await rival.refused("SubmitEvaluation", asked(job_id))).reason == "JOB_NOT_FOUND"
    find = api.GetEvaluationRequest(evaluation_id=job_id)
    assert (await admin.refused("GetEvaluation", find)).reason == "JOB_NOT_FOUND"
    answer = await admin.call("SubmitEvaluation", asked(job_id))
    find = api.GetEvaluationRequest(evaluation_id=answer.evaluation_id)
    assert (await rival.refused("GetEvaluation", find)).reason == "JOB_NOT_FOUND"
    assert not (await rival.call("ListEvaluations", api.ListEvaluationsRequest())).jobs


@pytest.mark.parametrize(
    ("permission", "may_submit", "may_read"),
    [("VIEW", False, True), ("EVALUATE", True, True), ("MANAGE", False, False)],
)
async def test_who_may_submit_and_read_evaluations(
    house: House, permission: str, *, may_submit: bool, may_read: bool
) -> None:
    caller = await house.caller("acme", permission)
    denied = "AUTHZ_PERMISSION_DENIED"
    fault = await caller.refused("SubmitEvaluation", asked("job_none"))
    assert (fault.reason != denied) is may_submit
    find = api.GetEvaluationRequest(evaluation_id="job_none")
    assert ((await caller.refused("GetEvaluation", find)).reason != denied) is may_read


async def test_a_repeated_request_is_answered_again_when_its_checkpoint_is_gone(
    admin: Caller, agent: FakeAgent
) -> None:
    job_id, lease_id = await running(admin, agent)
    request = asked(job_id, checkpoint_id="step-5")
    request.request_id = "r1"
    first = await admin.call("SubmitEvaluation", request)
    agent.observed[lease_id].ClearField("checkpoints")
    await agent.sync()
    assert not (await admin.job(job_id)).checkpoints
    call = admin.start("SubmitEvaluation", request)
    assert (await call).evaluation_id == first.evaluation_id
    assert ("x-idempotency-replayed", "true") in tuple(await call.trailing_metadata())
    request.benchmarks.add(name="token_accuracy", dataset="/x")
    assert (await admin.refused("SubmitEvaluation", request)).reason == "REQUEST_ID_REUSED"
    request.request_id = "r2"
    assert (await admin.refused("SubmitEvaluation", request)).reason == "INVALID_ARGUMENT"
