"""Texts that must never get out, planted in every layer: none reaches a caller, over REST or gRPC.

A real coordinator and a gateway before it. What is planted is said by the layer itself: an exception of
the store, a refusal of the core, a fault of a servicer, the words of an agent, a fault of the gateway, a
broken cache. What the token exchange answers is in gateway/test_exchange.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from coordinator.core.decision import Rejected
from coordinator.core.reasons import Reason
from coordinator.runtime.refusal import Refusal
from coordinator.store.protocol import StoreUnavailable
from coordinator.streams.protocol import StreamsUnavailable
from gateway.copies import Copies
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, node_pb2, stream_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.both import World, opened
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import a_submit
from tests.support import jobs

CANARIES = {
    "path": "cannot open /srv/budgie/state.db",
    "sql": "SELECT budgie FROM jobs WHERE id = 1",
    "traceback": 'Traceback (most recent call last):\n  File "budgie.py", line 3, in f',
    "address": "no answer from budgie.internal at 10.9.8.7:6379",
    "token": "the key sgk_budgie_0123456789 is odd",
}
Error = Callable[[str], BaseException]
Patch = pytest.MonkeyPatch


def core_refusal(text: str) -> BaseException:
    facts = (("seen", text), ("status", "QUEUED"))
    rejected = Rejected(reason=Reason.INVALID_ARGUMENT, message=text, field="name", facts=facts)
    return Refusal.of(rejected)


def rpc_refusal(text: str) -> BaseException:
    return Refusal(Reason.WRONG_STATUS, text, violations=((text, text),), retry_after_s=1.0)


UNKNOWN: tuple[Error, ...] = (RuntimeError, KeyError, OSError, sqlite3.OperationalError)
STORE: tuple[Error, ...] = (StoreUnavailable, *UNKNOWN)
STREAMS: tuple[Error, ...] = (StreamsUnavailable, *UNKNOWN)
REFUSALS: tuple[Error, ...] = (core_refusal, rpc_refusal)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with opened(tmp_path) as made:
        yield made


def silent(shown: str) -> None:
    """Nothing of any canary is in what a caller got."""
    for part in ("budgie", "SELECT", "Traceback", "10.9.8.7", "/srv"):
        assert part not in shown, shown


async def refused(world: World, name: str, request: Any) -> tuple[grpc.StatusCode, str]:
    """Code and all that a gRPC caller is told, details in their wire form included."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _finished(world.house.admin.start(name, request))
    error = caught.value
    return error.code(), f"{error.details()} {error.trailing_metadata()!r}"


async def _finished(call: Any) -> None:
    if not hasattr(call, "read"):
        await call
        return
    async for _ in call:
        pass


SUBMIT = jobs.body("/train.py")
READS: tuple[tuple[str, Any, str], ...] = (
    ("GetJob", api.GetJobRequest(job_id="job_x"), "/jobs/job_x"),
    ("StreamJobLogs", api.StreamJobLogsRequest(job_id="job_x"), "/jobs/job_x/logs"),
)


def raising(error: Error, text: str) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error(text)

    return fail


@pytest.mark.parametrize("canary", CANARIES)
async def test_what_a_layer_says_when_a_read_fails_stays_inside(
    world: World, monkeypatch: Patch, *, canary: str
) -> None:
    text = CANARIES[canary]
    parts = world.house.now.parts
    planted: list[tuple[object, str, Error]] = [
        (parts.store, "job", error) for error in (*STORE, *REFUSALS)
    ]
    planted += [(parts.driver.view, "job", error) for error in (*UNKNOWN, *REFUSALS)]
    for target, name, error in planted:
        with monkeypatch.context() as patch:
            patch.setattr(target, name, raising(error, text))
            for method, request, path in READS:
                with structlog.testing.capture_logs() as logs:
                    code, told = await refused(world, method, request)
                    answer = await world.rest.get(path)
                silent(told)
                silent(answer.text + repr(answer.headers))
                assert code is not grpc.StatusCode.UNKNOWN
                assert answer.json()["error"]["message"]
                assert "budgie" in repr(logs), "the log knows it"


@pytest.mark.parametrize("canary", CANARIES)
async def test_what_a_layer_says_when_a_change_fails_stays_inside(
    world: World, monkeypatch: Patch, *, canary: str
) -> None:
    text = CANARIES[canary]
    driver = world.house.now.parts.driver
    request = a_submit()
    for error in (*UNKNOWN, *REFUSALS):
        with monkeypatch.context() as patch, structlog.testing.capture_logs():
            patch.setattr(driver, "submit", raising(error, text))
            _, told = await refused(world, "SubmitJob", request)
            answer = await world.rest.post("/jobs", json=SUBMIT)
            batch = await world.rest.post("/jobs/batch", json={"jobs": [SUBMIT]})
            silent(told + answer.text + batch.text)
    with monkeypatch.context() as patch, structlog.testing.capture_logs():
        patch.setattr(world.house.now.parts.store, "commit", raising(StoreUnavailable, text))
        _, told = await refused(world, "SubmitJob", a_submit())
        answer = await world.rest.post("/jobs", json=SUBMIT)
        silent(told + answer.text)


