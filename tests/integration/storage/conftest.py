"""A coordinator on a disk that a test may hurt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.integration.coordinator.agent import FakeAgent
from tests.integration.coordinator.house import CHANNEL, Caller, Program, cut


class Site:
    """A program with its data directory, an admin and an agent."""

    def __init__(self, folder: Path, channel: grpc.aio.Channel, program: Program) -> None:
        self.folder = folder
        self.program = program
        self.channel = channel
        self.admin: Caller = program.caller(channel, "admin.key")
        self.agent = FakeAgent(program.caller(channel, "join.token"))

    async def restart(self) -> None:
        """kill -9, and another one in its place."""
        await self.program.kill()
        await cut(self.channel)
        await self.program.start()
        await self.channel.channel_ready()

    def story(self) -> str:
        """The log of the program."""
        return (self.folder / "program.log").read_text()

    async def running_job(self) -> tuple[str, str]:
        """A job that runs, and its lease."""
        await self.agent.sync()
        job_id = await self.admin.submit()
        (lease_id,) = await self.agent.granted()
        await self.agent.runs(lease_id)
        return job_id, lease_id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The data directory."""
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
async def site(folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    if "disk" in request.fixturenames:
        request.getfixturevalue("disk")  # which is made first
    program = Program(folder)
    try:
        await program.start()
        async with grpc.aio.insecure_channel(program.address, options=CHANNEL) as channel:
            yield Site(folder, channel, program)
    finally:
        await program.close()
