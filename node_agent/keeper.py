"""Keeps the leases of this node: acts on what `reconcile` asks for, and finds leases again.

A lease is reported from the moment that it is known, so that nothing that runs or is about to is
ever hidden. `lease.pb` is written before the first rank is started, and flushed once the ranks need
the disk no more: after a power cut without it the lease is unknown, and answered as lost, which its
ranks are. A lease of which nothing could be ordered lives in memory alone. An ended lease is
reported as ended once its findings are settled and it is known whether it left a model, so that
the coordinator decides on the whole of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from node_agent import files, orders
from node_agent.command import Refused
from node_agent.core.leases import Category, Desired, Fault, Lease, Rank, State
from node_agent.core.reconcile import Action, Conclude, Forget, Start, Stop, reconcile
from node_agent.environment import folders
from node_agent.ranks import DetectedDevice, LeaseFindings, SpoolProtocol
from node_agent.runtime.protocol import RankOrder, Runtime
from node_agent.runtime.supervisor import now_at_ms
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2

SYNC_DELAY_S = 0.05

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Seen:
    """One lease as it is to be reported; `state` is ENDED only when all else is final."""

    lease: Lease
    state: State
    findings: LeaseFindings
    output_uri: str


@dataclass(slots=True)
class Held:
    """One lease in memory; `ranks` maps each local rank to its folder.

    `ordered`: the runtime has taken the ranks over. `begun`: all of them have started, or ended.
    `told_ended`: ranks whose end the spool knows. `looking`: it is being found out whether there
    is a model. `farewell`: the last report, while the lease's folder is being removed.
    `output_uri`: where the model is, "" for none, None while that is not known.
    """

    grant: agent_pb2.DesiredLease
    path: Path
    ranks: dict[int, Path] = field(default_factory=dict)
    fault: Fault | None = None
    ordered: bool = False
    farewell: Seen | None = None
    stop_by_ms: int | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    told_ended: set[int] = field(default_factory=set)
    looking: bool = False
    output_uri: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Names the grant for ever."""
        return self.grant.lease_id, self.grant.epoch

    @property
    def watched(self) -> bool:
        """Whether the spool reads its ranks; not where its spec was lost."""
        return self.ordered and bool(self.grant.spec.job_id)


