"""A disk that fails under the real program: it takes nothing more on, still answers, and goes on by
itself when the disk does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from scaimind.agent.v1 import agent_service_pb2 as agent_api
from scaimind.v1 import job_pb2
from scaimind.v1 import mind_coordinator_pb2 as api
from tests.integration.coordinator.follower import Follower
from tests.integration.coordinator.house import Caller, Fault
from tests.integration.coordinator.test_restart import run
from tests.integration.storage.conftest import Site
from tests.integration.storage.disks import DISKS, Disk

STOPS_WITHIN_S = 5.0  # far below the time that a call has
RECOVERS_WITHIN_S = 90.0


@pytest.fixture(params=list(DISKS.values()), ids=list(DISKS))
def disk(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Disk]:
    with request.param(folder, monkeypatch) as made:
        yield made


async def refused(caller: Caller) -> tuple[Fault, float]:
    """How a submit is refused, and the seconds after which to ask again."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await caller.submit()
    error, retry = caught.value, error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(retry)
    return Fault.of(error), retry.retry_delay.ToTimedelta().total_seconds()


async def accepted(caller: Caller) -> str:
    """The id of a job, once one is accepted again."""
    async with asyncio.timeout(RECOVERS_WITHIN_S):
        while True:
            try:
                return await caller.submit()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)


async def pushed(site: Site, batch: agent_api.PushRequest) -> None:
    """Pushes lines once they are taken again, as agents do: those have a file of their own."""
    async with asyncio.timeout(RECOVERS_WITHIN_S):
        while True:
            try:
                await site.agent.push(batch)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                return


async def synced(site: Site) -> list[agent_api.DesiredLease.Action.ValueType]:
    """What is desired of the leases, as far as the agent is answered at all."""
    try:
        return [one.action for one in (await site.agent.sync()).leases]
    except grpc.aio.AioRpcError:
        return []


async def test_while_the_disk_fails_nothing_is_accepted_and_all_else_goes_on(
    disk: Disk, site: Site
) -> None:
    agent, admin = site.agent, site.admin
    job_id, lease_id = await site.running_job()
    await agent.says(job_id, "before")
    pid = site.program.pid

    disk.hurt(pid)
    waits_s: list[float] = []
    for _ in range(3):
        began_s = time.monotonic()
        fault, retry_s = await refused(admin)
        waits_s.append(time.monotonic() - began_s)
        assert (fault.reason, retry_s > 0) == ("STORE_UNAVAILABLE", True)
    assert min(waits_s) < STOPS_WITHIN_S
    assert (await admin.job(job_id)).status == job_pb2.Job.TRAINING
    assert (await admin.call("ListJobs", api.ListJobsRequest())).total_count == 1
    follower = Follower.of_log(admin, job_id)
    assert await follower.until(1) == ["before"]
    assert set(await synced(site)) <= {agent_api.DesiredLease.RUN}
    lost = agent.batch(job_id, ["during"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await agent.push(lost)
    assert Fault.of(caught.value).code is grpc.StatusCode.UNAVAILABLE

    disk.heal(pid)
    later = await accepted(admin)
    assert site.program.pid == pid
    await pushed(site, lost)
    assert await follower.until(2) == ["before", "during"]
    assert (await agent.sync()).leases[0].lease_id == lease_id
    await site.restart()
    await agent.sync()
    assert (await admin.job(later)).job_id == later
    await agent.ends(lease_id)
    assert (await admin.job(job_id)).status == job_pb2.Job.COMPLETED


async def test_files_that_were_deleted_in_use_take_nothing_more_and_are_missed_at_the_next_start(
    site: Site,
) -> None:
    job_id, _ = await site.running_job()
    for path in site.folder.glob("*.db*"):
        if path.suffix != ".lock":
            path.unlink()
    fault, _ = await refused(site.admin)
    assert fault.reason == "STORE_UNAVAILABLE"
    assert (await site.admin.job(job_id)).job_id == job_id
    assert "was deleted or replaced while in use" in site.story()
    await site.program.kill()
    status, errors = await run(site.folder, "127.0.0.1:0")
    assert (status, "restore a backup" in errors) == (3, True)
    assert not list(site.folder.glob("*.db"))
