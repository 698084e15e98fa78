"""Builds the coordinator and runs it; the only place that knows every part."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from coordinator.core.commands import Caller, PutKey
from coordinator.core.core import Core, CoreSettings
from coordinator.core.records import Key
from coordinator.rpc.server import Parts, Server
from coordinator.runtime.bootstrap import digest_of, new_key, read_or_make
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.metrics import metrics_served
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.settings import CoordinatorSettings
from coordinator.runtime.telemetry import Telemetry
from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import Store, StoreError
from coordinator.store.sqlite import SqliteStore
from coordinator.streams.memory import MemoryStreams
from coordinator.streams.protocol import Streams, StreamsUnavailable
from coordinator.streams.sqlite import SqliteStreams
from scaimind.service import log as service_log
from scaimind.v1 import options_pb2

GC_YOUNG, GC_MIDDLE, GC_OLD = 20_000, 20, 50
EXIT_FAULT = 1
EXIT_CANNOT_START = 3

log = structlog.get_logger("coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A coordinator that leads and serves. `deciding` ends when it must not go on."""

    parts: Parts
    server: Server
    port: int
    deciding: asyncio.Task[None]


async def serve(settings: CoordinatorSettings) -> int:
    """Runs until SIGINT or SIGTERM; answers the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with running(settings) as now:
            jobs = len(now.parts.driver.view.jobs)
            log.info("serving", grpc=settings.grpc, port=now.port, jobs=jobs)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({now.deciding, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
    except (StoreError, StreamsUnavailable, Refusal, OSError) as error:
        log.error("cannot_run", error=str(error))
        return EXIT_CANNOT_START
    if now.deciding.cancelled():
        return 0
    # The loop ended by itself: it was fenced, or the core doubts its state. Stop handing out devices.
    log.error("driver_stopped", exc_info=now.deciding.exception())
    return EXIT_FAULT


@asynccontextmanager
async def running(settings: CoordinatorSettings) -> AsyncIterator[Running]:
    """Builds the coordinator, leads and serves; takes it down in the order in which it was built.

    Raises:
        StoreError, StreamsUnavailable, Refusal, OSError: it cannot be started; the text says why.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        store, streams = _stores(settings)
        for one in (store, streams):
            stack.push_async_callback(one.close)
            await one.open()
        clock = Clock()
        driver = Driver(
            lambda: Core(core_settings(settings)),
            store,
            clock=clock,
            queue_limit=settings.queue_limit,
            batch_limit=settings.batch_limit,
        )
        await driver.lead(f"{socket.gethostname()}:{os.getpid()}")
        deciding = asyncio.create_task(driver.run())
        stack.push_async_callback(_end, deciding)
        directory = settings.data_dir
        await _ensure_admin_key(driver, clock, directory / "admin.key")
        parts = Parts(
            driver=driver,
            store=store,
            streams=streams,
            clock=clock,
            telemetry=Telemetry(),
            api_secret=_secret(settings.api_secret_file, directory / "gateway.secret"),
            join_token=_secret(settings.join_token_file, directory / "join.token"),
        )
        server = Server(parts)
        port = await server.start(settings.grpc)
        stack.push_async_callback(server.stop, settings.stop_grace_s)
        await stack.enter_async_context(metrics_served(driver, settings.metrics))
        await server.set_serving(True)
        yield Running(parts=parts, server=server, port=port, deciding=deciding)


async def _end(deciding: asyncio.Task[None]) -> None:
    deciding.cancel()
    await asyncio.wait({deciding})


def core_settings(settings: CoordinatorSettings) -> CoreSettings:
    """The settings that the core decides by."""
    return CoreSettings(
        unreachable_after_ms=int(settings.unreachable_after_s * 1000),
        max_live_jobs=settings.max_live_jobs,
    )


def _stores(settings: CoordinatorSettings) -> tuple[Store, Streams]:
    if settings.store == "memory":
        return MemoryStore(), MemoryStreams()
    return (
        SqliteStore(settings.data_dir / "coordinator.db"),
        SqliteStreams(settings.data_dir / "streams.db"),
    )


def _secret(given: Path | None, default: Path) -> str:
    if given is not None and given != default:
        if not given.is_file():
            raise SystemExit(f"coordinator: {given} does not exist")
        return read_or_make(given, "")
    return read_or_make(default, secrets.token_urlsafe(32))


async def _ensure_admin_key(driver: Driver, clock: Clock, path: Path) -> None:
    """At the first start, makes a key of tenant `local` with every permission.

    The file comes first: a crash in between leaves a file whose key is kept at the next start.
    """
    if driver.view.keys:
        return
    digest = digest_of(read_or_make(path, new_key()))
    names = [value.name for value in options_pb2.Permission.DESCRIPTOR.values if value.number]
    key = Key(
        key_id="key_admin",
        sha256=digest,
        tenant_id="local",
        user_id="admin",
        permissions=tuple(sorted(names)),
        created_at_ms=clock.now_ms(),
    )
    await driver.submit(PutKey(caller=Caller(tenant_id="local", user_id="admin"), key=key))


def main() -> int:
    """`python -m coordinator`."""
    settings = CoordinatorSettings.load("coordinator")
    service_log.configure(level=settings.log_level, json=settings.log_json)
    # Live jobs are many and stay: looking through all of them for garbage every few thousand calls
    # would make each submit cost more the more jobs wait.
    gc.set_threshold(GC_YOUNG, GC_MIDDLE, GC_OLD)
    try:
        return asyncio.run(serve(settings))
    except KeyboardInterrupt:
        return 0
