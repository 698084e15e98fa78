"""All that is read and remembered of one lease: its ranks, and what their events said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import structlog

from node_agent.ranks import LeaseFindings, RankFiles
from node_agent.spool.checkpoints import Checkpoints
from node_agent.spool.events import Saved
from node_agent.spool.rank_spool import RankSpool
from node_agent.uploads.mover import MoverProtocol

_log = structlog.get_logger()


class LeaseSpool:
    """The ranks of the lease to which `rank` belongs, as found in the boot of that mark.

    `on_work` is called when a checkpoint waits to be proven, `on_upload` when one waits to be uploaded
    or removed; after it `upload_one` is called until nothing is left. `told` is what the keeper knows of the
    findings, and whether all is drained.
    """

    def __init__(
        self,
        rank: RankFiles,
        *,
        boot: str,
        on_work: Callable[[LeaseSpool], None],
        on_upload: Callable[[LeaseSpool], None],
    ) -> None:
        self.lease_id = rank.lease_id
        self.job_id = rank.job_id
        self.ranks: dict[int, RankSpool] = {}
        self.told = (LeaseFindings(settled=False), False)
        self._checkpoints = Checkpoints(rank)
        self._done = False
        self._boot = boot
        self._on_work = on_work
        self._on_upload = on_upload
        self._is_queued = False  # for an upload
        self._closed = False
        self.look_for_uploads()

    def add(self, rank: RankFiles) -> RankSpool:
        """Begins with a rank."""
        spool = self.ranks[rank.rank] = RankSpool(
            rank,
            boot=self._boot,
            on_saved=partial(self._on_saved, rank=rank.rank),
            on_done=self._on_done,
        )
        return spool

    @property
    def findings(self) -> LeaseFindings:
        """What the events said so far."""
        proven, proving = self._checkpoints.proven(), self._checkpoints.has_work
        saved = self._checkpoints.saved
        return LeaseFindings(
            self._done,
            proven,
            proving,
            settled=self.is_settled,
            saved=saved,
            retired=self._checkpoints.retired,
            silent_since_ms=self.silent_since_ms,
        )

    def ask(self, number: int) -> None:
        """Marks where an ask for a checkpoint stands among the events."""
        self._checkpoints.ask(number, [rank.files for rank in self.ranks.values()])

    @property
    def _is_read(self) -> bool:
        return all(rank.is_settled for rank in self.ranks.values())

    @property
    def is_settled(self) -> bool:
        """Whether all ranks have ended, and nothing that they reported is left to read, prove or upload."""
        checkpoints = self._checkpoints
        return self._is_read and not checkpoints.has_work and not checkpoints.is_uploading

    @property
    def is_drained(self) -> bool:
        """Whether all ranks have ended, and nothing is left to ship, prove, upload or remove."""
        checkpoints = self._checkpoints
        busy = checkpoints.has_work or checkpoints.is_uploading or checkpoints.may_remove
        return all(r.is_drained for r in self.ranks.values()) and not busy

    async def prove_one(self, *, now_ms: Callable[[], int]) -> bool:
        """Proves the checkpoint that waits longest; returns whether another one waits."""
        if self._checkpoints.has_work:
            await self._checkpoints.settle(now_ms=now_ms, note=self._note)
            self.look_for_uploads()
        return self._checkpoints.has_work

    def know(self, checkpoint_ids: Sequence[str]) -> None:
        """Takes over which uploaded checkpoints the coordinator knows of."""
        self._checkpoints.know(checkpoint_ids)
        self.look_for_uploads()

    def look_for_uploads(self) -> None:
        """Has the next upload or removal done, if there is one, and none is under way."""
        wants = self._checkpoints.is_uploading or self._checkpoints.may_remove
        if wants and not self._is_queued and not self._closed:
            self._is_queued = True
            self._on_upload(self)

    async def upload_one(self, mover: MoverProtocol) -> float:
        """Uploads or removes a checkpoint; returns after how long `look_again` is due."""
        is_last, note = self._is_read, self._note
        return await self._checkpoints.upload(mover=mover, is_last=is_last, note=note)

    def look_again(self) -> None:
        """Goes on with the uploads."""
        self._is_queued = False
        self.look_for_uploads()

    @property
    def silent_since_ms(self) -> int:
        """When the training's silence began that is too long by now; 0 for none."""
        return max((rank.silent_since_ms for rank in self.ranks.values()), default=0)

    def keep_house(self, budget_bytes: int, *, now_ms: int) -> None:
        """Remembers how far it is, and frees disk; of an output over its budget the oldest goes."""
        for rank in self.ranks.values():
            rank.look(now_ms)
            try:
                dropped_bytes = rank.keep_house(budget_bytes)
            except OSError as error:
                _log.warning("spool_housekeeping_failed", job_id=self.job_id, reason=str(error))
                continue
            if dropped_bytes:
                facts = {"job_id": self.job_id, "rank": rank.files.rank}
                _log.warning("spool_full_output_dropped", dropped_bytes=dropped_bytes, **facts)

    def abandon(self) -> None:
        """Nobody wants what the ranks print."""
        for rank in self.ranks.values():
            rank.abandon()

    def save(self) -> None:
        """Remembers how far it is."""
        for rank in self.ranks.values():
            rank.save()

    def close(self) -> None:
        """Ends reading; a proof that is under way gives up."""
        self._closed = True
        self._checkpoints.cancel()
        for rank in self.ranks.values():
            rank.close()

    def _note(self, rank: int, message: str) -> None:
        self.ranks[rank].note(message)

    def _on_done(self) -> None:
        self._done = True

    def _on_saved(self, event: Saved, end: int, *, rank: int) -> str | None:
        had_work = self._checkpoints.has_work
        fault = self._checkpoints.report(event, rank=rank, end=end)
        if self._checkpoints.has_work and not had_work:
            self._on_work(self)
        return fault
