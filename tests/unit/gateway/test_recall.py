"""Answers from copies: the same questions as the coordinator takes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from gateway.catalog import BadCatalog, Catalog, Method
from gateway.copies import Copies
from gateway.recall import Recall
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api

CATALOG = Catalog.default()
S = job_pb2.Job.Status


def method(name: str) -> Method:
    return next(one for one in CATALOG.methods if one.name == name)


JOBS, JOB = Recall(method("ListJobs")), Recall(method("GetJob"))
KEPT = [
    job_pb2.Job(job_id="a", name="tiny", status=S.QUEUED, labels={"team": "x"}, priority=1),
    job_pb2.Job(job_id="b", name="large", status=S.TRAINING, labels={"team": "x", "k": "="}),
    job_pb2.Job(job_id="c", name="tiny", status=S.FAILED, priority=9),
]


@pytest.fixture
async def copies(tmp_path: Path) -> AsyncIterator[Copies]:
    """The three jobs, each a second younger than the one before, seen two minutes ago."""
    made = Copies(tmp_path / "copies.db", clock=lambda: time.time() - 120)
    response = method("ListJobs").response_class()
    for number, job in enumerate(KEPT):
        job.created_at.CopyFrom(Timestamp(seconds=1000 + number))
        response.jobs.add().ParseFromString(job.SerializeToString())
    JOBS.keep(made, "acme", response)
    await made.flush()
    yield made
    await made.close()


async def listed(copies: Copies, **asked: Any) -> list[str] | None:
    request = method("ListJobs").request_class(**asked)
    found = await JOBS.answer(copies, "acme", request)
    return None if found is None else [job.job_id for job in found.response.jobs]


async def test_what_may_hold_a_secret_is_not_kept_and_the_answer_itself_is_whole(
    tmp_path: Path,
) -> None:
    made = Copies(tmp_path / "copies.db")
    job = job_pb2.Job(job_id="d")
    job.training_config.environment["TOKEN"] = "canary"
    job.training_config.base_model.model_id = "m"
    response = method("GetJob").response_class.FromString(job.SerializeToString())
    JOB.keep(made, "acme", response)
    await made.flush()
    copy = await made.one("jobs", "acme", "d")
    assert copy is not None
    kept = job_pb2.Job.FromString(copy.body)
    assert kept.training_config.base_model.model_id == "m"
    assert not kept.training_config.environment
    assert response.training_config.environment["TOKEN"] == "canary"
    await made.close()


async def test_lists_are_newest_first_unless_asked_otherwise(copies: Copies) -> None:
    assert await listed(copies) == ["c", "b", "a"]
    assert await listed(copies, order_by="created_at") == ["a", "b", "c"]
    assert await listed(copies, order_by="name asc") == ["b", "a", "c"]
    assert await listed(copies, order_by="priority desc") == ["c", "a", "b"]
    assert await listed(copies, order_by="status") == ["c", "a", "b"]


async def test_lists_can_be_filtered(copies: Copies) -> None:
    assert await listed(copies, status=[S.FAILED, S.TRAINING]) == ["c", "b"]
    assert await listed(copies, label=["team=x"]) == ["b", "a"]
    assert await listed(copies, label=["team=x", "k=="]) == ["b"]
    assert await listed(copies, label=["team=y"]) == []


async def test_lists_are_filtered_by_queue_parent_time_and_name(copies: Copies) -> None:
    more = method("ListJobs").response_class()
    for number in range(4):
        child = more.jobs.add(job_id=f"k{number}", name=f"kid {number}", parent_job_id="a")
        child.queue_name = "night" if number % 2 else "day"
        child.created_at.seconds = 2000 + number
    JOBS.keep(copies, "acme", more)
    await copies.flush()
    assert await listed(copies, queue_name="night") == ["k3", "k1"]
    assert await listed(copies, parent_job_id="a", queue_name="day") == ["k2", "k0"]
    assert await listed(copies, name_prefix="kid ") == ["k3", "k2", "k1", "k0"]
    assert await listed(copies, created_after={"seconds": 2002}) == ["k3", "k2"]
    assert await listed(copies, created_before={"seconds": 1001}) == ["a"]


async def test_evaluations_are_the_copies_with_their_label(copies: Copies) -> None:
    evaluations, one = Recall(method("ListEvaluations")), Recall(method("GetEvaluation"))
    page = method("ListEvaluations").response_class()
    page.jobs.add(job_id="e", name="of tiny", labels={"type": "evaluation"}, parent_job_id="a")
    evaluations.keep(copies, "acme", page)
    one.keep(copies, "acme", api.Evaluation(evaluation_id="e", job_id="a"))
    await copies.flush()
    request = method("ListEvaluations").request_class
    for asked, expected in (({}, ["e"]), ({"parent_job_id": "b"}, []), ({"label": ["k=v"]}, [])):
        found = await evaluations.answer(copies, "acme", request(**asked))
        assert found is not None
        assert [job.job_id for job in found.response.jobs] == expected
    known = await one.answer(copies, "acme", api.GetEvaluationRequest(evaluation_id="e"))
    assert known is not None
    assert known.response.job_id == "a"
    assert await one.answer(copies, "acme", api.GetEvaluationRequest(evaluation_id="a")) is None
    assert "e" in (await listed(copies) or [])


async def test_pages_lead_through_all_that_match(copies: Copies) -> None:
    seen: list[str] = []
    token = ""
    for _ in range(3):
        request = method("ListJobs").request_class(page_size=2, page_token=token)
        found = await JOBS.answer(copies, "acme", request)
        assert found is not None
        assert found.response.total_count == 3
        seen += [job.job_id for job in found.response.jobs]
        token = found.response.next_page_token
        if not token:
            break
    assert seen == ["c", "b", "a"]


async def test_a_token_of_the_coordinator_cannot_be_read_here(copies: Copies) -> None:
    for token in ("eyJhIjoxfQ", "copy.x", "copy.-1", "copy.9999999", "copy."):
        assert await listed(copies, page_token=token) is None
    assert await listed(copies, page_token="copy.2") == ["a"]
    assert await listed(copies, page_token="copy.7") == []


async def test_the_age_is_told(copies: Copies) -> None:
    found = await JOB.answer(copies, "acme", api.GetJobRequest(job_id="b"))
    assert found is not None
    assert found.response.name == "large"
    assert 119 <= found.age_s <= 125


async def test_what_was_not_seen_is_not_answered(copies: Copies) -> None:
    assert await JOB.answer(copies, "acme", api.GetJobRequest(job_id="z")) is None
    assert await JOB.answer(copies, "other", api.GetJobRequest(job_id="a")) is None
    assert await JOBS.answer(copies, "other", method("ListJobs").request_class()) is None


async def test_a_job_that_is_gone_is_forgotten(copies: Copies) -> None:
    JOB.forget(copies, "acme", api.GetJobRequest(job_id="b"))
    await copies.flush()
    assert await listed(copies) == ["c", "a"]


async def test_a_filter_that_is_not_known_here_is_not_answered(copies: Copies) -> None:
    recall = Recall(method("ListJobs"))
    recall._filters.pop("label")
    asked = method("ListJobs").request_class(label=["team=x"])
    assert await recall.answer(copies, "acme", asked) is None


async def test_a_copy_that_cannot_be_read_is_passed_over(copies: Copies) -> None:
    class Odd:
        def SerializeToString(self) -> bytes:
            return b"\xff\xff"

    copies.keep("jobs", "acme", [("b", Odd())])
    await copies.flush()
    assert await listed(copies) == ["c", "a"]


def test_a_method_that_cannot_be_kept_is_refused() -> None:
    for name, key in (("GetJob", "name"), ("GetCluster", "job_id"), ("CancelJob", "job_id")):
        annotated = method(name)
        changed = Method(
            **{field: getattr(annotated, field) for field in Method.__slots__} | {"cache": key}
        )
        with pytest.raises(BadCatalog):
            Recall(changed)
