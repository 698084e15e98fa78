"""The spool: follows the files of all ranks, ships what they hold, proves their checkpoints.

Theory of operation. Ranks write plain files and never wait for anybody. One loop looks at those
files of which the kernel says that they changed, and at all of them every now and then, takes one
batch of each that has more, in turn, and hands it to the pusher, which waits while too much is
unacknowledged. All state that matters is in
the files and in the offset up to which they are acknowledged; memory holds a window of batches.
Once a second the offsets are written down, blocks that are acknowledged are given back to the
disk, and of a file that outgrew its budget while the coordinator was away the oldest part goes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from node_agent.ranks import EVENTS, STDERR, STDOUT, LeaseFindings, RankFiles
from node_agent.spool.channels import Channel
from node_agent.spool.kernel import Changes
from node_agent.spool.lease_spool import LeaseSpool
from node_agent.spool.pusher import PushCall, Pusher, Sent
from node_agent.spool.rank_spool import RankSpool
from node_agent.uploads.mover import UPLOADS, Mover, MoverProtocol
from scaimind.agent.v1 import agent_service_pb2 as pb

DEFAULT_BUDGET_BYTES = 1024**3
PACE_S = 0.02
BEHIND_BYTES = 16 * 1024
HOUSEKEEPING_S = 1.0
PROVERS = 2

_log = structlog.get_logger()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Spool:
    """Reads, ships and proves; see SpoolProtocol.

    `open_push` starts the Push RPC with the agent's credentials. `budget_bytes` is how much of one
    output may wait for the coordinator. `boot` names the boot of the machine: a file of an earlier one
    does not grow any more. `changes` hints at files that have changed. `mover` uploads checkpoints.
    """

    def __init__(
        self,
        open_push: Callable[[], PushCall],
        *,
        node_id: str,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
        boot: str = "",
        changes: Changes | None = None,
        mover: MoverProtocol | None = None,
        now_ms: Callable[[], int] = _now_ms,
    ) -> None:
        self.on_change: Callable[[str], None] = lambda lease_id: None
        self._budget_bytes = budget_bytes
        self._leases: dict[str, LeaseSpool] = {}
        self._ranks: dict[Path, RankSpool] = {}
        self._watches = asyncio.Event()  # set while there is a lease
        self._due: dict[Path, RankSpool] = {}  # to be looked at in the next round
        self._unproven: asyncio.Queue[LeaseSpool] = asyncio.Queue()
        self._unsent: asyncio.Queue[LeaseSpool] = asyncio.Queue()
        self._mover = mover or Mover()
        self._changes = changes or Changes((STDOUT, STDERR, EVENTS))
        self._boot = boot
        self._now_ms = now_ms
        self._pusher = Pusher(open_push, node_id=node_id, on_response=self._on_response)

    async def run(self) -> None:
        """Works until cancelled."""
        parts = [self._read(), self._pusher.run(), self._keep_house()]
        parts += [self._prove() for _ in range(PROVERS)]
        parts += [self._upload() for _ in range(UPLOADS)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in parts:
                    tasks.create_task(part)
        finally:
            for lease_id, lease in list(self._leases.items()):
                lease.save()
                self.forget(lease_id)
            self._changes.close()

    def watch(self, rank: RankFiles) -> None:
        """Begins with a rank; one that is watched already is left as it is."""
        lease = self._leases.get(rank.lease_id)
        if lease is None:
            lease = LeaseSpool(
                rank,
                boot=self._boot,
                on_work=self._unproven.put_nowait,
                on_upload=self._unsent.put_nowait,
            )
            self._leases[rank.lease_id] = lease
            self._watches.set()
        if rank.rank not in lease.ranks:
            self._due[rank.path] = self._ranks[rank.path] = lease.add(rank)
            self._changes.add(rank.path)
            lease.told = (lease.findings, lease.is_drained)

    def ended(self, lease_id: str, rank: int) -> None:
        """Says that nothing writes to the rank's files any more."""
        lease = self._leases.get(lease_id)
        if lease is not None and rank in lease.ranks:
            lease.ranks[rank].end()
            self._look_at(lease)
            self._notice(lease_id)  # most often nothing is left to read

    def ask(self, lease_id: str, number: int) -> None:
        """Marks where an ask for a checkpoint stands among the events of the lease."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.ask(number)

    def known(self, lease_id: str, checkpoint_ids: Sequence[str]) -> None:
        """Says which uploaded checkpoints the coordinator knows of."""
        lease = self._leases.get(lease_id)
        if lease is not None:
            lease.know(checkpoint_ids)
            self._notice(lease_id)

    def is_drained(self, lease_id: str) -> bool:
        """Whether every rank has ended and all that it wrote is acknowledged (or unwanted)."""
        lease = self._leases.get(lease_id)
        return lease is None or lease.told[1]

    def findings(self, lease_id: str) -> LeaseFindings:
        """What is known of the lease; empty for one that is not watched."""
        lease = self._leases.get(lease_id)
        return LeaseFindings() if lease is None else lease.told[0]

    def forget(self, lease_id: str) -> None:
        """Drops all that is held of the lease in memory, and writes nothing: its folder goes next."""
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            lease.close()
            for rank in lease.ranks.values():
                path = rank.files.path
                self._changes.remove(path)
                self._ranks.pop(path, None)
                self._due.pop(path, None)
            self._pusher.drop(lambda channel: channel.closed)
        if not self._leases:
            self._watches.clear()

    async def _read(self) -> None:
        while True:
            changed = self._changes.begin_round()
            due, self._due = self._due, {}
            for path in self._ranks if changed is None else changed:
                if path in self._ranks:
                    due[path] = self._ranks[path]
            left_bytes = await self._read_round(due)
            for lease_id in {rank.files.lease_id: None for rank in due.values()}:
                self._notice(lease_id)
            if left_bytes is None:
                await self._changes.wait(watched=len(self._ranks))
            else:
                # Lines gather meanwhile: fewer and fuller batches.
                await asyncio.sleep(PACE_S if left_bytes < BEHIND_BYTES else 0)

    async def _read_round(self, due: Mapping[Path, RankSpool]) -> int | None:
        """Takes one batch of each channel that has one; its rank is looked at again then.

        Returns the most bytes that a channel has left after its batch; None where none had one.
        """
        left_bytes = None
        for path, rank in due.items():
            for channel in rank.channels:
                await self._pusher.room()
                if channel.closed:
                    continue
                try:
                    found = self._read_batch(rank, channel)
                except OSError as error:
                    _log.warning("spool_file_unreadable", file=channel.name, reason=str(error))
                    continue
                if found:
                    left_bytes = max(left_bytes or 0, channel.tail.size() - channel.tail.position)
                    self._due[path] = rank
        return left_bytes

    def _read_batch(self, rank: RankSpool, channel: Channel) -> bool:
        if not channel.wanted and channel is not rank.events:
            channel.tail.skip_all()
        batch = channel.next_batch(now_ms=self._now_ms())
        if batch is None:
            return False
        if channel.wanted and batch.end > channel.acked:
            self._pusher.add(channel, batch, counted=rank.reports.counted)
        return True

    def _on_response(self, sent: Sent, response: pb.PushResponse) -> None:
        if response.unknown_job:
            self._abandon(sent.batch.job_id)
        elif response.acknowledged < sent.batch.end:
            # The coordinator has less than it once acknowledged: again from there.
            _log.warning("coordinator_lost_output", job_id=sent.batch.job_id)
            self._pusher.drop(lambda channel: channel is sent.channel)
            sent.channel.rewind(response.acknowledged)
            self._look_at(self._leases[sent.channel.rank.lease_id])
        else:
            sent.channel.acknowledge(sent.batch.end, counted=sent.counted)
        if sent.channel.ended:
            self._notice(sent.channel.rank.lease_id)

    def _abandon(self, job_id: str) -> None:
        for lease in self._leases.values():
            if lease.job_id == job_id:
                lease.abandon()
                self._look_at(lease)
        self._pusher.drop(lambda channel: not channel.wanted)

    def _look_at(self, lease: LeaseSpool) -> None:
        """Has all files of a lease looked at, whether they have changed or not."""
        self._due.update((rank.files.path, rank) for rank in lease.ranks.values())
        self._changes.wake()

    def _notice(self, lease_id: str) -> None:
        """Says so when what is known of a lease has changed."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        told, lease.told = lease.told, (lease.findings, lease.is_drained)
        if told != lease.told:
            self.on_change(lease_id)

    async def _prove(self) -> None:
        while True:
            lease = await self._unproven.get()
            if await lease.prove_one(now_ms=self._now_ms):
                self._unproven.put_nowait(lease)
            self._notice(lease.lease_id)
            self._look_at(lease)

    async def _upload(self) -> None:
        while True:
            lease = await self._unsent.get()
            wait_s = await lease.upload_one(self._mover)
            asyncio.get_running_loop().call_later(wait_s, lease.look_again)
            self._notice(lease.lease_id)
            self._look_at(lease)

    async def _keep_house(self) -> None:
        while True:
            await self._watches.wait()
            await asyncio.sleep(HOUSEKEEPING_S)
            for lease in list(self._leases.values()):
                lease.keep_house(self._budget_bytes, now_ms=self._now_ms())
                told = lease.told[0]
                # one of them may have been deleted
                if told.checkpoints or told.silent_since_ms != lease.silent_since_ms:
                    self._notice(lease.lease_id)
