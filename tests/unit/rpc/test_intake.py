"""What agents push: durable first, acknowledged in order, refused where it is no good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from coordinator.core.reasons import Reason
from coordinator.rpc.intake import GROUP_MAX, TEXT_MAX, TIME_MAX_MS, Intake, Rank, append_of
from coordinator.runtime.refusal import Refusal
from coordinator.streams.memory import MemoryStreams
from coordinator.streams.protocol import Append, StreamsUnavailable
from scaimind.agent.v1 import agent_service_pb2 as api
from scaimind.v1 import stream_pb2
from tests.unit.rpc.requests import refusal_of

UNSPECIFIED = stream_pb2.LOG_LEVEL_UNSPECIFIED
Change = Callable[[api.PushRequest], object]


def batch(
    number: int = 1, change: Change | None = None, *, job_id: str = "job_a"
) -> api.PushRequest:
    """Batch `number` of one rank: a line of ten bytes."""
    request = api.PushRequest(
        batch_id=number,
        node_id="n1",
        job_id=job_id,
        attempt=1,
        rank=0,
        channel=api.STDOUT,
        begin=(number - 1) * 10,
        end=number * 10,
        texts=[f"line {number}"],
        ends=[number * 10],
        times_ms=[1_000],
        levels=[stream_pb2.INFO],
    )
    if change is not None:
        change(request)
    return request


class Recording(MemoryStreams):
    """Remembers how many batches came at once; holds the first append until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        super().__init__()
        self.groups: list[int] = []
        self.arrived, self.let_go = asyncio.Event(), asyncio.Event()
        if not held:
            self.let_go.set()

    async def append(self, batches: Sequence[Append]) -> list[int]:
        self.groups.append(len(batches))
        self.arrived.set()
        await self.let_go.wait()
        return await super().append(batches)


async def known(rank: Rank) -> bool:
    return rank.job_id == "job_a"


async def given(
    requests: Sequence[api.PushRequest | Exception], taken: list[int] | None = None
) -> AsyncIterator[api.PushRequest]:
    for number, request in enumerate(requests):
        if isinstance(request, Exception):
            raise request
        yield request
        if taken is not None:
            taken.append(number)


async def opened(streams: Recording) -> Recording:
    await streams.open()
    return streams


async def test_each_batch_is_acknowledged_in_order_up_to_its_end() -> None:
    streams = await opened(Recording())
    answers = [
        (one.batch_id, one.acknowledged)
        async for one in Intake(streams, known).take(given([batch(1), batch(2), batch(3)]))
    ]
    assert answers == [(1, 10), (2, 20), (3, 30)]
    lines, _ = await streams.lines("job_a", after=0, limit=10)
    assert [line.text for line in lines] == ["line 1", "line 2", "line 3"]


async def test_a_batch_that_comes_twice_is_acknowledged_twice_and_kept_once() -> None:
    streams = await opened(Recording())
    requests = given([batch(1), batch(1), batch(2)])
    answers = [one.acknowledged async for one in Intake(streams, known).take(requests)]
    assert answers[-1] == 20
    assert (await streams.log_bounds("job_a")).last == 2


async def test_a_batch_of_an_unknown_job_says_so_and_does_not_hurt_its_neighbours() -> None:
    streams = await opened(Recording())
    requests = given([batch(1), batch(1, job_id="job_x"), batch(2)])
    answers = [one async for one in Intake(streams, known).take(requests)]
    assert [one.unknown_job for one in answers] == [False, True, False]
    assert [one.acknowledged for one in answers] == [10, 0, 20]


async def test_what_comes_while_an_append_is_under_way_goes_with_the_next_and_is_bounded() -> None:
    streams = await opened(Recording(held=True))
    taken: list[int] = []
    requests = given([batch(n) for n in range(1, 301)], taken)
    answers: list[int] = []

    async def take() -> None:
        async for one in Intake(streams, known).take(requests):
            answers.append(one.batch_id)

    task = asyncio.create_task(take())
    await streams.arrived.wait()
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert len(taken) <= 2 * GROUP_MAX + 2
    streams.let_go.set()
    await task
    assert answers == list(range(1, 301))
    assert max(streams.groups) <= GROUP_MAX + 1
    assert len(streams.groups) < 20


async def test_a_fault_in_the_middle_comes_after_what_was_before_it() -> None:
    streams = await opened(Recording())
    requests = given([batch(1), batch(2), batch(3, lambda one: one.ends.append(1)), batch(4)])
    answers: list[int] = []

    async def take() -> None:
        async for one in Intake(streams, known).take(requests):
            answers.append(one.acknowledged)

    with pytest.raises(Refusal) as caught:
        await take()
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert answers == [10, 20]
    assert (await streams.log_bounds("job_a")).last == 2


