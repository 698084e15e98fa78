"""The program killed at any time and started again: nothing acknowledged is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.follower import Follower
from tests.integration.coordinator.house import CHANNEL, Caller, Program, a_submit, cut

Job = job_pb2.Job


@pytest.fixture
async def channel(program: Program) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(program.address, options=CHANNEL) as opened:
        yield opened


@pytest.fixture
def admin(program: Program, channel: grpc.aio.Channel) -> Caller:
    return program.caller(channel, "admin.key")


@pytest.fixture
def agents(program: Program, channel: grpc.aio.Channel) -> Caller:
    return program.caller(channel, "join.token")


async def restart(program: Program, channel: grpc.aio.Channel) -> None:
    await program.kill()
    await cut(channel)
    await program.start()
    await channel.channel_ready()


async def test_killed_with_jobs_running_it_comes_back_with_all_of_them(
    program: Program, channel: grpc.aio.Channel, admin: Caller, agents: Caller
) -> None:
    agent = FakeAgent(agents)
    await agent.sync()
    running = [await admin.submit() for _ in range(4)]
    waiting = [await admin.submit() for _ in range(20)]
    for lease_id in await agent.granted(4):
        await agent.runs(lease_id)
    before = [await admin.job(job_id) for job_id in (*running, *waiting)]
    epoch = agent.desired.leader_epoch
    await restart(program, channel)
    after = [await admin.job(job_id) for job_id in (*running, *waiting)]
    for one, again in zip(before, after, strict=True):
        assert again.usage.time.leased_us >= one.usage.time.leased_us
        assert again.usage.time.starting_us == one.usage.time.starting_us
        again.usage.CopyFrom(one.usage)  # it grows while a job runs
        for told in (one, again):  # after a restart it is estimated anew
            told.ClearField("estimated_wait_seconds")
    assert after == before
    answer = await agent.sync()
    assert answer.leader_epoch > epoch
    assert sorted(lease.lease_id for lease in answer.leases) == sorted(agent.observed)
    assert all(lease.action == agent_api.DesiredLease.RUN for lease in answer.leases)
    assert not any(lease.HasField("spec") for lease in answer.leases)
    for lease_id in list(agent.observed):
        await agent.ends(lease_id)
    assert [(await admin.job(one)).status for one in running] == [Job.COMPLETED] * 4
    assert len(agent.desired.leases) == 4


async def test_every_acknowledged_submit_survives_a_kill_in_the_middle_of_many(
    program: Program, channel: grpc.aio.Channel, admin: Caller
) -> None:
    acknowledged: list[str] = []
    enough = asyncio.Event()

    async def submit_on() -> None:
        while True:
            try:
                acknowledged.append(await admin.submit())
            except grpc.aio.AioRpcError:
                return
            if len(acknowledged) >= 200:
                enough.set()

    clients = [asyncio.create_task(submit_on()) for _ in range(16)]
    await enough.wait()
    await program.kill()
    await asyncio.gather(*clients)
    await cut(channel)
    await program.start()
    await channel.channel_ready()
    for job_id in acknowledged:
        assert (await admin.job(job_id)).job_id == job_id
    page = await admin.call("ListJobs", api.ListJobsRequest(page_size=1))
    assert page.total_count >= len(acknowledged)


async def test_a_repeated_request_gets_the_first_answer_after_a_restart(
    program: Program, channel: grpc.aio.Channel, admin: Caller
) -> None:
    request = a_submit()
    request.request_id = "once"
    first = await admin.call("SubmitJob", request)
    await restart(program, channel)
    call = admin.start("SubmitJob", request)
    assert (await call).job_id == first.job_id
    assert ("x-idempotency-replayed", "true") in tuple(await call.trailing_metadata())


async def test_a_follower_goes_on_after_its_cursor_when_the_program_was_killed(
    program: Program, channel: grpc.aio.Channel, admin: Caller, agents: Caller
) -> None:
    agent = FakeAgent(agents)
    await agent.sync()
    job_id = await admin.submit()
    (lease_id,) = await agent.granted()
    await agent.runs(lease_id)
    sent = agent.batch(job_id, ["one", "two"])
    await agent.push(sent)
    follower = Follower.of_log(admin, job_id)
    await follower.until(1)
    await program.kill()
    with pytest.raises(grpc.aio.AioRpcError):
        await follower.rest()
    await cut(channel)
    await program.start()
    await channel.channel_ready()
    await agent.push(sent, agent.batch(job_id, ["three"]))
    again = Follower.of_log(admin, job_id, after=follower.last_id)
    await agent.ends(lease_id)
    await agent.forgets(lease_id)
    assert [*follower.lines, *await again.rest()] == ["one", "two", "three"]
    assert again.kinds[-1] == "end"
    await restart(program, channel)
    request = api.StreamJobLogsRequest(job_id=job_id, after=again.last_id)
    assert (await admin.refused("StreamJobLogs", request)).reason == "STREAM_ENDED"


async def test_pages_go_on_after_a_restart(
    program: Program, channel: grpc.aio.Channel, admin: Caller
) -> None:
    ids = [await admin.submit() for _ in range(3)]
    request = api.ListJobsRequest(page_size=2)
    page = await admin.call("ListJobs", request)
    await restart(program, channel)
    request.page_token = page.next_page_token
    (job,) = (await admin.call("ListJobs", request)).jobs
    assert job.job_id == ids[0]


async def test_asked_to_stop_it_lets_held_calls_go_and_ends_soon(
    program: Program, channel: grpc.aio.Channel, admin: Caller, agents: Caller
) -> None:
    agent = FakeAgent(agents)
    await agent.sync()
    job_id = await admin.submit()
    await agent.granted()
    held = asyncio.create_task(agent.sync(hold_ms=60_000))
    follower = Follower.of_log(admin, job_id)
    await follower.opened()
    async with asyncio.timeout(30):  # the call would be held for twice as long
        assert await program.stop(signal.SIGTERM) == 0
    await asyncio.wait([held])
    held.exception()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await follower.rest()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def run(folder: Path, address: str) -> tuple[int | None, str]:
    """Exit status and log of a program that cannot start."""
    words = ("-m", "coordinator", "--data-dir", str(folder), "--grpc", address)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    return process.returncode, errors.decode()


async def test_a_second_program_on_the_same_directory_refuses_to_start(
    program: Program, tmp_path: Path, admin: Caller
) -> None:
    status, errors = await run(tmp_path, "127.0.0.1:0")
    assert (status, "in use" in errors) == (3, True)
    await admin.submit()


async def test_a_port_that_is_taken_is_said(program: Program, tmp_path: Path) -> None:
    status, errors = await run(tmp_path / "b", program.address)
    assert (status, program.address in errors) == (3, True)


async def test_secrets_are_for_their_owner_and_stay(
    program: Program, channel: grpc.aio.Channel, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("admin.key", "gateway.secret", "join.token")]
    before = [file.read_text() for file in files]
    assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
    await restart(program, channel)
    assert [file.read_text() for file in files] == before
    key = before[0].strip()
    assert key.startswith("sgk_")
    for path in tmp_path.glob("*.db*"):
        assert key.encode() not in path.read_bytes()
    assert key not in (tmp_path / "program.log").read_text()