class Keeper:
    """The leases of this node, from the grant to the removal of their folders."""

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        data_dir: Path,
        storage_dir: Path,
        runtime: Runtime,
        spool: SpoolProtocol,
        devices: Sequence[DetectedDevice],
    ) -> None:
        """Keeps leases below `data_dir` and their results below `storage_dir`, both absolute."""
        self.on_change: Callable[[], None] = lambda: None
        self._tasks = tasks
        self._leases_dir = data_dir / "leases"
        self._trash_dir = data_dir / "trash"
        self._storage_dir = storage_dir
        self._runtime = runtime
        self._spool = spool
        self._devices = {device.device_id: device for device in devices}
        self._held: dict[tuple[str, int], Held] = {}
        self._desired: dict[tuple[str, int], agent_pb2.DesiredLease] | None = None
        self._step_due = False
        runtime.on_change = spool.on_change = self._changed

    async def adopt(self) -> None:
        """Finds the leases that an earlier agent kept, with their ranks."""
        self._leases_dir.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(files.empty, self._trash_dir)
        for path in sorted(self._leases_dir.iterdir()):
            await self._adopt(path)
        self._changed()

    def desire(self, leases: Sequence[agent_pb2.DesiredLease]) -> None:
        """Takes over the whole list of what is desired, and acts on it at once."""
        self._desired = {(lease.lease_id, lease.epoch): lease for lease in leases}
        self._step()

    def seen(self) -> list[Seen]:
        """Every lease that is to be reported, by id."""
        return [held.farewell or self._see(held) for _, held in sorted(self._held.items())]

    def _see(self, held: Held) -> Seen:
        lease = self._observe(held)
        state = lease.state
        if state is State.ENDED and held.ranks and held.output_uri is None:
            state = State.RUNNING if held.stop_by_ms is None else State.STOPPING
        findings = self._spool.findings(held.key[0]) if held.watched else LeaseFindings()
        return Seen(lease, state, findings, held.output_uri or "")

    def _observe(self, held: Held) -> Lease:
        lease_id, epoch = held.key
        ranks = tuple(map(Rank, sorted(held.ranks)))
        if held.ordered and not held.farewell:
            ranks = tuple(
                replace(self._runtime.observe(path), rank=rank)
                for rank, path in sorted(held.ranks.items())
            )
        return Lease(
            lease_id,
            epoch,
            ranks=ranks,
            fault=held.fault,
            stop_by_ms=held.stop_by_ms,
            drained=held.farewell is not None
            or not held.watched
            or self._spool.is_drained(lease_id),
            leaving=held.farewell is not None,
        )

    def _changed(self) -> None:
        """Something was observed; the changes of one turn of the event loop make one step."""
        if not self._step_due:
            self._step_due = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._step_due = False
        for held in self._held.values():
            if held.ordered and not held.farewell:
                self._follow(held)
        desired = None
        if self._desired is not None:
            desired = [_desired(lease) for lease in self._desired.values()]
        observed = [self._observe(held) for held in self._held.values()]
        for action in reconcile(desired, observed, now_at_ms()):
            self._act(action)
        self.on_change()

    def _follow(self, held: Held) -> None:
        """Tells the spool which ranks write no more; once all is said, looks for the model."""
        lease = self._observe(held)
        if all(rank.state >= State.RUNNING for rank in lease.ranks):
            held.begun.set()
        for rank in lease.ranks:
            if rank.state is State.ENDED and rank.rank not in held.told_ended:
                held.told_ended.add(rank.rank)
                if held.watched:
                    self._spool.ended(lease.lease_id, rank.rank)
        if lease.state is State.ENDED and not held.looking and self._see(held).findings.settled:
            held.looking = True
            self._tasks.create_task(self._look_for_model(held, lease))

    async def _look_for_model(self, held: Held, lease: Lease) -> None:
        done = self._see(held).findings.done
        well = lease.succeeded and (done or not any(rank.stopped for rank in lease.ranks))
        uri = ""
        if well and held.watched and 0 in held.ranks:
            output = folders(held.grant.spec, self._storage_dir).output
            if await asyncio.to_thread(_has_entries, output):
                uri = str(output)
        held.output_uri = uri
        self._changed()

    def _act(self, action: Action) -> None:
        key = (action.lease_id, action.epoch)
        match action:
            case Start():
                self._hold(key)
            case Conclude(fault=fault):
                grant = (self._desired or {})[key]
                self._held[key] = Held(grant, self._path(grant), fault=fault)
            case Stop(grace_ms=grace_ms):
                self._stop(self._held[key], grace_ms)
            case Forget():
                held = self._held[key]
                held.farewell = self._see(held)
                self._tasks.create_task(self._forget(held))

    def _hold(self, key: tuple[str, int]) -> None:
        grant = agent_pb2.DesiredLease()
        grant.CopyFrom((self._desired or {})[key])
        path = self._path(grant)
        held = Held(grant, path, orders.rank_folders(grant, path))
        self._held[key] = held
        if held.ranks:
            self._tasks.create_task(self._start(held))
        else:
            held.fault = Fault(Category.CONFIG, "the lease names no ranks of this node")

    def _path(self, grant: agent_pb2.DesiredLease) -> Path:
        return orders.lease_folder(self._leases_dir, grant)

    async def _start(self, held: Held) -> None:
        try:
            ordered = await asyncio.to_thread(
                orders.prepare,
                held.grant,
                held.path,
                storage_dir=self._storage_dir,
                devices=self._devices,
                agent_environ=os.environ,
            )
        except Refused as refusal:
            held.fault = refusal.fault
        except OSError as error:
            held.fault = Fault(Category.STORAGE, f"the node's folders: {error.strerror}")
        if held.fault is None and held.stop_by_ms is None:
            self._order(held, ordered)
        else:
            held.ranks = {}  # nothing was started, and nothing will be
        self._changed()
        if held.ordered:
            with suppress(TimeoutError):
                await asyncio.wait_for(held.begun.wait(), SYNC_DELAY_S)
            await self._flush(held)

    def _order(self, held: Held, ordered: Sequence[RankOrder]) -> None:
        for order in ordered:
            self._watch(held, order.rank)
            self._runtime.start(order)
        held.ordered = True

    def _watch(self, held: Held, rank: int) -> None:
        path = held.ranks[rank]
        self._spool.watch(
            orders.rank_files(held.grant, path, rank=rank, storage_dir=self._storage_dir)
        )

    async def _flush(self, held: Held) -> None:
        path = held.path / orders.LEASE_FILE
        try:
            await asyncio.to_thread(files.sync, path)
        except OSError as error:
            if not held.farewell:
                log.error("lease_not_flushed", lease_id=held.key[0], error=error.strerror)

    def _stop(self, held: Held, grace_ms: int) -> None:
        held.stop_by_ms = now_at_ms() + grace_ms
        if held.ordered:
            for path in held.ranks.values():
                self._runtime.stop(path, grace_ms)

    async def _forget(self, held: Held) -> None:
        if held.watched:
            self._spool.forget(held.key[0])
        if held.ordered:
            for path in held.ranks.values():
                self._runtime.forget(path)
        try:
            await asyncio.to_thread(files.remove_folder, held.path, self._trash_dir)
        except OSError as error:
            log.error("lease_not_removed", lease_id=held.key[0], error=error.strerror)
        del self._held[held.key]
        self._changed()

    async def _adopt(self, path: Path) -> None:
        """Finds one lease again; a folder in which nothing was ordered is removed."""
        grant, ranks = await asyncio.to_thread(orders.recover, path)
        if not ranks:
            await asyncio.to_thread(files.remove_folder, path, self._trash_dir)
            return
        held = Held(grant, path, ranks)
        for folder in ranks.values():
            folder.mkdir(exist_ok=True)
        await asyncio.gather(*(self._runtime.adopt(folder, rank) for rank, folder in ranks.items()))
        held.ordered = True
        self._held[held.key] = held
        if held.watched:
            for rank in ranks:
                self._watch(held, rank)
        log.info("lease_adopted", lease_id=grant.lease_id, state=self._observe(held).state.name)


def _desired(lease: agent_pb2.DesiredLease) -> Desired:
    return Desired(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        run=lease.action == agent_pb2.DesiredLease.RUN,
        grace_ms=max(0, lease.grace_ms),
        has_spec=lease.HasField("spec"),
    )


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(entries)
    except OSError:
        return False