@pytest.mark.parametrize("canary", CANARIES)
async def test_an_unknown_fault_is_internal_with_an_id_that_the_log_knows(
    world: World, monkeypatch: Patch, *, canary: str
) -> None:
    parts = world.house.now.parts
    monkeypatch.setattr(parts.driver.view, "job", raising(RuntimeError, CANARIES[canary]))
    headers = {"x-request-id": "req_canary-hunt"}
    with structlog.testing.capture_logs() as logs:
        answer = await world.rest.get("/jobs/job_x", headers=headers)
        code, told = await refused(world, "GetJob", api.GetJobRequest(job_id="job_x"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "INTERNAL_ERROR")
    assert answer.json()["meta"]["request_id"] == "req_canary-hunt"
    assert code is grpc.StatusCode.INTERNAL
    ids = [entry["request_id"] for entry in logs if entry["event"] == "call_failed"]
    assert ids[0] == "req_canary-hunt"
    assert ids[1] in told


@pytest.mark.parametrize("canary", CANARIES)
async def test_a_stream_that_breaks_says_no_more_than_that(
    world: World, monkeypatch: Patch, *, canary: str
) -> None:
    house, text = world.house, CANARIES[canary]
    agent = FakeAgent(house.agents)
    await agent.sync()
    job_id = await house.admin.submit()
    [lease_id] = await agent.granted()
    await agent.runs(lease_id)
    await agent.says(job_id, "a line")
    request = api.StreamJobLogsRequest(job_id=job_id, tail=-1)
    lines = type(house.now.parts.streams).lines
    for error in STREAMS:
        looks = 0

        async def broken(self: Any, *args: Any, **words: Any) -> Any:
            nonlocal looks
            looks += 1
            if looks > 1:
                raise error(text)  # noqa: B023
            return await lines(self, *args, **words)

        with monkeypatch.context() as patch, structlog.testing.capture_logs():
            patch.setattr(type(house.now.parts.streams), "lines", broken)
            _, told = await refused(world, "StreamJobLogs", request)
            looks = 0
            answer = await world.rest.get(f"/jobs/{job_id}/logs", params={"tail": -1})
        silent(told + answer.text)
        assert 'event: error\ndata: {"error": "stream ended"}' in answer.text
        assert "a line" in answer.text


@pytest.mark.parametrize("canary", CANARIES)
async def test_the_words_of_an_agent_are_cleaned_wherever_rest_shows_them(
    world: World, *, canary: str
) -> None:
    house, text = world.house, CANARIES[canary]
    agent = FakeAgent(house.agents)
    await agent.sync()
    job_id = await house.admin.submit()
    [lease_id] = await agent.granted()
    await agent.runs(lease_id)
    lease = agent.observe(lease_id, agent_api.ENDED)
    lease.error.category = job_pb2.JobError.USER_CODE
    lease.error.message = f"rank 0 failed: {text}"
    lease.error.exit_code = 3
    fault = node_pb2.DeviceFault(code="XID_79", message=text)
    lease.error.telemetry.devices.add(device_id="d0", fault=text, faults=[fault])
    await agent.sync()
    await house.admin.call("DrainNode", api.DrainNodeRequest(node_id="n1", reason=text))
    record = (await house.admin.job(job_id)).error
    assert record.message == f"rank 0 failed: {text}", "gRPC shows a tenant its own job's words"
    job = await world.rest.get(f"/jobs/{job_id}")
    error = job.json()["data"]["error"]
    assert (error["category"], error["exit_code"]) == ("USER_CODE", 3)
    assert error["message"]
    for path in (f"/jobs/{job_id}", "/jobs", "/cluster", "/cluster/nodes", "/cluster/nodes/n1"):
        answer = await world.rest.get(path)
        assert answer.status_code == 200
        silent(answer.text)


@pytest.mark.parametrize("canary", CANARIES)
async def test_a_fault_of_the_gateway_itself_stays_inside(
    world: World, monkeypatch: Patch, *, canary: str
) -> None:
    text = CANARIES[canary]
    for target, name in (
        (world.gateway.authenticator, "identify"),
        (type(world.gateway._services.upstream), "start"),
    ):
        for error in UNKNOWN:
            with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
                patch.setattr(target, name, raising(error, text))
                answer = await world.rest.get("/jobs")
            silent(answer.text)
            assert answer.status_code == 500
            [entry] = [entry for entry in logs if entry["event"] == "gateway_error"]
            assert entry["request_id"] == answer.json()["meta"]["request_id"]


async def test_a_broken_cache_fails_no_read_and_says_nothing(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    copies = Copies(tmp_path / "copies.db")
    (tmp_path / "data").mkdir()
    async with opened(tmp_path / "data", copies=copies) as world:
        for text in CANARIES.values():
            monkeypatch.setattr(copies, "_open", raising(sqlite3.OperationalError, text))
            answer = await world.rest.get("/jobs")
            await copies.flush()
            assert answer.status_code == 200
            silent(answer.text)
        await world.house.now.server.stop(0)
        answer = await world.rest.get("/jobs")
        assert answer.json()["error"]["code"] == "COORDINATOR_UNAVAILABLE"
        silent(answer.text)


def test_only_log_lines_are_shown_as_they_are() -> None:
    """Every text for people that the protos name `message` is cleaned, but a job's own output."""
    from scaimind.v1 import mind_coordinator_pb2, options_pb2

    files = (job_pb2, node_pb2, stream_pb2, mind_coordinator_pb2)
    plain = [
        field.full_name
        for file in files
        for message in file.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.name == "message" and not field.GetOptions().Extensions[options_pb2.prose]
    ]
    assert plain == ["scaimind.v1.LogLine.message"]