async def test_a_stream_that_breaks_ends_with_its_own_fault() -> None:
    streams = await opened(Recording())
    with pytest.raises(ConnectionError):
        async for _ in Intake(streams, known).take(given([batch(1), ConnectionError()])):
            pass
    assert (await streams.log_bounds("job_a")).last == 1


async def test_nothing_is_acknowledged_that_the_store_did_not_take() -> None:
    class Broken(Recording):
        async def append(self, batches: Sequence[Append]) -> list[int]:
            raise StreamsUnavailable("disk")

    with pytest.raises(StreamsUnavailable):
        await anext(Intake(await opened(Broken()), known).take(given([batch(1)])))


async def test_a_cancelled_stream_with_a_full_queue_ends_at_once() -> None:
    streams = await opened(Recording(held=True))
    requests = given([batch(n) for n in range(1, 301)])

    async def take() -> None:
        async for _ in Intake(streams, known).take(requests):
            raise AssertionError("nothing was durable")

    task = asyncio.create_task(take())
    await streams.arrived.wait()
    for _ in range(1_000):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(60):
            await task
    assert len(asyncio.all_tasks()) == 1


def setting(**fields: Any) -> Change:
    return lambda request: request.MergeFrom(api.PushRequest(**fields))


def assign(field: str, value: int) -> Change:
    return lambda request: setattr(request, field, value)


def points(ends: Sequence[int], count: int = 1) -> Change:
    def change(request: api.PushRequest) -> None:
        for _ in range(count):
            request.metrics.add(step=1, values={"loss": 1.0})
        request.metric_ends.extend(ends)

    return change


BAD: dict[str, tuple[Change, str]] = {
    "more ends than texts": (setting(ends=[10]), "texts"),
    "more times than texts": (setting(times_ms=[10]), "texts"),
    "no levels": (lambda request: request.ClearField("levels"), "texts"),
    "a point without its end": (points([]), "metrics"),
    "ends that fall": (lambda request: request.ends.__setitem__(0, -1), "ends"),
    "an end beyond the batch": (lambda request: request.ends.__setitem__(0, 11), "ends"),
    "an end before it begins": (assign("begin", 11), "ends"),
    "a negative begin": (assign("begin", -1), "ends"),
    "points out of order": (points([9, 8], 2), "metric_ends"),
    "a point beyond the batch": (points([11]), "metric_ends"),
    "no attempt": (assign("attempt", 0), "attempt"),
    "a negative rank": (assign("rank", -1), "rank"),
    "no channel": (assign("channel", 0), "channel"),
    "an unknown channel": (assign("channel", 9), "channel"),
    "a long line": (
        lambda request: request.texts.__setitem__(0, "x" * (TEXT_MAX + 1)),
        "texts",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_batch_that_is_no_good_is_refused_and_names_the_column(name: str) -> None:
    change, field = BAD[name]
    refusal = refusal_of(lambda: append_of(batch(1, change)))
    assert [violation[0] for violation in refusal.violations] == [field]


def test_odd_values_become_sensible_ones() -> None:
    def change(request: api.PushRequest) -> None:
        request.levels[0] = 77  # type: ignore[call-overload]
        request.times_ms[0] = 1 << 60
        request.progress = float("nan")
        request.eta_seconds = float("inf")
        point = request.metrics.add(step=1, values={"b": 2.0, "a": 1.0}, progress=1e9)
        point.timestamp.seconds = 1 << 60
        request.metric_ends.append(10)

    made = append_of(batch(1, change))
    assert (list(made.levels), list(made.times_ms)) == ([stream_pb2.INFO], [TIME_MAX_MS])
    assert (made.progress, made.eta_s) == (0.0, None)
    (point,) = made.points
    assert (point.values, point.at_ms, point.progress) == ((("a", 1.0), ("b", 2.0)), 0, 100.0)


def test_figures_that_were_not_sent_stay_unset() -> None:
    made = append_of(batch(1))
    assert (made.progress, made.eta_s, made.points) == (None, None, [])
    sent = append_of(batch(1, setting(progress=12.5, eta_seconds=0.0)))
    assert (sent.progress, sent.eta_s) == (12.5, 0.0)


def test_a_line_without_a_level_is_info() -> None:
    made = append_of(batch(1, lambda request: request.levels.__setitem__(0, UNSPECIFIED)))
    assert list(made.levels) == [stream_pb2.INFO]
