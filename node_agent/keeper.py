"""Keeps the leases of this node: acts on what `reconcile` asks for, and finds leases again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from node_agent import files, orders
from node_agent.core.leases import Category, Desired, Fault
from node_agent.core.reconcile import Action, Conclude, Forget, Start, Stop, reconcile
from node_agent.held import HeldLease, Seen, Tools
from node_agent.ranks import DetectedDevice, SpoolProtocol
from node_agent.runtime.protocol import Runtime
from node_agent.runtime.supervisor import now_at_ms
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2


class Keeper:
    """All leases of this node by (lease_id, epoch), and what is desired of them."""

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
        self._leases_dir = data_dir / "leases"
        self._tools = Tools(
            tasks=tasks,
            runtime=runtime,
            spool=spool,
            storage_dir=storage_dir,
            trash_dir=data_dir / "trash",
            devices={device.device_id: device for device in devices},
            changed=self._changed,
        )
        self._held: dict[tuple[str, int], HeldLease] = {}
        self._desired: dict[tuple[str, int], agent_pb2.DesiredLease] | None = None
        self._step_due = False
        runtime.on_change = spool.on_change = self._changed

    async def adopt(self) -> None:
        """Finds the leases that an earlier agent kept; removes folders where none was ordered."""
        self._leases_dir.mkdir(parents=True, exist_ok=True)
        trash = self._tools.trash_dir
        await asyncio.to_thread(files.empty, trash)
        for path in sorted(self._leases_dir.iterdir()):
            grant, ranks = await asyncio.to_thread(orders.recover, path)
            if not ranks:
                await asyncio.to_thread(files.remove_folder, path, trash)
                continue
            held = HeldLease(self._tools, grant, path=path, ranks=ranks)
            await held.adopt()
            self._held[grant.lease_id, grant.epoch] = held
        self._changed()

    def desire(self, leases: Sequence[agent_pb2.DesiredLease]) -> None:
        """Takes over the whole list of what is desired, and acts on it at once."""
        self._desired = {(lease.lease_id, lease.epoch): lease for lease in leases}
        self._step()

    def seen(self) -> list[Seen]:
        """Every lease that is to be reported, by id."""
        return [held.see() for _, held in sorted(self._held.items())]

    def _changed(self) -> None:
        """Something was observed; the changes of one turn of the event loop make one step."""
        if not self._step_due:
            self._step_due = True
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        self._step_due = False
        for held in self._held.values():
            held.follow()
        desired = None
        if self._desired is not None:
            desired = [_desired(lease) for lease in self._desired.values()]
        observed = [held.observe() for held in self._held.values()]
        for action in reconcile(desired, observed, now_ms=now_at_ms()):
            self._act(action, (action.lease_id, action.epoch))
        self.on_change()

    def _act(self, action: Action, key: tuple[str, int]) -> None:
        match action:
            case Start():
                self._start(key)
            case Conclude(fault=fault):
                self._hold(key, fault=fault)
            case Stop(grace_ms=grace_ms):
                self._held[key].stop(grace_ms)
            case Forget():
                self._held[key].leave()
                self._tools.tasks.create_task(self._forget(key))

    def _start(self, key: tuple[str, int]) -> None:
        ranks = orders.rank_folders(self._grant(key), self._path(key))
        if ranks:
            self._tools.tasks.create_task(self._hold(key, ranks=ranks).start())
        else:
            fault = Fault(Category.CONFIG, "the lease names no ranks of this node")
            self._hold(key, fault=fault)

    def _hold(
        self,
        key: tuple[str, int],
        *,
        ranks: dict[int, Path] | None = None,
        fault: Fault | None = None,
    ) -> HeldLease:
        grant = agent_pb2.DesiredLease()
        grant.CopyFrom(self._grant(key))
        held = HeldLease(self._tools, grant, path=self._path(key), ranks=ranks or {}, fault=fault)
        self._held[key] = held
        return held

    def _grant(self, key: tuple[str, int]) -> agent_pb2.DesiredLease:
        assert self._desired is not None, "reconcile starts nothing before anything was desired"
        return self._desired[key]

    def _path(self, key: tuple[str, int]) -> Path:
        return orders.lease_folder(self._leases_dir, key)

    async def _forget(self, key: tuple[str, int]) -> None:
        await self._held[key].forget()
        del self._held[key]
        self._changed()


def _desired(lease: agent_pb2.DesiredLease) -> Desired:
    return Desired(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        run=lease.action == agent_pb2.DesiredLease.RUN,
        grace_ms=max(0, lease.grace_ms),
        has_spec=lease.HasField("spec"),
    )
