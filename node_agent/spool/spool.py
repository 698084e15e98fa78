"""The spool: follows the files of all ranks, ships what they hold, proves their checkpoints.

Theory of operation. Ranks write plain files and never wait for anybody. One loop looks at all
files whenever the kernel hints at a change, takes one batch of each that has more, in turn, and
hands it to the pusher, which waits while too much is unacknowledged. All state that matters is in
the files and in the offset up to which they are acknowledged; memory holds a window of batches.
Once a second the offsets are written down, blocks that are acknowledged are given back to the
disk, and of a file that outgrew its budget while the coordinator was away the oldest part goes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import structlog

from node_agent.ranks import LeaseFindings, RankFiles
from node_agent.spool.channels import Channel
from node_agent.spool.checkpoints import Checkpoints
from node_agent.spool.events import Saved
from node_agent.spool.kernel import Changes
from node_agent.spool.pusher import PushCall, Pusher, Sent
from node_agent.spool.rank_spool import RankSpool
from scaimind.agent.v1 import agent_service_pb2 as pb

DEFAULT_BUDGET_BYTES = 1024**3
PACE_S = 0.02
HOUSEKEEPING_S = 1.0
BEHIND_BYTES = 16 * 1024
MAX_PROOFS = 2

_log = structlog.get_logger()


class _Lease:
    """The ranks of one lease, and what their events said."""

    def __init__(self, rank: RankFiles) -> None:
        self.job_id = rank.job_id
        self.ranks: dict[int, RankSpool] = {}
        self.checkpoints = Checkpoints(rank)
        self.done = False
        self.is_proving = False
        self.was_drained = False

    @property
    def findings(self) -> LeaseFindings:
        return LeaseFindings(self.done, self.checkpoints.proven(), self.checkpoints.has_work)

    @property
    def is_drained(self) -> bool:
        return all(r.is_drained for r in self.ranks.values()) and not self.checkpoints.has_work

    def note(self, rank: int, message: str) -> None:
        """Puts a warning into the job's log."""
        if rank in self.ranks:
            self.ranks[rank].note(message)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Spool:
    """Reads, ships and proves; see SpoolProtocol. To be made inside of a running event loop.

    `open_push` starts the Push RPC with the agent's credentials. `budget_bytes` is how much of one
    output may wait for the coordinator.
    """

    def __init__(
        self,
        open_push: Callable[[], PushCall],
        *,
        node_id: str,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._budget_bytes = budget_bytes
        self._leases: dict[str, _Lease] = {}
        self._changes = Changes()
        self._pusher = Pusher(open_push, node_id=node_id, on_response=self._on_response)
        self._proof_slots = asyncio.Semaphore(MAX_PROOFS)
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._read())
                self._tasks.create_task(self._pusher.run())
                self._tasks.create_task(self._keep_house())
        finally:
            for lease_id in list(self._leases):
                self.forget(lease_id)
            self._changes.close()

    def watch(self, rank: RankFiles) -> None:
        """Begins with a rank; one that is watched already is left as it is."""
        lease = self._leases.get(rank.lease_id)
        if lease is None:
            lease = self._leases[rank.lease_id] = _Lease(rank)
        if rank.rank in lease.ranks:
            return
        lease.ranks[rank.rank] = RankSpool(
            rank,
            on_saved=partial(self._on_saved, lease, rank.rank),
            on_done=partial(self._on_done, lease),
        )
        self._changes.add(rank.path)

    def ended(self, lease_id: str, rank: int) -> None:
        """Says that nothing writes to the rank's files any more."""
        lease = self._leases.get(lease_id)
        if lease is not None and rank in lease.ranks:
            lease.ranks[rank].end()
            self._changes.wake()

    def is_drained(self, lease_id: str) -> bool:
        """Whether every rank has ended and all that it wrote is acknowledged (or unwanted)."""
        lease = self._leases.get(lease_id)
        return lease is None or lease.is_drained

    def findings(self, lease_id: str) -> LeaseFindings:
        """What is known of the lease; empty for one that is not watched."""
        lease = self._leases.get(lease_id)
        return LeaseFindings() if lease is None else lease.findings

    def forget(self, lease_id: str) -> None:
        """Drops all that is held of the lease in memory; its folder goes next."""
        lease = self._leases.pop(lease_id, None)
        if lease is None:
            return
        lease.checkpoints.cancel()
        for rank in lease.ranks.values():
            self._changes.remove(rank.files.path)
            rank.close()
        self._pusher.drop(lambda channel: channel.closed)

    async def _read(self) -> None:
        while True:
            self._changes.begin_round()
            left_bytes = await self._read_round()
            self._notice_drained()
            if left_bytes is None:
                await self._changes.wait(watched=sum(len(x.ranks) for x in self._leases.values()))
            else:
                # Lines gather meanwhile: fewer and fuller batches.
                await asyncio.sleep(PACE_S if left_bytes < BEHIND_BYTES else 0)

    async def _read_round(self) -> int | None:
        """Takes one batch of each channel that has one.

        Returns the most bytes that a channel has left after its batch; None where none had one.
        """
        left_bytes = None
        for rank, channel in list(self._channels()):
            await self._pusher.room()
            try:
                found = self._read_batch(rank, channel)
            except OSError as error:
                _log.warning("spool_file_unreadable", file=channel.name, reason=str(error))
                continue
            if found:
                left_bytes = max(left_bytes or 0, channel.tail.size() - channel.tail.position)
        return left_bytes

    def _channels(self) -> Iterator[tuple[RankSpool, Channel]]:
        for lease in self._leases.values():
            for rank in lease.ranks.values():
                for channel in rank.channels:
                    yield rank, channel

    def _read_batch(self, rank: RankSpool, channel: Channel) -> bool:
        if channel.closed:
            return False
        if not channel.wanted and channel is not rank.events:
            channel.tail.skip_all()
        batch = channel.next_batch(now_ms=_now_ms())
        if batch is None:
            return False
        if channel.wanted and batch.end > channel.acked:
            self._pusher.add(channel, batch, counted=rank.reports.counted)
        return True

    def _on_response(self, sent: Sent, response: pb.PushResponse) -> None:
        if response.unknown_job:
            self._abandon(sent.batch.job_id)
        elif response.acknowledged < sent.batch.end:
            self._rewind(sent.channel, response.acknowledged)
        else:
            sent.channel.acknowledge(sent.batch.end, counted=sent.counted)
        if sent.channel.ended:
            self._notice_drained()

    def _rewind(self, channel: Channel, offset: int) -> None:
        """Sends again from an offset: the coordinator has less than it once acknowledged."""
        _log.warning("coordinator_lost_output", channel=channel.name, offset=offset)
        self._pusher.drop(lambda other: other is channel)
        channel.rewind(offset)
        self._changes.wake()

    def _abandon(self, job_id: str) -> None:
        for lease in self._leases.values():
            if lease.job_id == job_id:
                for rank in lease.ranks.values():
                    rank.abandon()
        self._pusher.drop(lambda channel: not channel.wanted)
        self._changes.wake()

    def _notice_drained(self) -> None:
        """Says when a lease has become drained, or is so no more."""
        changed = False
        for lease in self._leases.values():
            drained = lease.is_drained
            changed = changed or drained != lease.was_drained
            lease.was_drained = drained
        if changed:
            self.on_change()

    def _on_done(self, lease: _Lease) -> None:
        if not lease.done:
            lease.done = True
            self.on_change()

    def _on_saved(self, lease: _Lease, rank: int, event: Saved, end: int) -> str | None:
        fault = lease.checkpoints.report(event, rank=rank, end=end)
        if lease.checkpoints.has_work and not lease.is_proving and self._tasks is not None:
            lease.is_proving = True
            self._tasks.create_task(self._prove(lease))
            self.on_change()
        return fault

    async def _prove(self, lease: _Lease) -> None:
        while lease.checkpoints.has_work:
            async with self._proof_slots:
                await lease.checkpoints.settle(now_ms=_now_ms, note=lease.note)
            self.on_change()
        lease.is_proving = False
        self._changes.wake()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            for lease in self._leases.values():
                for rank in lease.ranks.values():
                    self._keep_rank(rank)

    def _keep_rank(self, rank: RankSpool) -> None:
        try:
            dropped_bytes = rank.keep_house(self._budget_bytes)
        except OSError as error:
            _log.warning("spool_housekeeping_failed", reason=str(error))
            return
        if dropped_bytes:
            facts = {"job_id": rank.files.job_id, "rank": rank.files.rank}
            _log.warning("spool_full_output_dropped", dropped_bytes=dropped_bytes, **facts)
