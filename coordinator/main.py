"""Builds the coordinator and runs it; the only place that knows every part."""

from __future__ import annotations

import asyncio
import gc
import math
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import structlog

from coordinator.core.commands import Caller, PutKey
from coordinator.core.core import Core, CoreSettings
from coordinator.core.health import HealthRules
from coordinator.core.records import Key
from coordinator.data.checker import Checker
from coordinator.data.terms import Rules
from coordinator.data_dir import STORE, STORE_ID, STREAMS, check_whole
from coordinator.rpc.server import Parts, Server
from coordinator.rpc.tls import ServerTls
from coordinator.runtime.bootstrap import OWN_TENANT, digest_of, new_key, read_or_make
from coordinator.runtime.clock import Clock
from coordinator.runtime.driver import Driver
from coordinator.runtime.forecaster import Forecaster
from coordinator.runtime.leadership import Leadership
from coordinator.runtime.metrics import metrics_served
from coordinator.runtime.refusal import Refusal
from coordinator.runtime.settings import CoordinatorSettings, is_shared
from coordinator.runtime.telemetry import Telemetry
from coordinator.sqlite.files import FileTrouble
from coordinator.store.memory import MemoryStore
from coordinator.store.protocol import Fenced, Store, StoreError, StoreUnavailable
from coordinator.store.sealed import Sealed, check_seal
from coordinator.store.sqlite import SqliteStore
from coordinator.streams.front import FrontedStreams
from coordinator.streams.memory import MemoryStreams
from coordinator.streams.protocol import Streams, StreamsUnavailable
from coordinator.streams.retention import ALL_IN_MEMORY_BYTES, keep_within
from coordinator.streams.sqlite import SqliteStreams
from scaimind.service import log as service_log
from scaimind.service.reach.settings import words_of
from scaimind.v1 import options_pb2

GC_YOUNG, GC_MIDDLE, GC_OLD = 20_000, 20, 50
EXIT_FAULT = 1
EXIT_CANNOT_START = 3

