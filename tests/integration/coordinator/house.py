"""A coordinator in this process or in one of its own, and callers that present a credential."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

from coordinator.core.commands import Caller as CoreCaller
from coordinator.core.commands import PutKey
from coordinator.core.records import Key
from coordinator.main import Running, running
from coordinator.runtime.bootstrap import digest_of
from coordinator.runtime.settings import CoordinatorSettings
from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from scaimind.leader import SERVING_ONLY
from scaimind.v1 import mind_coordinator_pb2 as api
from scaimind.v1.key_service_pb2_grpc import KeyServiceStub
from scaimind.v1.mind_coordinator_pb2_grpc import MindCoordinatorStub
from tests.support import jobs
from tests.support.ports import Port

ALL = ("VIEW", "MANAGE", "CLUSTER_ADMIN", "EVALUATE")
CALL_S = 90.0
START_S = 120.0
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.max_send_message_length", 64 << 20),
    SERVING_ONLY,
)


@dataclass(frozen=True, slots=True)
class Fault:
    """How a call was refused, as its caller sees it."""

    code: grpc.StatusCode
    reason: str
    text: str
    fields: tuple[str, ...]

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> Fault:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                assert isinstance(value, bytes)
                for detail in status_pb2.Status.FromString(value).details:
                    detail.Unpack(info) or detail.Unpack(bad)
        fields = tuple(one.field for one in bad.field_violations)
        return cls(error.code(), info.reason, error.details() or "", fields)


class Caller:
    """One who calls with a credential; "" for none."""

    def __init__(self, channel: grpc.aio.Channel, token: str, **fields: str) -> None:
        self.channel = channel
        self.metadata = [("authorization", f"Bearer {token}")] if token else []
        self.metadata += [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.stubs: tuple[Any, ...] = (
            MindCoordinatorStub(channel),
            KeyServiceStub(channel),
            AgentServiceStub(channel),
        )

    def method(self, name: str) -> Any:
        """A method of any of the services."""
        return next(getattr(stub, name) for stub in self.stubs if hasattr(stub, name))

    def start(self, name: str, request: Any, *, timeout_s: float = CALL_S) -> Any:
        """The call of a method, under way."""
        return self.method(name)(request, metadata=self.metadata, timeout=timeout_s)

    async def call(self, name: str, request: Any) -> Any:
        """The answer of a unary method."""
        return await self.start(name, request)

    async def refused(self, name: str, request: Any) -> Fault:
        """How a method refuses the request."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await first(self.start(name, request))
        return Fault.of(caught.value)

    async def submit(self, change: dict[str, Any] | None = None, **fields: Any) -> str:
        """Submits a job; `fields` go into the resources. Answers its id."""
        request = a_submit(change, **fields)
        return str((await self.call("SubmitJob", request)).job_id)

    async def job(self, job_id: str) -> Any:
        """The record of a job."""
        return await self.call("GetJob", api.GetJobRequest(job_id=job_id))


async def first(call: Any) -> Any:
    """The answer of a unary call, the first message of a stream."""
    return await (call.read() if hasattr(call, "read") else call)


async def cut(channel: grpc.aio.Channel) -> None:
    """Waits until a channel knows that the program has gone to which it had a connection.

    Until then it takes itself to be ready, and a call is lost with that connection.
    """
    ready = grpc.ChannelConnectivity.READY
    if channel.get_state() is ready:
        async with asyncio.timeout(CALL_S):
            await channel.wait_for_state_change(ready)


async def eventually(condition: Callable[[], object]) -> None:
    """Waits until a condition is true."""
    async with asyncio.timeout(CALL_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def a_submit(change: dict[str, Any] | None = None, **resources: Any) -> api.SubmitJobRequest:
    """A submit of a script on CPUs. `change` is merged into the body."""
    text = {**jobs.body("/train.py", resources=resources), **(change or {})}
    return json_format.ParseDict(text, api.SubmitJobRequest())


def settings(folder: Path, grpc: str = "127.0.0.1:0", *words: str) -> CoordinatorSettings:
    """Settings of a coordinator in a folder."""
    argv = ["--data-dir", str(folder), "--grpc", grpc, *words]
    return CoordinatorSettings.load("coordinator", argv)


class House:
    """A coordinator in this process."""

    def __init__(self, now: Running, folder: Path, channel: grpc.aio.Channel) -> None:
        self.now = now
        self.folder = folder
        self.channel = channel
        self.admin = Caller(channel, (folder / "admin.key").read_text().strip())
        self.agents = Caller(channel, (folder / "join.token").read_text().strip())
        self.nobody = Caller(channel, "")

    async def caller(self, tenant: str, *permissions: str) -> Caller:
        """A new caller of a tenant, with all permissions where none is named."""
        token = f"sgk_{tenant}_{'_'.join(permissions)}"
        driver = self.now.parts.driver
        key = Key(
            key_id=f"key_{token}",
            sha256=digest_of(token),
            tenant_id=tenant,
            user_id=f"user-of-{tenant}",
            permissions=permissions or ALL,
            created_at_ms=1,
        )
        await driver.submit(PutKey(caller=CoreCaller(tenant_id="local", user_id="test"), key=key))
        return Caller(self.channel, token)


@asynccontextmanager
async def open_house(folder: Path, *words: str) -> AsyncIterator[House]:
    """A coordinator in this process, on a free port."""
    async with running(settings(folder, "127.0.0.1:0", "--stop-grace-s", "1", *words)) as now:
        address = f"127.0.0.1:{now.port}"
        async with grpc.aio.insecure_channel(address, options=CHANNEL) as channel:
            yield House(now, folder, channel)


class Program:
    """`python -m coordinator`, killed and started again as a test likes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = Port()
        self._process: subprocess.Popen[bytes] | None = None
        self.address = str(self._port)

    async def start(self, *words: str) -> None:
        """Starts it and waits until it serves."""
        argv = ["--data-dir", str(self._folder), "--grpc", self.address, *words]
        self._process = self._spawn(argv)
        async with grpc.aio.insecure_channel(self.address, options=CHANNEL) as channel:
            async with asyncio.timeout(START_S):
                await channel.channel_ready()

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "program.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "coordinator", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def caller(self, channel: grpc.aio.Channel, name: str) -> Caller:
        """The one whose secret lies in a file of the data directory."""
        return Caller(channel, (self._folder / name).read_text().strip())

    async def kill(self) -> None:
        """kill -9."""
        await self.stop(signal.SIGKILL)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stops it with a signal; answers its exit status."""
        assert self._process is not None
        os.kill(self._process.pid, number)
        return await asyncio.to_thread(self._process.wait, START_S)

    async def close(self) -> None:
        """Ends it, however it is."""
        if self._process is not None and self._process.poll() is None:
            await self.kill()
        self._port.close()
