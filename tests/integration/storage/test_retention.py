"""Lines that a budget took away are told as a gap, wherever a reader stands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.streams.sqlite import SqliteStreams
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.follower import Follower
from tests.integration.coordinator.house import House, open_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


async def a_log(house: House, agent: FakeAgent) -> tuple[str, str]:
    """A running job that has said something twice; its id and its lease's."""
    await agent.sync()
    job_id = await house.admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    await agent.says(job_id, "one", "two")
    await agent.says(job_id, "three", "four")
    return job_id, lease_id


async def prune(house: House) -> None:
    """Takes all lines away that there are."""
    streams = house.now.parts.streams
    assert isinstance(streams, SqliteStreams)
    await streams.prune(1, lambda job_id: False)


async def test_a_reader_of_everything_after_a_cursor_or_in_the_middle_is_told_what_is_gone(
    house: House,
) -> None:
    agent = FakeAgent(house.agents)
    job_id, lease_id = await a_log(house, agent)
    follower = Follower.of_log(house.admin, job_id)
    await follower.until(4)
    cursor = follower.events[1].id
    await prune(house)
    readers = [
        Follower.of_log(house.admin, job_id),
        Follower.of_log(house.admin, job_id, after=cursor),
    ]
    await agent.says(job_id, "five")
    await follower.until(5)
    assert follower.lines == ["one", "two", "three", "four", "five"]
    for reader in readers:
        await reader.until(2)
        assert reader.lines == ["five"]
        (gap,) = (one.gap for one in reader.events if one.HasField("gap"))
        assert (gap.reason, gap.to) == ("RETENTION", follower.events[3].id)
    assert getattr(readers[1].events[0].gap, "from") == cursor
    tail = Follower.of_log(house.admin, job_id, tail=3)
    assert await tail.until(1) == ["five"]
    await agent.ends(lease_id)
    await agent.forgets(lease_id)
    for reader in (follower, tail, *readers):
        await reader.rest()
        assert reader.kinds[-1] == "end"


async def test_the_budget_of_all_logs_is_kept_by_the_coordinator_itself(tmp_path: Path) -> None:
    async with open_house(tmp_path, "--all-logs-bytes", str(1 << 20)) as house:
        agent = FakeAgent(house.agents)
        job_id, lease_id = await a_log(house, agent)
        for _ in range(30):
            await agent.says(job_id, *["x" * 60_000])
        await agent.ends(lease_id)
        await agent.forgets(lease_id)
    async with open_house(tmp_path, "--all-logs-bytes", str(1 << 20)) as house:
        streams = house.now.parts.streams
        bell = streams.subscribe(job_id)
        if (await streams.log_bounds(job_id)).first == 1:
            assert await bell.wait(90)
        assert (await streams.log_bounds(job_id)).first > 10
        reader = Follower.of_log(house.admin, job_id)
        await reader.rest()
        assert reader.kinds[0] == "gap"
        assert 1 < reader.kinds.count("log") < 20
