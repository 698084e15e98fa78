"""Streams over SSE: framing, resuming, heartbeats, and every way in which one ends."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from gateway.endpoint import Limits
from scaimind.v1 import job_pb2, stream_pb2
from tests.integration.gateway.scripted import (
    ALL_KEY,
    OPEN,
    WITHIN_S,
    World,
    answering,
    reason,
    refuse,
    world,
)

LOGS = "/jobs/job_1/logs"
COMPLETED = job_pb2.Job.Status.COMPLETED


def lines(*ids: str) -> stream_pb2.StreamJobLogsResponse:
    batch = stream_pb2.StreamJobLogsResponse()
    for name in ids:
        event = batch.events.add(id=name)
        event.log.message = f"line {name}\nsecond\r half"
        event.log.level = stream_pb2.LogLevel.INFO
    return batch


def the_end() -> stream_pb2.StreamJobLogsResponse:
    batch = stream_pb2.StreamJobLogsResponse()
    batch.events.add(id="z").end.status = COMPLETED
    return batch


async def short(request: Any, context: Any) -> AsyncIterator[Any]:
    await context.send_initial_metadata(OPEN)
    yield lines("a", "b")
    yield lines("c")
    yield the_end()
    await asyncio.Event().wait()


async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
    await context.send_initial_metadata(OPEN)
    yield lines("a")
    await asyncio.Event().wait()


def blocks(text: str) -> list[dict[str, str]]:
    """Events as dictionaries of their lines; comments under the empty name."""
    return [
        dict(line.split(":", 1) for line in block.split("\n"))
        for block in text.split("\n\n")
        if block
    ]


async def test_a_stream_is_framed_as_events_and_ends_after_end(running: World) -> None:
    running.coordinator.scripts["StreamJobLogs"] = short
    answer = await asyncio.wait_for(running.client.get(LOGS), WITHIN_S)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    first, *events = blocks(answer.text)
    assert first == {"retry": " 2000"}
    assert [(event["id"], event["event"]) for event in events] == [
        (" a", " log"),
        (" b", " log"),
        (" c", " log"),
        (" z", " end"),
    ]
    log = json.loads(events[0]["data"])
    assert log["message"] == "line a\nsecond\r half"
    assert log["level"] == "INFO"
    assert set(log) == {
        "level",
        "message",
        "timestamp",
        "rank",
        "node_id",
        "attempt",
        "stream",
        "cursor",
    }
    assert json.loads(events[-1]["data"]) == {"status": "COMPLETED"}
    await asyncio.wait_for(running.coordinator.cancelled.wait(), WITHIN_S)


async def test_headers_come_before_the_first_event(running: World) -> None:
    async def silent(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(OPEN)
        await asyncio.Event().wait()
        yield lines()

    running.coordinator.scripts["StreamJobLogs"] = silent
    async with asyncio.timeout(WITHIN_S), running.client.stream("GET", LOGS) as answer:
        assert answer.status_code == 200
        async for text in answer.aiter_text():
            assert text == "retry: 2000\n\n"
            break


@pytest.mark.parametrize(
    ("path", "headers", "after"),
    [
        (LOGS, {"last-event-id": "7"}, "7"),
        (LOGS + "?after=9", {}, "9"),
        (LOGS + "?after=7", {"last-event-id": "9"}, "9"),
        (LOGS, {}, ""),
    ],
)
async def test_a_stream_goes_on_after_the_last_event(
    running: World, path: str, headers: dict[str, str], after: str
) -> None:
    running.coordinator.scripts["StreamJobLogs"] = short
    await running.client.get(path, headers=headers)
    assert running.coordinator.requests[0].after == after


async def test_query_parameters_of_a_stream_fill_its_request(running: World) -> None:
    running.coordinator.scripts["StreamJobLogs"] = short
    await running.client.get(LOGS + "?follow=false&level=DEBUG&tail=-1&rank=0")
    request = running.coordinator.requests[0]
    assert (request.follow, request.level, request.tail, request.rank) == (False, 1, -1, 0)
    assert request.HasField("rank")


async def test_faults_of_a_stream_request_are_ordinary_errors(running: World) -> None:
    answer = await running.client.get(LOGS + "?level=ERROR&tail=x&colour=red")
    details = {d["field"]: d["message"] for d in answer.json()["error"]["details"]}
    assert answer.status_code == 422
    assert details == {
        "level": "must be one of DEBUG, INFO, WARNING",
        "tail": "must be an integer",
        "colour": "unknown query parameter",
    }


async def test_a_refusal_before_the_first_event_is_an_ordinary_error(running: World) -> None:
    async def refused(request: Any, context: Any) -> AsyncIterator[Any]:
        await refuse(context, grpc.StatusCode.NOT_FOUND, "no job", reason("JOB_NOT_FOUND"))
        yield lines()

    running.coordinator.scripts["StreamJobLogs"] = refused
    answer = await running.client.get(LOGS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "JOB_NOT_FOUND")


async def test_resuming_after_the_end_is_204(running: World) -> None:
    async def over(request: Any, context: Any) -> AsyncIterator[Any]:
        await refuse(context, grpc.StatusCode.OUT_OF_RANGE, "over", reason("STREAM_ENDED"))
        yield lines()

    running.coordinator.scripts["StreamJobLogs"] = over
    answer = await running.client.get(LOGS, headers={"last-event-id": "z"})
    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_stream_that_breaks_says_so_and_closes(running: World) -> None:
    async def breaks(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(OPEN)
        yield lines("a")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting at 10.0.0.1:5")

    running.coordinator.scripts["StreamJobLogs"] = breaks
    text = (await running.client.get(LOGS)).text
    assert text.endswith('\n\nevent: error\ndata: {"error": "stream ended"}\n\n')
    assert "10.0.0.1" not in text


async def test_a_stream_that_ends_well_without_end_just_closes(running: World) -> None:
    async def tail(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(OPEN)
        yield lines("a")

    running.coordinator.scripts["StreamJobLogs"] = tail
    text = (await running.client.get(LOGS)).text
    assert [block.get("event") for block in blocks(text)] == [None, " log"]


async def test_a_coordinator_that_dies_breaks_the_stream(running: World) -> None:
    running.coordinator.scripts["StreamJobLogs"] = endless
    async with asyncio.timeout(WITHIN_S), running.client.stream("GET", LOGS) as answer:
        text = ""
        async for part in answer.aiter_text():
            text += part
            if "id: a" in text and running.coordinator.port:
                await running.coordinator.stop()
        assert text.endswith('event: error\ndata: {"error": "stream ended"}\n\n')


async def test_comments_come_while_nothing_happens() -> None:
    async with world(limits=Limits(heartbeat_s=0.05)) as made:
        made.coordinator.scripts["StreamJobLogs"] = endless
        async with asyncio.timeout(WITHIN_S), made.client.stream("GET", LOGS) as answer:
            text = ""
            async for part in answer.aiter_text():
                text += part
                if text.count("\n: alive\n\n") >= 3:
                    break
        assert "id: a" in text


async def test_a_reader_who_leaves_cancels_the_call(running: World) -> None:
    running.coordinator.scripts["StreamJobLogs"] = endless
    async with running.client.stream("GET", LOGS) as answer:
        async for part in answer.aiter_text():
            if "id: a" in part:
                break
    await asyncio.wait_for(running.coordinator.cancelled.wait(), WITHIN_S)
    assert await open_streams(running) == 0


async def open_streams(running: World) -> float:
    """Open streams by the gateway's own count, once it stopped changing from one."""
    root = f"http://{running.address[0]}:{running.address[1]}/metrics"
    for _ in range(500):
        text = (await running.client.get(root)).text
        count = float(text.split("\nscaimind_gateway_open_streams ")[1].split("\n")[0])
        if count == 0:
            break
    return count


