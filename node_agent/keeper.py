"""Keeps the leases of this node: acts on what `reconcile` asks for, and finds leases again.

Theory of operation. Whatever changes, names the lease that has changed; the next step looks at
those leases alone, and at what is desired of them. The rules of `reconcile` are per lease, so that
is as good as looking at all. The report of a lease is made when it was looked at, and kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from node_agent import files, orders
from node_agent.core.leases import Category, Desired, Fault, State
from node_agent.core.reconcile import Action, Conclude, Forget, Start, Stop, reconcile
from node_agent.groups import Groups
from node_agent.held import Granted, HeldLease, Tools, Witness
from node_agent.ranks import DetectedDevice, SpoolProtocol
from node_agent.report import report
from node_agent.runtime.proc import now_at_ms
from node_agent.runtime.protocol import RankOrder, Runtime
from node_agent.runtime.rules import Rules
from node_agent.sharing import thousandths_of
from node_agent.supplies import Supplier
from node_agent.uploads.mover import MoverProtocol
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2


class Keeper:
    """All leases of this node by id and epoch, and what is desired of them."""

    def __init__(
        self,
        *,
        tasks: asyncio.TaskGroup,
        data_dir: Path,
        storage_dir: Path,
        runtime: Runtime,
        spool: SpoolProtocol,
        devices: Callable[[], Sequence[DetectedDevice]],
        rules: Rules,
        mover: MoverProtocol,
        address: str,
        witness: Witness,
        supplier: Supplier | None = None,
    ) -> None:
        """Keeps leases below `data_dir` and their results below `storage_dir`, both absolute.

        `devices` tells what the node has now. `rules` are the admin's, of what ranks run as; `mover` brings
        models away and checkpoints here; `address` is the node's; `witness` tells what was
        measured. Without a supplier everything that a job names has to be on the node.
        """
        self.on_change: Callable[[], None] = lambda: None
        self._leases_dir = data_dir / "leases"
        self._trash_dir = data_dir / "trash"
        self._storage_dir = storage_dir
        self._rules = rules
        self._address = address
        self._devices = devices
        self._tools = Tools(
            tasks=tasks,
            runtime=runtime,
            spool=spool,
            storage_dir=storage_dir,
            mover=mover,
            prepare=Groups(tasks, self._prepare),
            holds_anything=Groups(tasks, files.has_entries),
            flush=Groups(tasks, files.sync),
            remove=Groups(tasks, self._remove),
            changed=self._changed,
            witness=witness,
            supplier=supplier,
        )
        self._held: dict[str, dict[int, HeldLease]] = {}
        self._desired: dict[str, list[agent_pb2.DesiredLease]] | None = None
        self._reports: dict[str, list[agent_pb2.ObservedLease]] = {}
        self._stale: dict[str, None] = {}  # leases to look at in the next step
        self._leases_of: dict[Path, str] = {}  # by the folders of their ranks
        runtime.on_change = self._rank_changed
        spool.on_change = self._changed

    async def adopt(self) -> None:
        """Finds the leases that an earlier agent kept; removes folders where none was ordered."""
        self._leases_dir.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(files.empty, self._trash_dir)
        for path in sorted(self._leases_dir.iterdir()):
            grant, ranks = await asyncio.to_thread(orders.recover, path)
            if ranks:
                await self._hold(grant, ranks=ranks, path=path).adopt()
                self._changed(grant.lease_id)
            else:
                await asyncio.to_thread(files.remove_folder, path, self._trash_dir)
        await self._tools.runtime.end_strays(list(self._leases_of))

    async def end_all(self) -> None:
        """Stops every lease, and returns when nothing of them runs; nobody is told of it."""
        changed = asyncio.Event()
        self.on_change = changed.set
        self.desire([])
        while any(lease.observed.state is not State.ENDED for lease in self._held_of(self._held)):
            changed.clear()
            await changed.wait()

    def desire(self, leases: Sequence[agent_pb2.DesiredLease]) -> None:
        """Takes over the whole list of what is desired, and acts on it at once."""
        before, after = self._desired, _by_id(leases)
        if before is None:
            self._stale.update(dict.fromkeys(self._held))
            before = {}
        self._desired = after
        for lease_id in {**before, **after}:
            if before.get(lease_id) != after.get(lease_id):
                self._stale[lease_id] = None
                self._tell(lease_id)
        self._step()

    def reports(self) -> list[agent_pb2.ObservedLease]:
        """Every lease as it is to be told to the coordinator, by id."""
        return [one for _, reports in sorted(self._reports.items()) for one in reports]

    def holders(self) -> dict[str, dict[str, str]]:
        """Of each device that a lease holds: whose it is, as labels of what the device measures."""
        found: dict[str, dict[str, str]] = {}
        for lease_id, by_epoch in self._held.items():
            for held in by_epoch.values():
                spec = held.grant.spec
                labels = {
                    "job_id": spec.job_id,
                    "attempt": str(spec.attempt),
                    "tenant_id": spec.tenant_id,
                    "lease_id": lease_id,
                }
                found.update(dict.fromkeys(spec.device_ids, labels))
        return found

    def _tell(self, lease_id: str) -> None:
        """Passes on after how long without contact a lease is to stop, and that it is to save."""
        for epoch, held in self._held.get(lease_id, {}).items():
            for want in (self._desired or {}).get(lease_id, ()):
                if want.epoch != epoch:
                    continue
                held.known(want.checkpoint_ids)
                if want.action == agent_pb2.DesiredLease.RUN:
                    held.fence(max(0, want.fence_after_ms))
                    held.save(want.save)

    def _prepare(self, granted: Granted) -> Sequence[RankOrder]:
        return orders.prepare(
            granted.grant,
            granted.path,
            storage_dir=self._storage_dir,
            devices={device.device_id: device for device in self._devices()},
            rules=self._rules,
            agent_environ=os.environ,
            address=self._address,
            supplies=granted.supplies,
        )

    def _remove(self, folder: Path) -> None:
        files.remove_folder(folder, self._trash_dir)

    def _rank_changed(self, path: Path) -> None:
        lease_id = self._leases_of.get(path)
        if lease_id is not None:
            self._changed(lease_id)

    def _changed(self, lease_id: str) -> None:
        """Something was observed; the changes of one turn of the event loop make one step."""
        if not self._stale:
            asyncio.get_running_loop().call_soon(self._step)
        self._stale[lease_id] = None

    def _step(self) -> None:
        stale, self._stale = self._stale, {}
        # A lease may wait until another one has left its devices: whatever changes, it is looked at.
        waiting = [one for one in self._desired or () if one not in self._held]
        stale.update(dict.fromkeys(waiting))
        held = list(self._held_of(stale))
        for lease in held:
            lease.follow()
        desired = None
        if self._desired is not None:
            wanted = self._desired
            desired = [_desired(one) for lease_id in stale for one in wanted.get(lease_id, ())]
        observed = [lease.observed for lease in held]
        rest = [one for one in self._held if one not in stale] if waiting else []
        others = [lease.observed for lease in self._held_of(rest)]
        for action in reconcile(desired, observed, now_ms=now_at_ms(), others=others):
            self._act(action)
        if self._report(stale):
            self.on_change()

    def _report(self, lease_ids: Iterable[str]) -> bool:
        """Makes the reports of some leases anew; returns whether any has changed."""
        changed = False
        for lease_id in lease_ids:
            reports = [report(held.see()) for held in self._held_of((lease_id,))]
            if reports != self._reports.get(lease_id, []):
                self._reports[lease_id] = reports
                changed = True
            if not reports:
                self._reports.pop(lease_id, None)
        return changed

    def _held_of(self, lease_ids: Iterable[str]) -> Iterable[HeldLease]:
        for lease_id in lease_ids:
            for _, held in sorted(self._held.get(lease_id, {}).items()):
                yield held

    def _act(self, action: Action) -> None:
        lease_id, epoch = action.lease_id, action.epoch
        match action:
            case Start():
                self._start(self._grant(lease_id, epoch))
            case Conclude(fault=fault):
                self._hold(self._grant(lease_id, epoch), fault=fault)
            case Stop(grace_ms=grace_ms):
                self._held[lease_id][epoch].stop(grace_ms)
            case Forget():
                held = self._held[lease_id][epoch]
                held.leave()
                self._tools.tasks.create_task(self._forget(held))

    def _start(self, grant: agent_pb2.DesiredLease) -> None:
        tokens = dict(grant.spec.tokens)  # they are for memory alone, and the grant is written down
        grant.spec.ClearField("tokens")
        ranks = orders.rank_folders(grant, orders.lease_folder(self._leases_dir, grant))
        if ranks:
            self._tools.tasks.create_task(self._hold(grant, ranks=ranks).start(tokens))
        else:
            fault = Fault(Category.CONFIG, "the lease names no ranks of this node")
            self._hold(grant, fault=fault)

    def _hold(
        self,
        grant: agent_pb2.DesiredLease,
        *,
        ranks: dict[int, Path] | None = None,
        fault: Fault | None = None,
        path: Path | None = None,
    ) -> HeldLease:
        path = path or orders.lease_folder(self._leases_dir, grant)
        held = HeldLease(self._tools, grant, path=path, ranks=ranks or {}, fault=fault)
        self._held.setdefault(grant.lease_id, {})[grant.epoch] = held
        self._leases_of.update(dict.fromkeys((ranks or {}).values(), grant.lease_id))
        return held

    def _grant(self, lease_id: str, epoch: int) -> agent_pb2.DesiredLease:
        """A copy of what is desired, which does not keep the rest of the answer alive."""
        assert self._desired is not None, "reconcile starts nothing before anything was desired"
        grant = agent_pb2.DesiredLease()
        grant.CopyFrom(next(one for one in self._desired[lease_id] if one.epoch == epoch))
        return grant

    async def _forget(self, held: HeldLease) -> None:
        await held.forget()
        lease_id = held.grant.lease_id
        del self._held[lease_id][held.grant.epoch]
        if not self._held[lease_id]:
            del self._held[lease_id]
        for path in held.folders:
            self._leases_of.pop(path, None)
        self._changed(lease_id)


def _by_id(leases: Sequence[agent_pb2.DesiredLease]) -> dict[str, list[agent_pb2.DesiredLease]]:
    found: dict[str, list[agent_pb2.DesiredLease]] = {}
    for lease in leases:
        found.setdefault(lease.lease_id, []).append(lease)
    return found


def _desired(lease: agent_pb2.DesiredLease) -> Desired:
    return Desired(
        lease_id=lease.lease_id,
        epoch=lease.epoch,
        run=lease.action == agent_pb2.DesiredLease.RUN,
        grace_ms=max(0, lease.grace_ms),
        has_spec=lease.HasField("spec"),
        device_ids=tuple(lease.spec.device_ids),
        thousandths=thousandths_of(lease.spec),
    )
