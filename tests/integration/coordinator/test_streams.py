"""Logs and metrics: no line lost, none twice, the end once and in time, whatever breaks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.rpc import follow
from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2, node_pb2, stream_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.follower import Follower
from tests.integration.coordinator.house import Caller, Fault, House, eventually, open_house


@pytest.fixture
async def job_id(agent: FakeAgent, admin: Caller) -> str:
    """A job that runs on all four devices."""
    made = await admin.submit(gpu_count=4)
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    return made


async def end(agent: FakeAgent) -> None:
    (lease_id,) = agent.lease_ids
    await agent.ends(lease_id)
    await agent.forgets(lease_id)


async def test_an_open_stream_says_so_at_once_also_when_there_is_no_line(
    admin: Caller, job_id: str
) -> None:
    for follower in (Follower.of_log(admin, job_id), Follower.of_metrics(admin, job_id)):
        assert ("x-stream", "open") in await follower.opened()
        assert not follower.call.done()
        follower.call.cancel()


async def test_a_follower_gets_lines_as_they_come_and_the_end_when_the_lease_is_forgotten(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    follower = Follower.of_log(admin, job_id)
    await agent.says(job_id, "one", "two")
    assert await follower.until(2) == ["one", "two"]
    await agent.says(job_id, "three")
    await follower.until(3)
    (lease_id,) = agent.lease_ids
    await agent.ends(lease_id)
    assert (await admin.job(job_id)).status == job_pb2.Job.COMPLETED
    await agent.says(job_id, "a last word")
    await follower.until(4)
    assert "end" not in follower.kinds
    await agent.forgets(lease_id)
    assert await follower.rest() == ["one", "two", "three", "a last word"]
    assert follower.kinds[-1] == "end"
    assert follower.events[-1].end.status == job_pb2.Job.COMPLETED


async def test_a_line_tells_where_it_came_from(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    await agent.says(job_id, "careful", rank=3, level=stream_pb2.WARNING)
    follower = Follower.of_log(admin, job_id)
    await follower.until(1)
    line = follower.events[0].log
    assert (line.level, line.rank, line.node_id) == (stream_pb2.WARNING, 3, "n1")
    assert (line.attempt, line.stream, line.cursor) == (1, "stdout", follower.last_id)
    assert line.timestamp.ToMilliseconds() == 1_700_000_000_000


async def test_what_is_pushed_twice_appears_once(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    first = agent.batch(job_id, ["a", "b"])
    both = agent_api.PushRequest.FromString(first.SerializeToString())
    second = agent.batch(job_id, ["c"])
    both.texts.extend(second.texts)
    both.ends.extend(second.ends)
    both.times_ms.extend(second.times_ms)
    both.levels.extend(second.levels)
    both.end = second.end
    await agent.push(first, first)
    await agent.push(first, both, second)
    await end(agent)
    assert await Follower.of_log(admin, job_id).rest() == ["a", "b", "c"]


async def test_every_event_is_a_place_to_go_on_from(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    texts = [f"line {number}" for number in range(12)]
    await agent.says(job_id, *texts)
    await end(agent)
    whole = Follower.of_log(admin, job_id)
    await whole.rest()
    for index, event in enumerate(whole.events[:-1]):
        follower = Follower.of_log(admin, job_id, after=event.id)
        assert await follower.rest() == texts[index + 1 :]
        assert follower.kinds[-1] == "end"


async def test_to_go_on_after_the_end_is_told_that_it_was_the_end(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    await end(agent)
    for make, method, request in (
        (Follower.of_log, "StreamJobLogs", api.StreamJobLogsRequest),
        (Follower.of_metrics, "StreamJobMetrics", api.StreamJobMetricsRequest),
    ):
        follower = make(admin, job_id)
        await follower.rest()
        assert follower.kinds == ["end"]
        fault = await admin.refused(method, request(job_id=job_id, after=follower.last_id))
        assert (fault.code, fault.reason) == (grpc.StatusCode.OUT_OF_RANGE, "STREAM_ENDED")


@pytest.mark.parametrize(
    ("tail", "expected"), [(-1, 0), (0, 300), (7, 293), (1_000, 0), (None, 200)], ids=str
)
async def test_the_tail_is_as_long_as_it_was_asked_for(
    agent: FakeAgent, admin: Caller, job_id: str, tail: int | None, expected: int
) -> None:
    texts = [f"line {number}" for number in range(300)]
    await agent.says(job_id, *texts)
    await end(agent)
    fields: dict[str, Any] = {} if tail is None else {"tail": tail}
    call = admin.start("StreamJobLogs", api.StreamJobLogsRequest(job_id=job_id, **fields))
    assert await Follower(call).rest() == texts[expected:]


async def test_without_following_the_stream_ends_with_what_there_is(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    await agent.says(job_id, "one", "two")
    follower = Follower.of_log(admin, job_id, follow=False)
    assert await follower.rest() == ["one", "two"]
    assert "end" not in follower.kinds
    again = Follower.of_log(admin, job_id, follow=False, after=follower.last_id)
    assert await again.rest() == []


async def test_without_following_a_job_that_has_just_ended_is_read_to_its_end(
    agent: FakeAgent, admin: Caller, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "WHOLE_WITHIN_S", 1_000.0)
    (lease_id,) = agent.lease_ids
    await agent.says(job_id, "one")
    await admin.call("CancelJob", api.CancelJobRequest(job_id=job_id))
    stopping = Follower.of_log(admin, job_id, follow=False)
    assert await stopping.rest() == ["one"]
    assert stopping.kinds == ["log"], "nobody waits for ranks that are being stopped"
    await agent.ends(lease_id)
    follower = Follower.of_log(admin, job_id, follow=False)
    await follower.until(1)
    await agent.says(job_id, "two")
    await agent.forgets(lease_id)
    assert await follower.rest() == ["one", "two"]
    assert follower.kinds[-1] == "end"


async def test_levels_and_ranks_are_filtered_and_faults_always_pass(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    levels = [stream_pb2.DEBUG, stream_pb2.INFO, stream_pb2.WARNING, stream_pb2.CRITICAL]
    for rank in (0, 1):
        for level in levels:
            name = stream_pb2.LogLevel.Name(level)
            await agent.says(job_id, f"{rank} {name}", rank=rank, level=level)
    await end(agent)
    warnings = Follower.of_log(admin, job_id, level=stream_pb2.WARNING)
    assert await warnings.rest() == ["0 WARNING", "0 CRITICAL", "1 WARNING", "1 CRITICAL"]
    ranked = Follower.of_log(admin, job_id, rank=1, tail=2, level=stream_pb2.DEBUG)
    assert await ranked.rest() == ["1 WARNING", "1 CRITICAL"]
    default = Follower.of_log(admin, job_id, rank=0)
    assert await default.rest() == ["0 INFO", "0 WARNING", "0 CRITICAL"]


async def test_a_filter_that_lets_nothing_pass_still_tells_the_end(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    await agent.says(job_id, *["x"] * 2_000)
    await end(agent)
    follower = Follower.of_log(admin, job_id, rank=7)
    assert await follower.rest() == []
    assert follower.kinds == ["end"]


async def test_lines_lost_before_they_came_are_told_as_a_gap(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    await agent.says(job_id, "one")
    lost = agent.batch(job_id, ["lost"])
    after = agent.batch(job_id, ["three"], gap_before=True)
    assert lost.end == after.begin
    await agent.push(after)
    await end(agent)
    follower = Follower.of_log(admin, job_id)
    assert await follower.rest() == ["one", "three"]
    assert follower.kinds == ["log", "gap", "log", "end"]
    gap = follower.events[1].gap
    assert (gap.reason, gap.to) == ("SPOOL_FULL", follower.events[1].id)
    rest = Follower.of_log(admin, job_id, after=follower.events[1].id)
    assert await rest.rest() == ["three"]


async def test_large_lines_come_in_messages_that_any_client_takes(
    house: House, agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    for _ in range(10):
        await agent.says(job_id, *["x" * 60_000] * 20)
    await end(agent)
    address = f"127.0.0.1:{house.now.port}"
    async with grpc.aio.insecure_channel(address) as plain:  # takes 4 MiB
        caller = Caller(plain, "")
        caller.metadata = admin.metadata
        assert len(await Follower.of_log(caller, job_id).rest()) == 200


@pytest.mark.parametrize("after", ["x", "5.00000000", "end.00000000", "9" * 200])
async def test_a_cursor_that_is_not_of_this_stream_is_refused(
    admin: Caller, job_id: str, after: str
) -> None:
    for method, request in (
        ("StreamJobLogs", api.StreamJobLogsRequest(job_id=job_id, after=after)),
        ("StreamJobMetrics", api.StreamJobMetricsRequest(job_id=job_id, after=after)),
    ):
        fault = await admin.refused(method, request)
        assert (fault.code, fault.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("after",))


async def test_the_end_comes_where_the_agent_is_out_of_contact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LOOK_AGAIN_S", 0.1)
    async with open_house(tmp_path, "--unreachable-after-s", "0.3") as house:
        agent = FakeAgent(house.agents)
        await agent.sync()
        job_id = await house.admin.submit()
        await agent.granted()
        await agent.says(job_id, "one")
        await house.admin.call("CancelJob", api.CancelJobRequest(job_id=job_id))
        follower = Follower.of_log(house.admin, job_id)
        assert await follower.rest() == ["one"]
        assert follower.kinds[-1] == "end"
        node = await house.admin.call("GetNode", api.GetNodeRequest(node_id="n1"))
        assert node.status == node_pb2.Node.UNREACHABLE


async def test_metrics_come_newest_first_at_most_once_an_interval_and_end(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    await agent.push(points(agent, job_id, 0, 50))
    follower = Follower.of_metrics(admin, job_id, interval=60)
    await follower.until(1)
    assert follower.events[0].metrics.step == 49
    await agent.push(points(agent, job_id, 50, 60))
    await end(agent)
    await follower.rest()
    assert [event.metrics.step for event in follower.events[:-1]] == [49, 59]
    assert follower.kinds[-1] == "end"
    again = Follower.of_metrics(admin, job_id, after=follower.events[0].id)
    await again.rest()
    assert again.kinds == ["metrics", "end"]


def points(agent: FakeAgent, job_id: str, first: int, last: int) -> agent_api.PushRequest:
    """Points of these steps, as rank 0 reports them."""
    batch = agent.batch(job_id, [], channel=agent_api.EVENTS, begin=first, end=last)
    for step in range(first, last):
        batch.metrics.add(step=step, values={"loss": 1.0})
        batch.metric_ends.append(step + 1)
    return batch


async def test_a_batch_that_is_no_good_ends_the_push_and_keeps_what_was_before(
    agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    good, bad = agent.batch(job_id, ["good"]), agent.batch(job_id, ["bad"])
    bad.ends.append(1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent.push(good, bad)
    assert Fault.of(caught.value).fields == ("texts",)
    assert await Follower.of_log(admin, job_id, follow=False).rest() == ["good"]


async def test_a_push_for_an_unknown_job_is_told_so(agent: FakeAgent) -> None:
    (answer,) = await agent.push(agent.batch("job_unknown", ["x"]))
    assert answer.unknown_job


async def test_a_client_that_goes_away_leaves_nothing_behind(
    house: House, agent: FakeAgent, admin: Caller, job_id: str
) -> None:
    watches = house.now.parts.driver.view._watches
    before = len(asyncio.all_tasks())
    followers = [Follower.of_log(admin, job_id) for _ in range(20)]
    followers += [Follower.of_metrics(admin, job_id) for _ in range(20)]
    for follower in followers:
        await follower.opened()
    await agent.says(job_id, "one")
    await eventually(lambda: sum(map(len, watches.values())) == 40)
    for follower in followers:
        follower.call.cancel()
    await eventually(lambda: not watches and len(asyncio.all_tasks()) <= before)
    assert not house.now.parts.streams._bells._rung  # type: ignore[attr-defined]


async def test_many_followers_get_every_line(agent: FakeAgent, admin: Caller, job_id: str) -> None:
    followers = [Follower.of_log(admin, job_id) for _ in range(100)]
    for number in range(20):
        await agent.says(job_id, *[f"{number}.{index}" for index in range(50)])
    await end(agent)
    texts = [f"{number}.{index}" for number in range(20) for index in range(50)]
    for follower in followers:
        assert await follower.rest() == texts
