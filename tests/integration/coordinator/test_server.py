"""What any gRPC service must offer: health, reflection, limits, many callers at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator.core.decision import Changed
from coordinator.core.records import Job
from coordinator.store.protocol import Batch
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import Caller, House, a_submit, eventually, open_house

SERVICES = (
    "",
    "scaimind.v1.MindCoordinator",
    "scaimind.v1.KeyService",
    "scaimind.agent.v1.AgentService",
)


async def test_health_tells_of_every_service_without_a_credential(house: House) -> None:
    stub = health_pb2_grpc.HealthStub(house.channel)
    for name in SERVICES:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_tells_when_it_stops(house: House) -> None:
    stub = health_pb2_grpc.HealthStub(house.channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    stopping = asyncio.create_task(house.now.server.stop(0.5))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()
    await stopping


async def test_reflection_lists_the_services(house: House) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(house.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [one async for one in stub.ServerReflectionInfo(iter([request]))]
    names = {one.name for one in answers[0].list_services_response.service}
    assert names >= {name for name in SERVICES if name}


async def test_a_request_id_comes_back_with_a_refusal(house: House) -> None:
    caller = Caller(house.channel, "", x_request_id="req_mine")
    call = caller.start("GetJob", api.GetJobRequest(job_id="job_a"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert "req_mine" in str(caught.value.trailing_metadata())


async def test_a_full_queue_is_refused_and_says_when_to_come_again(tmp_path: Path) -> None:
    async with open_house(tmp_path, "--queue-limit", "1", "--batch-limit", "1") as house:
        calls = [house.admin.start("SubmitJob", a_submit()) for _ in range(50)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in answers if isinstance(one, grpc.aio.AioRpcError)]
        assert refused
        assert {one.code() for one in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        page = await house.admin.call("ListJobs", api.ListJobsRequest())
        assert page.total_count == 50 - len(refused)


async def test_a_cluster_that_is_full_of_waiting_jobs_refuses_more(tmp_path: Path) -> None:
    async with open_house(tmp_path, "--max-live-jobs", "2") as house:
        for _ in range(2):
            await house.admin.submit()
        fault = await house.admin.refused("SubmitJob", a_submit())
        assert (fault.code, fault.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")


async def test_many_submits_at_once_share_commits(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, store = house.now.parts.driver, house.now.parts.store
    before = driver.figures.commits_total
    commit, disk, first = store.commit, asyncio.Event(), set[str]()

    async def slow(batch: Batch, *, epoch: int, expected_version: int) -> int:
        if not disk.is_set():
            records = [one.record for one in batch.events if isinstance(one, Changed)]
            first.update(one.job_id for one in records if isinstance(one, Job))
        await disk.wait()
        return await commit(batch, epoch=epoch, expected_version=expected_version)

    monkeypatch.setattr(store, "commit", slow)
    submits = [asyncio.create_task(house.admin.submit()) for _ in range(300)]
    await eventually(lambda: first and driver.waiting + len(first) == 300)
    disk.set()
    await asyncio.gather(*submits)
    assert driver.figures.commits_total - before < 10
    page = await house.admin.call("ListJobs", api.ListJobsRequest())
    assert page.total_count == 300


async def test_agents_without_news_cost_no_commit(house: House, agent: FakeAgent) -> None:
    figures = house.now.parts.driver.figures
    before = figures.commits_total
    for _ in range(20):
        await agent.sync()
    assert figures.commits_total == before


async def test_a_held_call_that_its_agent_gave_up_leaves_nothing_behind(
    house: House, agent: FakeAgent
) -> None:
    before = len(asyncio.all_tasks())
    view = house.now.parts.driver.view
    calls = [agent.caller.start("Sync", agent.request(hold_ms=60_000)) for _ in range(10)]
    await eventually(lambda: view._watches)
    for call in calls:
        call.cancel()
    await eventually(lambda: not view._watches and len(asyncio.all_tasks()) <= before)


async def test_a_store_in_memory_serves_and_forgets(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_house(tmp_path, "--store", "memory") as house:
            page = await house.admin.call("ListJobs", api.ListJobsRequest())
            assert page.total_count == 0
            await house.admin.submit()
    assert not list(tmp_path.glob("*.db"))


async def test_no_valid_key_is_called_unknown_before_the_state_was_read(house: House) -> None:
    house.now.parts.driver.view.reset((), epoch=0)  # as it is between winning and reading
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.admin.start("GetJob", api.GetJobRequest(job_id="job_a"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