log = structlog.get_logger("coordinator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A coordinator that leads and serves, for one term: until `deciding` or `keeping` ends."""

    parts: Parts
    server: Server
    port: int
    deciding: asyncio.Task[None]
    keeping: asyncio.Task[None]


async def serve(settings: CoordinatorSettings) -> int:
    """Runs until SIGINT or SIGTERM; answers the exit status."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    status: int | None = None
    while status is None:
        term = asyncio.create_task(_term(settings))
        await asyncio.wait({term, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            await _end(term)
            status = 0
        else:
            status = term.result()
    stopping.cancel()
    return status


async def _term(settings: CoordinatorSettings) -> int | None:
    """Stands by, leads, and ends; answers an exit status, or None to stand by again.

    A deposed leader forgets all it held: the next term begins like the start of a process.
    """
    try:
        async with running(settings) as now:
            jobs = len(now.parts.driver.view.jobs)
            log.info("serving", grpc=settings.grpc, port=now.port, jobs=jobs)
            await asyncio.wait({now.deciding, now.keeping}, return_when=asyncio.FIRST_COMPLETED)
            ended = now.deciding if now.deciding.done() else now.keeping
            error = ended.exception()
    except Fenced as fenced:
        error = fenced
    except (StoreError, StreamsUnavailable, Refusal, OSError) as trouble:
        log.error("cannot_run", error=str(trouble))
        return EXIT_CANNOT_START
    if isinstance(error, Fenced):
        log.warning("deposed", error=str(error))
        return None
    # The core doubts its state. Stop handing out devices.
    log.error("driver_stopped", exc_info=error)
    return EXIT_FAULT


@asynccontextmanager
async def running(settings: CoordinatorSettings) -> AsyncIterator[Running]:
    """Builds the coordinator, stands by until it leads, and serves.

    It is taken down in the order in which it was built.

    Raises:
        StoreError, StreamsUnavailable, Refusal, OSError: it cannot be started; the text says why.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    async with AsyncExitStack() as stack:
        parts = await _parts(settings, stack)
        server = Server(parts)
        driver, leadership = parts.driver, parts.leadership
        shared = is_shared(settings.store)
        if shared:  # a standby tells whoever asks who leads
            port = await _listen(server, settings, stack)
        stack.push_async_callback(leadership.resign)
        epoch = await leadership.win()
        keeping = asyncio.create_task(leadership.keep(server.set_serving))
        stack.push_async_callback(_end, keeping)
        await driver.lead(epoch)
        await check_seal(parts.store, driver.view.jobs)
        if not shared:  # a thousand agents that are refused and come again would only be in the way
            port = await _listen(server, settings, stack)
        if isinstance(parts.streams, FrontedStreams):
            live = driver.view.jobs
            pruning = keep_within(parts.streams, _logs_budget(settings), live.__contains__)
            stack.push_async_callback(_end, asyncio.create_task(pruning))
        deciding = asyncio.create_task(driver.run())
        stack.push_async_callback(_end, deciding)
        stack.push_async_callback(server.stop, settings.stop_grace_s)  # while it still decides
        await _ensure_admin_key(driver, parts.clock, settings.data_dir / "admin.key")
        await stack.enter_async_context(metrics_served(driver, settings.metrics))
        await server.set_serving(True)
        yield Running(parts=parts, server=server, port=port, deciding=deciding, keeping=keeping)


async def _listen(server: Server, settings: CoordinatorSettings, stack: AsyncExitStack) -> int:
    port = await server.start(settings.grpc)
    stack.push_async_callback(server.stop, settings.stop_grace_s)
    return port


async def _parts(settings: CoordinatorSettings, stack: AsyncExitStack) -> Parts:
    """Everything but the server; the stack closes the stores."""
    store, streams = _stores(settings)
    if settings.seal_key_file is not None:
        store = _sealed(store, settings.seal_key_file)
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
    leadership = Leadership(
        store,
        address=settings.advertise or settings.grpc,
        ttl_s=settings.lease_ttl_s if is_shared(settings.store) else math.inf,
    )
    directory = settings.data_dir
    forecaster = Forecaster(driver.view, clock, settings=core_settings(settings))
    stack.push_async_callback(forecaster.close)
    return Parts(
        driver=driver,
        leadership=leadership,
        store=store,
        streams=streams,
        clock=clock,
        telemetry=Telemetry(),
        api_secret=_secret(settings.api_secret_file, directory / "gateway.secret"),
        page_secret=await store.secret(),
        join_token=_secret(settings.join_token_file, directory / "join.token"),
        checker=Checker(data_rules(settings)),
        forecaster=forecaster,
        tokens=settings.tokens(),
        tls=_tls(settings),
    )


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


def core_settings(settings: CoordinatorSettings) -> CoreSettings:
    """The settings that the core decides by."""
    return CoreSettings(
        unreachable_after_ms=int(settings.unreachable_after_s * 1000),
        recovery_grace_ms=int(settings.unreachable_after_s * 1500),
        replace_after_ms=int(settings.replace_after_s * 1000),
        min_run_ms=int(settings.min_run_s * 1000),
        near_checkpoint_ms=int(settings.near_checkpoint_s * 1000),
        near_data_ms=int(settings.near_data_s * 1000),
        max_live_jobs=settings.max_live_jobs,
        health=HealthRules(users_count=settings.blame_users),
    )


def data_rules(settings: CoordinatorSettings) -> Rules:
    """What checks of data may read. The coordinator's own folder and secrets stay shut."""
    own = (
        settings.data_dir,
        settings.api_secret_file,
        settings.join_token_file,
        settings.seal_key_file,
    )
    return Rules(
        roots=words_of(settings.data_roots),
        closed=tuple(str(path.absolute()) for path in own if path is not None),
        networks=words_of(settings.data_networks),
        origins=settings.data_origins,
        endpoints=settings.data_endpoints,
        source_s=settings.data_check_s * 0.8,
        all_s=settings.data_check_s,
    )


def _stores(settings: CoordinatorSettings) -> tuple[Store, Streams]:
    if settings.store == "memory":
        return MemoryStore(events_kept=settings.audit_events), MemoryStreams()
    if is_shared(settings.store):
        known = settings.data_dir / STORE_ID
        # a start is a fifth of a second shorter without what only this needs
        from coordinator.store.redis import RedisStore
        from coordinator.streams.redis import RedisStreams

        shared = RedisStore(settings.store, known, events_kept=settings.audit_events)
        return shared, RedisStreams(settings.store, lambda: shared.epoch)
    try:
        check_whole(settings.data_dir)
    except FileTrouble as error:
        raise StoreUnavailable(str(error)) from error
    store = SqliteStore(settings.data_dir / STORE, events_kept=settings.audit_events)
    return store, SqliteStreams(settings.data_dir / STREAMS)


def _sealed(store: Store, path: Path) -> Store:
    # who seals nothing loads no cryptography
    from coordinator.store.seal import Seal

    return cast(Store, Sealed(store, Seal(_given(path))))


def _logs_budget(settings: CoordinatorSettings) -> int:
    """Bytes of all logs together; fewer where they are kept in memory and nobody said how many."""
    if is_shared(settings.store) and "all_logs_bytes" not in settings.model_fields_set:
        return ALL_IN_MEMORY_BYTES
    return settings.all_logs_bytes


def _tls(settings: CoordinatorSettings) -> ServerTls | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(cert=settings.tls_cert, key=settings.tls_key, ca=settings.tls_ca)


def _secret(given: Path | None, default: Path) -> str:
    if given is not None and given != default:
        return _given(given)
    return read_or_make(default, secrets.token_urlsafe(32))


def _given(path: Path) -> str:
    if not path.is_file():
        raise SystemExit(f"coordinator: {path} does not exist")
    return read_or_make(path, "")


async def _ensure_admin_key(driver: Driver, clock: Clock, path: Path) -> None:
    """At the first start, makes a key of tenant `local` with every permission.

    The file comes first: a crash in between leaves a file whose key is kept at the next start.
    """
    if any(not key.node_id for key in driver.view.keys.values()):
        return
    digest = digest_of(read_or_make(path, new_key()))
    names = [value.name for value in options_pb2.Permission.DESCRIPTOR.values if value.number]
    key = Key(
        key_id="key_admin",
        sha256=digest,
        tenant_id=OWN_TENANT,
        user_id="admin",
        permissions=tuple(sorted(names)),
        created_at_ms=clock.now_ms(),
    )
    await driver.submit(PutKey(caller=Caller(tenant_id=OWN_TENANT, user_id="admin"), key=key))


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
