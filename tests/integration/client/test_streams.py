"""Streams that outlive their connection and the coordinator."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from scaimind import client as errors
from scaimind.client import AsyncClient, Client
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as pb
from scaimind.v1.stream_pb2 import (
    LogEvent,
    LogLine,
    MetricsEvent,
    StreamEnd,
    StreamJobLogsResponse,
    StreamJobMetricsResponse,
)
from tests.integration.client.scripted import Answer, Scripted, refusal

LINES = 20
END = LogEvent(id=f"c{LINES}", end=StreamEnd(status=job_pb2.Job.COMPLETED))


def logs_until(stop: int, *, ends: bool = False) -> Answer:
    """A log of 20 lines, sent two by two from where it is asked for, up to line `stop`."""

    def answer(request: pb.StreamJobLogsRequest) -> Iterator[StreamJobLogsResponse]:
        start = int(request.after[1:]) + 1 if request.after else 0
        for first in range(start, stop, 2):
            yield StreamJobLogsResponse(
                events=[line(n) for n in range(first, min(first + 2, stop))]
            )
        if not ends:
            raise refusal(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        yield StreamJobLogsResponse(events=[END])

    return answer


def line(number: int) -> LogEvent:
    return LogEvent(id=f"c{number}", log=LogLine(message=f"line {number}"))


def test_a_follower_sees_every_line_once_though_the_coordinator_restarts(
    coordinator: Scripted, client: Client
) -> None:
    coordinator.answers["StreamJobLogs"] = logs_until(7)
    events = client.logs("job_1", tail=-1)
    seen = [next(events) for _ in range(7)]
    coordinator.stop()
    second = Scripted(coordinator.port)
    second.answers["StreamJobLogs"] = logs_until(LINES, ends=True)
    seen += list(events)
    second.stop()
    assert [event.log.message for event in seen[:-1]] == [f"line {n}" for n in range(LINES)]
    assert seen[-1].end.status == job_pb2.Job.COMPLETED
    assert second.requests("StreamJobLogs")[0].after == "c6"
    assert second.requests("StreamJobLogs")[0].tail == -1


def test_a_stream_that_closes_without_an_end_is_asked_for_again(
    coordinator: Scripted, client: Client
) -> None:
    def answer(request: pb.StreamJobLogsRequest) -> Iterator[StreamJobLogsResponse]:
        first = not request.after
        yield StreamJobLogsResponse(events=[line(0) if first else END])

    coordinator.answers["StreamJobLogs"] = answer
    assert [event.WhichOneof("event") for event in client.logs("job_1")] == ["log", "end"]


def test_a_stream_that_does_not_follow_ends_when_it_closes(
    coordinator: Scripted, client: Client
) -> None:
    def answer(_: object) -> Iterator[StreamJobLogsResponse]:
        yield StreamJobLogsResponse(events=[line(0), line(1)])

    coordinator.answers["StreamJobLogs"] = answer
    assert [event.id for event in client.logs("job_1", follow=False)] == ["c0", "c1"]
    assert len(coordinator.asked) == 1


def test_an_outage_that_lasts_is_unavailable(coordinator: Scripted) -> None:
    coordinator.answers["StreamJobLogs"] = logs_until(2)
    with Client(coordinator.address, "k", reconnect_s=0.3) as client:
        events = client.logs("job_1", tail=-1)
        assert [next(events).id, next(events).id] == ["c0", "c1"]
        with pytest.raises(errors.Unavailable):
            next(events)


def test_a_refused_stream_is_not_asked_for_again(coordinator: Scripted, client: Client) -> None:
    def answer(_: object) -> Iterator[StreamJobLogsResponse]:
        raise refusal(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")

    coordinator.answers["StreamJobLogs"] = answer
    with pytest.raises(errors.NotFound):
        list(client.logs("job_1"))
    assert len(coordinator.asked) == 1


async def test_the_async_client_goes_on_after_a_break(coordinator: Scripted) -> None:
    def answer(request: pb.StreamJobLogsRequest) -> Iterator[StreamJobLogsResponse]:
        done = len(coordinator.asked) == 3
        yield from logs_until(LINES if done else 6 * len(coordinator.asked), ends=done)(request)

    coordinator.answers["StreamJobLogs"] = answer
    async with AsyncClient(coordinator.address, "k", reconnect_s=30) as client:
        ids = [event.id async for event in client.logs("job_1", tail=-1)]
    assert ids == [f"c{n}" for n in range(LINES + 1)]
    assert [request.after for request in coordinator.requests("StreamJobLogs")] == ["", "c5", "c11"]


def test_metrics_stream_likewise(coordinator: Scripted, client: Client) -> None:
    def answer(request: pb.StreamJobMetricsRequest) -> Iterator[StreamJobMetricsResponse]:
        assert request.interval == 2
        if request.after:
            yield StreamJobMetricsResponse(
                events=[MetricsEvent(id="m2", end=StreamEnd(status=job_pb2.Job.FAILED))]
            )
            return
        point = job_pb2.MetricPoint(step=1, values={"loss": 2.5})
        yield StreamJobMetricsResponse(events=[MetricsEvent(id="m1", metrics=point)])
        raise refusal(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")

    coordinator.answers["StreamJobMetrics"] = answer
    first, second = client.stream_metrics("job_1", interval=2)
    assert first.metrics.values["loss"] == 2.5
    assert second.end.status == job_pb2.Job.FAILED
