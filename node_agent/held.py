"""One lease of this node, from its grant to the removal of its folder.

A lease is reported from the moment that it is known, so that nothing that runs or is about to is
ever hidden. `lease.pb` is written before the first rank is started, and flushed once the ranks need
the disk no more: after a power cut without it the lease is unknown, and answered as lost, which its
ranks are. A lease of which nothing could be ordered lives in memory alone. An ended lease is
reported as ended once its findings are settled and it is known whether it left a model, so that
the coordinator decides on the whole of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from node_agent import orders
from node_agent.command import Refused
from node_agent.core.leases import Category, Fault, Lease, Rank, State
from node_agent.environment import folders
from node_agent.ranks import LeaseFindings, SpoolProtocol
from node_agent.runtime.proc import now_at_ms
from node_agent.runtime.protocol import RankOrder, Runtime
from node_agent.sharing import thousandths_of
from node_agent.supplies import NOTHING, Supplier, Supplies
from node_agent.transfers import Transfers
from node_agent.uploads.mover import MoverProtocol
from scaimind.agent.v1 import agent_service_pb2 as agent_pb2
from scaimind.service.reach.keys import pinned
from scaimind.v1.node_pb2 import TelemetryWindow

FLUSH_DELAY_S = 0.05

log = structlog.get_logger()

Witness = Callable[[Sequence[str], int], Awaitable[TelemetryWindow]]
"""What devices measured in the minute before a time (UTC, ms)."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What leases are kept with.

    `mover` brings things to stores of objects and back. `prepare` does the blocking part of a start,
    `holds_anything` says whether a folder does, `flush` makes a file durable, `remove` removes a
    folder; all may raise OSError. `witness` sums up what was measured before a failure. `changed` is
    called with the id of a lease when anything of it has changed.
    """

    tasks: asyncio.TaskGroup
    runtime: Runtime
    spool: SpoolProtocol
    storage_dir: Path
    mover: MoverProtocol
    prepare: Callable[[Granted], Awaitable[Sequence[RankOrder]]]
    holds_anything: Callable[[Path], Awaitable[bool]]
    flush: Callable[[Path], Awaitable[None]]
    remove: Callable[[Path], Awaitable[None]]
    changed: Callable[[str], None]
    witness: Witness
    supplier: Supplier | None = None


@dataclass(frozen=True, slots=True)
class Granted:
    """A grant whose ranks may be ordered: its folder, and what was brought here for it."""

    grant: agent_pb2.DesiredLease
    path: Path
    supplies: Supplies = NOTHING


@dataclass(frozen=True, slots=True)
class Seen:
    """One lease as it is to be reported; `state` is ENDED only when all else is final.

    `prepared`: bytes of what is being brought here that are there, and of all of it.
    `telemetry`: what its devices measured before it failed, once it has ended. `silence`: since when its
    training has reported no progress, 0 for none, and what they measured before that was noticed.
    `image_digest`: what its image is, once that is known.
    """

    lease: Lease
    state: State
    findings: LeaseFindings
    output_uri: str
    prepared: tuple[int, int] = (0, 0)
    telemetry: TelemetryWindow | None = None
    silence: tuple[int, TelemetryWindow | None] = (0, None)
    image_digest: str = ""


class HeldLease:
    """One lease in memory. `ranks` maps each local rank to its folder; `folders` are all of these.

    `observed` is the lease as it was when it was last looked at: by `follow`, and whenever the lease
    itself is told something. Whoever holds it looks again after each change.
    """

    def __init__(
        self,
        tools: Tools,
        grant: agent_pb2.DesiredLease,
        *,
        path: Path,
        ranks: Mapping[int, Path],
        fault: Fault | None = None,
    ) -> None:
        """Knows a lease; `start` or `adopt` gives its ranks to the runtime."""
        self.grant = grant
        self._tools = tools
        self._path = path
        self._transfers = Transfers(tools.mover, path)
        self._ranks = dict(ranks)
        self._fault = fault
        self._ordered = False  # whether the runtime knows the ranks
        self._supplying: asyncio.Future[Supplies] | None = None
        self._prepared = (0, 0)
        self._told_ended: set[int] = set()  # ranks of whose end the spool was told
        self._stop_by_ms: int | None = None
        self._fence_after_ms: int | None = grant.fence_after_ms  # None: not known
        self._asked = 0  # number of the newest ask for a checkpoint that the ranks heard of
        self._is_looking = False  # whether it is being found out if there is a model
        self._output_uri: str | None = None
        self._telemetry: TelemetryWindow | None = None
        self._silence = (
            0,
            TelemetryWindow(),
        )  # since when, and what was measured when it was noticed
        self._noticed_ms = 0  # since when it is that is being looked into
        self._seen: Seen | None = None  # the report before
        self._farewell: Seen | None = None  # the last report, while the folder is being removed
        self.folders = tuple(ranks.values())
        self.observed = self._observe()

    def _observe(self) -> Lease:
        state = State.PREPARING if self._supplying else State.ACCEPTED
        ranks = tuple(Rank(rank, state) for rank in sorted(self._ranks))
        if self._ordered and not self._farewell:
            observe = self._tools.runtime.observe
            ranks = tuple(observe(path) for _, path in sorted(self._ranks.items()))
        drained = not self._is_watched or self._tools.spool.is_drained(self.grant.lease_id)
        return Lease(
            self.grant.lease_id,
            self.grant.epoch,
            ranks=ranks,
            fault=self._fault,
            stop_by_ms=self._stop_by_ms,
            drained=drained,
            leaving=self._farewell is not None,
            device_ids=tuple(self.grant.spec.device_ids),
            thousandths=thousandths_of(self.grant.spec),
        )

    def see(self) -> Seen:
        """The lease as it is to be reported."""
        if self._farewell:
            return self._farewell
        lease = self.observed
        state = lease.state
        if state is State.ENDED and self._ranks and self._output_uri is None:
            state = State.RUNNING if self._stop_by_ms is None else State.STOPPING
            if self._seen and self._seen.state is state:
                lease = self._seen.lease  # that its ranks have ended is told with the rest
        self._seen = Seen(
            lease,
            state,
            self._findings(),
            self._output_uri or "",
            prepared=self._prepared,
            telemetry=self._telemetry,
            silence=self._silence,
            image_digest=self.grant.spec.job.resource_config.image.partition("@")[2],
        )
        return self._seen

    def follow(self) -> None:
        """Looks at its ranks; tells the spool which write no more; in the end looks for the model."""
        lease = self.observed = self._observe()
        if not self._ordered or self._farewell:
            return
        for rank in lease.ranks:
            if rank.state is State.ENDED and rank.rank not in self._told_ended:
                self._told_ended.add(rank.rank)
                if self._is_watched:
                    self._tools.spool.ended(lease.lease_id, rank.rank)
        self._listen()
        if lease.state is State.ENDED and not self._is_looking and self._findings().settled:
            self._is_looking = True
            self._tools.tasks.create_task(self._look_for_model(lease))

    async def start(self, tokens: Mapping[str, str] | None = None) -> None:
        """Checks the grant, makes its folders, and gives its ranks to the runtime.

        What it names elsewhere is brought here before, with the submitter's own `tokens` by scheme.
        """
        ordered: Sequence[RankOrder] = ()
        try:
            supplies = await self._supplied(tokens or {})
            self._pin_image(supplies.image_digest)
            if self._stop_by_ms is None:
                granted = Granted(self.grant, self._path, supplies)
                ordered = await self._tools.prepare(granted)
        except Refused as refusal:
            self._fault = refusal.fault
        except OSError as error:
            self._fault = Fault(Category.STORAGE, f"the node's folders: {error.strerror}")
        if self._fault is None and self._stop_by_ms is None:
            self._fault = await self._transfers.restore(self.grant.spec)
        if self._fault is None and self._stop_by_ms is None:
            self._order(ordered)
            await self._flush()
        else:
            self._ranks = {}  # nothing was started, and nothing will be
            self._tools.changed(self.grant.lease_id)

    async def adopt(self) -> None:
        """Finds the ranks again that an earlier agent ordered."""
        for path in self._ranks.values():
            path.mkdir(exist_ok=True)
        runtime = self._tools.runtime
        await asyncio.gather(*(runtime.adopt(path, rank) for rank, path in self._ranks.items()))
        self._ordered = True
        if self._tools.supplier is not None:
            await self._tools.supplier.adopt(self.grant, self._path)
        self._fence_after_ms = None  # an earlier agent may have told something else
        if self._is_watched:
            for rank in self._ranks:
                self._watch(rank)
        log.info("lease_adopted", lease_id=self.grant.lease_id, state=self._observe().state.name)

    def fence(self, after_ms: int) -> None:
        """Has every rank stopped that long after the last contact; 0 for never."""
        if after_ms == self._fence_after_ms:
            return
        self._fence_after_ms = after_ms
        if self._ordered:
            for path in self._ranks.values():
                self._tools.runtime.fence(path, after_ms)

    def save(self, number: int) -> None:
        """Asks every rank for a checkpoint, once for each number.

        An agent that has restarted does not know whether the ranks heard of it, and asks again.
        """
        if number <= self._asked or not self._is_watched or self._stop_by_ms is not None:
            return
        self._asked = number
        self._tools.spool.ask(self.grant.lease_id, number)
        if self._findings().saved < number:
            for path in self._ranks.values():
                self._tools.runtime.save(path)

    def known(self, checkpoint_ids: Sequence[str]) -> None:
        """Passes on which uploaded checkpoints the coordinator knows of."""
        if self._is_watched:
            self._tools.spool.known(self.grant.lease_id, checkpoint_ids)

    def stop(self, grace_ms: int) -> None:
        """Asks every rank to stop within a grace."""
        self._stop_by_ms = now_at_ms() + grace_ms
        self._transfers.stop(grace_ms / 1000 if self._ordered else 0.0)
        if self._ordered:
            for path in self._ranks.values():
                self._tools.runtime.stop(path, grace_ms)
        elif self._supplying is not None:
            self._supplying.cancel()
        self.observed = self._observe()

    def leave(self) -> None:
        """From now on the lease is only waiting for `forget`; its report stays as it is."""
        self._farewell = self.see()
        self.observed = self._observe()

    async def forget(self) -> None:
        """Removes the lease's folder, and all that others hold of it."""
        if self._is_watched:
            self._tools.spool.forget(self.grant.lease_id)
        if self._ordered:
            for path in self._ranks.values():
                self._tools.runtime.forget(path)
        if self._tools.supplier is not None:
            await self._tools.supplier.release(self.grant)
        try:
            await self._tools.remove(self._path)
        except OSError as error:
            log.error("lease_not_removed", lease_id=self.grant.lease_id, reason=error.strerror)

    @property
    def _is_watched(self) -> bool:
        """Whether the spool reads its ranks; not where its spec was lost."""
        return self._ordered and bool(self.grant.spec.job_id)

    def _findings(self) -> LeaseFindings:
        if not self._is_watched:
            return LeaseFindings()
        return self._tools.spool.findings(self.grant.lease_id)

    async def _supplied(self, tokens: Mapping[str, str]) -> Supplies:
        """What is brought here for it; nothing more where it is stopped meanwhile. Refused."""
        supplier = self._tools.supplier
        if supplier is None or not supplier.needs(self.grant.spec):
            return NOTHING
        getting = supplier.get(self.grant, tokens, self._growing)
        self._supplying = asyncio.ensure_future(getting)
        self._tools.changed(self.grant.lease_id)
        try:
            return await self._supplying
        except asyncio.CancelledError:
            if self._stop_by_ms is None:
                raise  # the agent ends
            return NOTHING
        finally:
            self._supplying = None

    def _pin_image(self, digest: str) -> None:
        """From now on the grant names what its image was found to be: to all ranks, and to later agents."""
        if digest:
            needs = self.grant.spec.job.resource_config
            needs.image = pinned(needs.image, digest)

    def _growing(self, done_bytes: int, total_bytes: int) -> None:
        self._prepared = done_bytes, total_bytes
        self._tools.changed(self.grant.lease_id)

    def _order(self, ordered: Sequence[RankOrder]) -> None:
        for order in ordered:
            self._watch(order.rank)
            after_ms = self._fence_after_ms or 0
            self._tools.runtime.start(replace(order, fence_after_ms=after_ms))
        self._ordered = True
        self.known(self.grant.checkpoint_ids)

    def _watch(self, rank: int) -> None:
        storage_dir = self._tools.storage_dir
        path = self._ranks[rank]
        self._tools.spool.watch(
            orders.rank_files(self.grant, path, rank=rank, storage_dir=storage_dir)
        )

    async def _flush(self) -> None:
        """Makes `lease.pb` durable, once the ranks have started and need the disk less."""
        self._tools.changed(self.grant.lease_id)
        await asyncio.sleep(FLUSH_DELAY_S)
        if self._farewell:
            return  # it is over, and everybody knows
        try:
            await self._tools.flush(self._path / orders.LEASE_FILE)
        except OSError as error:
            if not self._farewell:
                log.error("lease_not_flushed", lease_id=self.grant.lease_id, reason=error.strerror)

    def _listen(self) -> None:
        """Notices that the training has fallen silent, or comes on."""
        since_ms = self._findings().silent_since_ms
        if since_ms == self._noticed_ms:
            return
        self._noticed_ms = since_ms
        if since_ms:
            self._tools.tasks.create_task(self._witness_silence(since_ms))
        else:
            self._silence = 0, TelemetryWindow()

    async def _witness_silence(self, since_ms: int) -> None:
        """Tells of a silence together with what was measured before it was noticed."""
        seen = await self._tools.witness(self.observed.device_ids, now_at_ms())
        if since_ms == self._noticed_ms:
            self._silence = since_ms, seen
            self._tools.changed(self.grant.lease_id)

    async def _look_for_model(self, lease: Lease) -> None:
        """A lease that ended well left a model where its output folder holds anything."""
        stopped = any(rank.stopped for rank in lease.ranks)
        well = lease.succeeded and (self._findings().done or not stopped)
        uri = ""
        if well and self._is_watched and 0 in self._ranks:
            output = folders(self.grant.spec, self._tools.storage_dir).output
            if await self._tools.holds_anything(output):
                uri, fault = await self._transfers.send_model(self.grant.spec, output)
                self._fault = self._fault or fault
        if lease.first_fault is not None or self._fault is not None:
            failed_at_ms = lease.failed_at_ms or now_at_ms()
            self._telemetry = await self._tools.witness(lease.device_ids, failed_at_ms)
        self._output_uri = uri
        self._tools.changed(lease.lease_id)
