"""The checkpoints of one lease that are uploaded: the newest first, the last n kept.

Theory of operation. A checkpoint that is proven is uploaded beside the training; while one is on its
way newer ones may come, and then the newest goes next and those between never. What is uploaded counts,
together with what earlier attempts have uploaded; of all of it the last n are kept. What is more is first
told as gone, and removed once the coordinator does not know it any more, so that nothing is missing that
anybody could want to go on from.

`uploads.json` in the lease's folder keeps it. Where the store refuses it is tried again for as long as the
ranks run, and `TRIES` times after their end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import structlog

from node_agent.files import file_name
from node_agent.ranks import ProvenCheckpoint, RankFiles
from node_agent.spool.files import read_document, write_document
from node_agent.spool.kept import Kept
from node_agent.spool.proof import manifest_path
from node_agent.uploads.mover import MoverProtocol
from node_agent.uploads.orders import Failed, Remove, Upload

TRIES = 5
BACKOFF_FIRST_S = 1.0
BACKOFF_MOST_S = 60.0

_log = structlog.get_logger()


class _Record(msgspec.Struct):
    there: list[ProvenCheckpoint] = []  # oldest first
    leaving: list[ProvenCheckpoint] = []  # told as gone, and to be removed
    retired: list[str] = []  # ids of all that were told as gone and are of earlier attempts


class Uploads:
    """The uploaded checkpoints of the lease to which `rank` belongs.

    All of it belongs to the event loop; `work` runs once at a time, while `has_work`.
    """

    def __init__(self, rank: RankFiles) -> None:
        self._uri, self._resumed = rank.remote, rank.resumed
        self._keep = max(1, rank.keep_checkpoints)
        self._attempt = rank.attempt
        self._folder = rank.path.parent
        self._file = self._folder / "uploads.json"
        earlier = [one for one in rank.earlier if one.uri.startswith(f"{rank.remote}/")]
        self._record = read_document(self._file, _Record) or _Record(there=earlier)
        self._known: frozenset[str] | None = None  # to the coordinator; None: not heard yet
        self._given_up: set[str] = set()
        self._failures = 0
        self._noted = False
        self.moving: Kept | None = None  # what is on its way now

    @property
    def there(self) -> tuple[ProvenCheckpoint, ...]:
        """All of this attempt that is uploaded and kept, oldest first."""
        return tuple(one for one in self._record.there if one.attempt == self._attempt)

    @property
    def retired(self) -> tuple[str, ...]:
        """Ids of checkpoints of earlier attempts that are kept no more."""
        return tuple(self._record.retired)

    def has(self, kept: Kept) -> bool:
        """Whether a proven checkpoint is uploaded."""
        return kept.id in {one.checkpoint_id for one in self._record.there}

    def due(self, proven: Sequence[Kept]) -> Kept | None:
        """What is to be uploaded next of what is proven, oldest first: the newest, unless it is there."""
        newest = proven[-1] if proven else None
        if newest is None or newest.id in self._given_up or self.has(newest):
            return None
        return newest

    def know(self, checkpoint_ids: Sequence[str]) -> None:
        """Takes over which of them the coordinator knows of."""
        self._known = frozenset(checkpoint_ids)

    @property
    def may_remove(self) -> bool:
        """Whether there is something that nobody can want any more."""
        return self._removable() is not None

    async def work(
        self, proven: Sequence[Kept], *, mover: MoverProtocol, is_last: bool
    ) -> tuple[str, float]:
        """Does what is next. Returns what is to be noted in the log, and how long to wait then.

        `is_last`: the ranks have ended, and the lease waits for this.
        """
        kept = self.due(proven)
        if kept is None:
            return "", await self._remove_one(mover)
        self.moving = kept
        try:
            await self._upload(kept, mover=mover)
        except Failed as failed:
            return self._failed(failed, kept, is_last=is_last)
        finally:
            self.moving = None
        self._failures = 0
        self._noted = False
        return "", 0.0

    async def _upload(self, kept: Kept, *, mover: MoverProtocol) -> None:
        uri = f"{self._uri}/{kept.id}/{file_name(kept.place.name)}"
        manifest = manifest_path(kept.place)
        journal = self._folder / "uploads" / kept.id
        await mover(Upload(kept.path, uri, str(manifest), str(journal)))
        record = self._record
        there = [one for one in record.there if one.checkpoint_id != kept.id]
        there.append(replace(kept.checkpoint, uri=uri))
        extra = [x for x in there[: -self._keep] if x.checkpoint_id != self._resumed]
        record.there = [one for one in there if one not in extra]
        record.leaving += extra
        record.retired += [one.checkpoint_id for one in extra if one.attempt != self._attempt]
        write_document(self._file, record)

    async def _remove_one(self, mover: MoverProtocol) -> float:
        one = self._removable()
        if one is None:
            return 0.0
        try:
            await mover(Remove(one.uri))
        except Failed as failed:
            self._failures += 1
            if not failed.lasting and self._failures < TRIES:
                return self._wait_s
            _log.warning("upload_not_removed", uri=one.uri, reason=str(failed))
        self._failures = 0
        self._record.leaving.remove(one)
        write_document(self._file, self._record)
        return 0.0

    def _removable(self) -> ProvenCheckpoint | None:
        if self._known is None:
            return None
        leaving = (one for one in self._record.leaving if one.checkpoint_id not in self._known)
        return next(leaving, None)

    def _failed(self, failed: Failed, kept: Kept, *, is_last: bool) -> tuple[str, float]:
        self._failures += 1
        _log.warning("upload_failed", reason=str(failed), tries=self._failures)
        text = f"the checkpoint of step {kept.step} is not uploaded: {failed}"
        if failed.lasting or (is_last and self._failures >= TRIES):
            self._failures = 0
            self._noted = False
            self._given_up.add(kept.id)
            return text, 0.0
        note = "" if self._noted else f"{text}; it is tried again"
        self._noted = True
        return note, self._wait_s

    @property
    def _wait_s(self) -> float:
        return min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures - 1, 10))
