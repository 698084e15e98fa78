"""What a list may be asked for, and whose its page tokens are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, eventually, open_house
from tests.integration.coordinator.test_evaluations import asked, completed
from tests.integration.coordinator.test_jobs import names_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT
ORDERS = ("created_at", "updated_at", "name", "priority", "status")


def queued_in(name: str) -> dict[str, Any]:
    return {"scheduling_config": {"queue_name": name}}


async def test_jobs_are_filtered_by_queue_name_and_time(house: House, admin: Caller) -> None:
    clock = house.now.parts.clock
    for number in range(6):
        before_ms = clock.now_ms()
        await eventually(lambda: clock.now_ms() > before_ms)  # noqa: B023
        queue = "night" if number % 2 else "day"
        await admin.submit({"name": f"{queue}-{number}", "labels": {"n": "x"}, **queued_in(queue)})
    page = await admin.call("ListJobs", api.ListJobsRequest(order_by="created_at asc"))
    times = [job.created_at for job in page.jobs]
    just_after = Timestamp(seconds=times[2].seconds, nanos=times[2].nanos + 1)
    for asked_for, expected in (
        ({"queue_name": "night"}, [1, 3, 5]),
        ({"queue_name": "night", "label": ["n=x"], "created_after": times[2]}, [3, 5]),
        ({"queue_name": "nobody"}, []),
        ({"name_prefix": "day-"}, [0, 2, 4]),
        ({"name_prefix": "day-", "queue_name": "night"}, []),
        ({"created_after": times[2]}, [2, 3, 4, 5]),
        ({"created_after": just_after}, [3, 4, 5]),
        ({"created_before": times[2]}, [0, 1]),
        ({"created_before": just_after}, [0, 1, 2]),
        ({"created_after": times[1], "created_before": times[4], "name_prefix": "n"}, [1, 3]),
        ({"parent_job_id": "job_nobody"}, []),
    ):
        for order in ORDERS:
            filters: dict[str, Any] = {"page_size": 2, "order_by": f"{order} asc", **asked_for}
            found = await names_of(admin, **filters)
            assert sorted(int(name[-1]) for name in found) == expected
            answer = await admin.call("ListJobs", api.ListJobsRequest(**filters))
            assert (answer.total_count, answer.total_is_least) == (len(expected), False)


async def test_retries_and_evaluations_are_found_by_their_parent(
    admin: Caller, agent: FakeAgent
) -> None:
    parent_id = await completed(admin, agent)
    for _ in range(3):
        request = asked(parent_id, "perplexity", "exact_match")
        last = await admin.call("SubmitEvaluation", request)
    await admin.submit({"name": "other", "labels": {"type": "training"}})
    page = await admin.call("ListJobs", api.ListJobsRequest(parent_job_id=parent_id))
    assert (page.total_count, len(page.jobs)) == (3, 3)
    for filters, expected in (
        ({}, 3),
        ({"parent_job_id": parent_id}, 3),
        ({"parent_job_id": last.evaluation_id}, 0),
        ({"status": [job_pb2.Job.COMPLETED]}, 0),
        ({"label": ["type=training"]}, 0),
        ({"order_by": "name desc", "name_prefix": "evaluation of"}, 3),
        ({"created_after": page.jobs[0].created_at}, 1),
    ):
        answer = await admin.call("ListEvaluations", api.ListEvaluationsRequest(**filters))
        assert answer.total_count == len(answer.jobs) == expected


async def test_a_token_is_its_tenants_own(house: House, admin: Caller) -> None:
    other = await house.caller("other")
    for caller in (admin, admin, other, other):
        await caller.submit()
    page = await admin.call("ListJobs", api.ListJobsRequest(page_size=1))
    request = api.ListJobsRequest(page_size=1, page_token=page.next_page_token)
    fault = await other.refused("ListJobs", request)
    assert (fault.code, fault.reason, fault.fields) == (
        INVALID,
        "INVALID_ARGUMENT",
        ("page_token",),
    )
    assert len((await admin.call("ListJobs", request)).jobs) == 1


async def test_a_token_with_one_wrong_character_is_refused(admin: Caller) -> None:
    for _ in range(2):
        await admin.submit()
    page = await admin.call("ListJobs", api.ListJobsRequest(page_size=1))
    token = page.next_page_token
    for place, character in enumerate(token):
        wrong = token[:place] + ("A" if character != "A" else "B") + token[place + 1 :]
        fault = await admin.refused("ListJobs", api.ListJobsRequest(page_size=1, page_token=wrong))
        assert (fault.code, fault.fields) == (INVALID, ("page_token",))


async def test_a_token_is_good_at_another_coordinator_on_the_same_store(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        for number in range(3):
            await house.admin.submit({"name": f"job {number}"})
        page = await house.admin.call("ListJobs", api.ListJobsRequest(page_size=2))
    secret = tmp_path / "another.secret"
    secret.write_text("another secret of gateways\n")
    async with open_house(tmp_path, "--api-secret-file", str(secret)) as house:
        assert house.now.parts.api_secret == "another secret of gateways"
        request = api.ListJobsRequest(page_size=2, page_token=page.next_page_token)
        rest = await house.admin.call("ListJobs", request)
    assert [job.name for job in (*page.jobs, *rest.jobs)] == ["job 2", "job 1", "job 0"]
    assert rest.next_page_token == ""
