"""The node agent's program: puts the parts together, runs them, and ends without touching jobs.

Exit codes: 0 after SIGTERM or SIGINT; 1 where it cannot start; 2 for bad settings; 3 when a newer
agent has taken the node over, after it has stopped what it ran.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from node_agent import toolkit
from node_agent.ahead import Ahead
from node_agent.cache.cache import Cache
from node_agent.cache.pace import Pace
from node_agent.canary import Canary
from node_agent.credential import Credential
from node_agent.files import replace_file, sync
from node_agent.holdings import Holdings
from node_agent.keeper import Keeper
from node_agent.metrics import metrics_served
from node_agent.offer import offer
from node_agent.runtime import cgroups, orphans
from node_agent.runtime.contact import Contact
from node_agent.runtime.process import ContainersProtocol, ProcessRuntime
from node_agent.runtime.rules import ContainerRules, Rules
from node_agent.session import CHANNEL_OPTIONS, Session, Superseded
from node_agent.settings import Settings
from node_agent.sharing import sharing_labels
from node_agent.spool import Spool
from node_agent.supplies import Supplier
from node_agent.telemetry import KeptSamples, TelemetryReporter, open_probe, page, witness
from node_agent.telemetry.probe import Probe
from node_agent.uploads.mover import Mover
from scaimind.agent.v1.agent_service_pb2 import NodeOffer, ReportTelemetryRequest
from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from scaimind.channel import open_aio
from scaimind.service import log as service_log

SUPERSEDED = 3
CONTAINERS_LABEL = "containers"  # of nodes that run jobs that name an image

if TYPE_CHECKING:  # the class is there for type checkers only
    from scaimind.agent.v1.agent_service_pb2_grpc import AgentServiceAsyncStub

log = structlog.get_logger()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the agent until it is told to end; returns the exit code."""
    settings = Settings.load("node_agent", argv)
    service_log.configure(level=settings.log_level, json=settings.log_json)
    data_dir = Path(os.path.abspath(settings.data_dir))
    try:
        probe = open_probe(settings.devices)
        data_dir.mkdir(parents=True, exist_ok=True)
        if settings.rank_group:
            cgroups.delegate(settings.rank_group)
        lock = _lock(data_dir)
        generation = _next_generation(data_dir / "generation")
        token = settings.token()
        credential = Credential(data_dir, node_id=settings.node_id, join_token=token)
    except OSError as error:
        print(f"node_agent: {error.filename or data_dir}: {error.strerror}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"node_agent: --devices: {error}", file=sys.stderr)
        return 2
    try:
        return asyncio.run(
            _serve(settings, probe, data_dir=data_dir, credential=credential, generation=generation)
        )
    finally:
        os.close(lock)


async def _serve(
    settings: Settings, probe: Probe, *, data_dir: Path, credential: Credential, generation: int
) -> int:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        contact = Contact(str(data_dir / "contact"))
        mark = orphans.node_mark(settings.node_id, settings.coordinator, settings.token())
        rules = toolkit.guarded(settings.rules)
        cache = _cache(settings, stack)
        # there to find those again that run
        containers = _containers(settings.rules.containers, mark, cache.pace)
        runtime = ProcessRuntime(
            tasks, contact, mark=mark, rules=rules.processes, containers=containers
        )
        stack.push_async_callback(runtime.close)
        await runtime.open()  # before gRPC has any threads
        channel = open_aio(settings.coordinator, CHANNEL_OPTIONS, tls=settings.tls)
        stack.push_async_callback(channel.close)
        stub = AgentServiceStub(channel)
        mover = Mover()
        spool = Spool(
            lambda: stub.Push(metadata=credential.metadata),
            node_id=settings.node_id,
            boot=orphans.boot_mark(),
            mover=mover,
        )
        telemetry = _telemetry(settings, probe, stub, credential=credential, data_dir=data_dir)
        await cache.open()
        images = containers.digest if containers else None
        holdings = _holdings(settings, cache, stub, credential=credential, containers=containers)
        keeper = Keeper(
            tasks=tasks,
            data_dir=data_dir,
            storage_dir=settings.storage,
            runtime=runtime,
            spool=spool,
            devices=telemetry.devices,
            rules=rules,
            mover=mover,
            address=settings.address,
            witness=partial(witness, telemetry),
            supplier=Supplier(cache, rules, images=images),
        )
        ahead = Ahead(cache, images=images)
        await keeper.adopt()
        offered = partial(_offer, settings, telemetry, rules=rules, holdings=holdings)
        session = Session(
            stub,
            keeper,
            node_id=settings.node_id,
            incarnation=uuid.uuid4().hex,
            generation=generation,
            offer=offered(),
            hold_ms=settings.hold_ms,
            credential=credential,
            on_contact=contact.note,
            trial=_canary(stack, telemetry, rules),
            expect=ahead.expect,
        )
        telemetry.on_change = holdings.on_change = lambda: session.offer(offered())
        await _show(settings, stack, telemetry, keeper=keeper)
        log.info("agent_started", node_id=settings.node_id, devices=len(telemetry.devices()))
        working = [tasks.create_task(part.run()) for part in (spool, telemetry, holdings, ahead)]
        code = await _until_told(session, keeper)
        for work in working:
            work.cancel()
        return code


async def _report(
    stub: AgentServiceAsyncStub, credential: Credential, told: ReportTelemetryRequest
) -> None:
    await stub.ReportTelemetry(told, metadata=credential.metadata)


def _telemetry(
    settings: Settings,
    probe: Probe,
    stub: AgentServiceAsyncStub,
    *,
    credential: Credential,
    data_dir: Path,
) -> TelemetryReporter:
    """What this node measures."""
    return TelemetryReporter(
        probe,
        partial(_report, stub, credential),
        node_id=settings.node_id,
        data_dir=data_dir,
        kept=KeptSamples(data_dir / "telemetry"),
    )


def _holdings(
    settings: Settings,
    cache: Cache,
    stub: AgentServiceAsyncStub,
    *,
    credential: Credential,
    containers: ContainersProtocol | None,
) -> Holdings:
    """What this node has at hand."""
    return Holdings(
        cache,
        lambda told: stub.ReportCache(told, metadata=credential.metadata),
        node_id=settings.node_id,
        images=containers.image_sizes if containers else None,
    )


def _canary(stack: AsyncExitStack, telemetry: TelemetryReporter, rules: Rules) -> Canary:
    """What tries this node's devices, until the stack is left."""
    canary = Canary(telemetry.devices, rules.processes)
    stack.push_async_callback(canary.close)
    return canary


async def _show(
    settings: Settings, stack: AsyncExitStack, telemetry: TelemetryReporter, *, keeper: Keeper
) -> None:
    """Serves telemetry to Prometheus, until the stack is left; where it cannot, jobs run all the same."""

    def shown() -> str:
        return page(telemetry, hostname=settings.node_id, holders=keeper.holders())

    try:
        await stack.enter_async_context(metrics_served(settings.metrics, shown))
    except OSError as error:
        log.error("metrics_not_served", address=settings.metrics, reason=str(error))


def _cache(settings: Settings, stack: AsyncExitStack) -> Cache:
    """The data cache of this node, until the stack is left; touches nothing yet."""
    cache = Cache(settings.cache, budget_bytes=settings.cache_bytes(), rules=settings.fetch_rules)
    stack.callback(cache.close)
    return cache


def _containers(rules: ContainerRules | None, mark: str, pace: Pace) -> ContainersProtocol | None:
    """The containers of this node; None where it runs none, and then their library is not needed."""
    if rules is None:
        return None
    from node_agent.runtime.containers import Containers

    return Containers(rules, mark=mark, pace=pace)


def _offer(
    settings: Settings, telemetry: TelemetryReporter, *, rules: Rules, holdings: Holdings
) -> NodeOffer:
    devices = telemetry.devices()
    labels = {**sharing_labels(devices, os.environ), **settings.labels}
    if rules.containers is not None:
        labels = {CONTAINERS_LABEL: "yes", **labels}
    return offer(
        devices,
        address=settings.address,
        labels=labels,
        data_dir=Path(os.path.abspath(settings.data_dir)),
        holds=holdings.keys,
        fetch_bytes_per_s=holdings.fetch_bytes_per_s,
        faults=telemetry.faults.of,
    )


async def _until_told(session: Session, keeper: Keeper) -> int:
    """Runs the session until a signal or the coordinator ends it."""
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    talking = asyncio.ensure_future(session.run())
    waiting = asyncio.ensure_future(told.wait())
    await asyncio.wait((talking, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        if talking.done():
            await talking
    except Superseded:
        # This agent holds the lock of its data folder: nobody else can have adopted its leases.
        log.error("superseded", hint="a newer agent is this node; the leases of this one stop")
        await keeper.end_all()
        return SUPERSEDED
    talking.cancel()
    log.info("agent_ends", hint="jobs go on")
    return 0


def _lock(data_dir: Path) -> int:
    """Keeps a second agent out of the data folder, for as long as the descriptor is open."""
    lock = os.open(data_dir / "agent.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise OSError(error.errno, "another agent uses this data folder", str(data_dir)) from None
    return lock


def _next_generation(path: Path) -> int:
    """The number of this start, higher than all before.

    It is at least the time in seconds, so that a node whose folder was lost, or whose disk is too
    full to write it down, still starts above the agent that it replaces.
    """
    try:
        last = int(path.read_text())
    except (OSError, ValueError):
        last = 0
    generation = max(last + 1, int(time.time()))
    try:
        replace_file(path, str(generation).encode())
        sync(path)
    except OSError as error:
        log.warning("generation_not_written", reason=error.strerror)
    return generation