async def test_a_reader_who_leaves_before_the_first_event_cancels_the_call(
    running: World,
) -> None:
    begun = asyncio.Event()

    async def undecided(request: Any, context: Any) -> AsyncIterator[Any]:
        begun.set()
        await asyncio.Event().wait()
        yield lines()

    running.coordinator.scripts["StreamJobLogs"] = undecided
    asking = asyncio.create_task(running.client.get(LOGS))
    await begun.wait()
    asking.cancel()
    await asyncio.wait_for(running.coordinator.cancelled.wait(), WITHIN_S)


async def test_a_coordinator_that_never_decides_is_504() -> None:
    async def undecided(request: Any, context: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield lines()

    async with world(timeout_s=0.5) as made:
        await answering(made)
        made.coordinator.scripts["StreamJobLogs"] = undecided
        answer = await made.client.get(LOGS)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "BACKEND_TIMEOUT")


async def test_a_frozen_reader_is_let_go_and_holds_no_memory() -> None:
    produced = 0

    async def flood(request: Any, context: Any) -> AsyncIterator[Any]:
        nonlocal produced
        await context.send_initial_metadata(OPEN)
        batch = lines(*(f"{number}" for number in range(500)))
        while True:
            produced += 500
            yield batch

    async with world(limits=Limits(send_timeout_s=0.5)) as made:
        made.coordinator.scripts["StreamJobLogs"] = flood
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, made.address)
        path = f"/v1/modules/scaimind{LOGS}"
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ALL_KEY}\r\n\r\n"
        await loop.sock_sendall(sock, head.encode())
        await asyncio.wait_for(made.coordinator.cancelled.wait(), WITHIN_S)
        # A line is about 170 bytes as an event: far less than a flood of seconds went through.
        assert produced < 500_000
        assert await open_streams(made) == 0
        # The kernel drops the connection, although the reader still takes nothing; what is left
        # is the client's.
        async with asyncio.timeout(WITHIN_S):
            while len(made.server.server_state.connections) > 1:
                await open_streams(made)
        sock.close()


async def test_open_streams_are_bounded() -> None:
    async with world(limits=Limits(streams=1)) as made:
        made.coordinator.scripts["StreamJobLogs"] = endless
        async with made.client.stream("GET", LOGS) as answer:
            async for part in answer.aiter_text():
                if "id: a" in part:
                    break
            refused = await made.client.get(LOGS)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RATE_LIMITED")
        assert "retry-after" in refused.headers


async def test_going_down_ends_streams_as_broken(running: World) -> None:
    running.coordinator.scripts["StreamJobLogs"] = endless
    async with asyncio.timeout(WITHIN_S), running.client.stream("GET", LOGS) as answer:
        text = ""
        async for part in answer.aiter_text():
            text += part
            if "id: a" in text:
                running.gateway.end_streams()
        assert text.endswith('event: error\ndata: {"error": "stream ended"}\n\n')


async def test_metrics_and_gaps_are_events_of_their_own_names(running: World) -> None:
    async def metrics(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(OPEN)
        batch = stream_pb2.StreamJobMetricsResponse()
        point = batch.events.add(id="1").metrics
        point.step = 7
        point.values["loss"] = float("nan")
        gap = batch.events.add(id="2").gap
        gap.reason = "SLOW_READER"
        batch.events.add(id="3").end.status = COMPLETED
        yield batch

    running.coordinator.scripts["StreamJobMetrics"] = metrics
    answer = await running.client.get("/jobs/job_1/metrics/stream?interval=1")
    _, point, gap, _ = blocks(answer.text)
    assert json.loads(point["data"])["values"] == {"loss": "NaN"}
    assert json.loads(point["data"])["epoch"] is None
    assert (gap["event"], json.loads(gap["data"])["reason"]) == (" gap", "SLOW_READER")
