"""The checkpoints of one lease: reported, proven one after the other, kept, and retired.

What was proven is kept in `checkpoints.json` in the lease's folder, with the place in each events
file up to which reports are settled, so that a restart of the agent proves nothing twice.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec

from node_agent.ranks import EVENTS, ProvenCheckpoint, RankFiles
from node_agent.spool.events import Saved
from node_agent.spool.files import read_document, write_document
from node_agent.spool.kept import Kept
from node_agent.spool.proof import Proof, Unproven, manifest_path, prove
from node_agent.spool.remote import Uploads
from node_agent.uploads.mover import MoverProtocol

MAX_WAITING = 64
_RETIRED_PREFIX = ".retired-"


class Report(msgspec.Struct, frozen=True):
    """A checkpoint that a rank reported; `end` is where the event ends in its events file."""

    rank: int
    end: int
    step: int
    path: str


class _Record(msgspec.Struct):
    settled: dict[str, int] = {}
    kept: list[Kept] = []
    asked: int = 0  # number of the newest ask for a checkpoint
    marks: dict[str, int] = {}  # what each rank had written to its events file by then, in bytes
    retired: list[str] = []  # ids of those of earlier attempts that are kept no more


class Checkpoints:
    """The checkpoints of the lease to which `rank` belongs.

    All of it belongs to the event loop; `settle` runs once at a time, while `has_work`.
    """

    def __init__(self, rank: RankFiles) -> None:
        self._folder = Path(os.path.realpath(rank.checkpoint_dir))
        self._keep = max(1, rank.keep_checkpoints)
        self._attempt, self._resumed = rank.attempt, rank.resumed
        self._file = rank.path.parent / "checkpoints.json"
        kept = [*_there(rank.earlier, self._folder)]
        self._record = read_document(self._file, _Record) or _Record(kept=kept)
        self._waiting: deque[Report] = deque()
        self._cancelled = threading.Event()
        self._uploads = Uploads(rank) if rank.remote else None

    @property
    def has_work(self) -> bool:
        """Whether a checkpoint is reported and not settled."""
        return bool(self._waiting)

    @property
    def is_uploading(self) -> bool:
        """Whether one is on its way, or due."""
        uploads = self._uploads
        return uploads is not None and bool(uploads.moving or uploads.due(self._record.kept))

    @property
    def may_remove(self) -> bool:
        """Whether there is something uploaded that nobody can want any more."""
        return self._uploads is not None and self._uploads.may_remove

    @property
    def saved(self) -> int:
        """The number of the newest ask, once a checkpoint that was announced after it is proven."""
        record = self._record
        counted = [k for k in record.kept if self._uploads is None or self._uploads.has(k)]
        after = (k.end > record.marks.get(str(k.rank), 0) for k in counted)
        return record.asked if record.asked and any(after) else 0

    def ask(self, number: int, ranks: Iterable[RankFiles]) -> None:
        """Marks where an ask stands among the events; one that was marked before keeps its place."""
        if number <= self._record.asked:
            return
        self._record.asked = number
        self._record.marks = {str(rank.rank): _size(rank.path / EVENTS) for rank in ranks}
        write_document(self._file, self._record)

    def proven(self) -> tuple[ProvenCheckpoint, ...]:
        """All of this attempt that is proven and still there (where they are uploaded: there), oldest first."""
        if self._uploads is not None:
            return self._uploads.there
        return tuple(kept.checkpoint for kept in self._own if os.path.lexists(kept.path))

    @property
    def retired(self) -> tuple[str, ...]:
        """Ids of checkpoints of earlier attempts that are kept no more."""
        return self._uploads.retired if self._uploads else tuple(self._record.retired)

    def know(self, checkpoint_ids: Sequence[str]) -> None:
        """Takes over which uploaded ones the coordinator knows of."""
        if self._uploads is not None:
            self._uploads.know(checkpoint_ids)

    async def upload(
        self, *, mover: MoverProtocol, is_last: bool, note: Callable[[int, str], None]
    ) -> float:
        """Uploads or removes one; see Uploads. Returns how long to wait before the next."""
        if self._uploads is None:
            return 0.0
        rank = self._record.kept[-1].rank if self._record.kept else 0
        text, wait_s = await self._uploads.work(self._record.kept, mover=mover, is_last=is_last)
        if text:
            note(rank, text)
        return wait_s

    def report(self, event: Saved, *, rank: int, end: int) -> str | None:
        """Takes a report; returns what is wrong with it, if anything."""
        if end <= self._record.settled.get(str(rank), 0):
            return None
        path = Path(os.path.realpath(self._folder / event.path))
        if not path.is_relative_to(self._folder) or path == self._folder:
            return "the checkpoint is not inside of the job's checkpoint folder"
        if path.name.startswith(_RETIRED_PREFIX):
            return "the name of the checkpoint is not allowed"
        report = Report(rank, end, event.step, str(path))
        known = {(waiting.step, waiting.path) for waiting in self._waiting}
        known |= {(kept.step, kept.path) for kept in self._own}
        if (report.step, report.path) in known:
            self._announced_again(report)
            return None
        if any(_nested(path, Path(other)) for _, other in known):
            return "the checkpoint lies inside of another one, or holds another one"
        if len(self._waiting) >= MAX_WAITING:
            return f"more than {MAX_WAITING} checkpoints wait to be proven"
        self._waiting.append(report)
        return None

    async def settle(self, *, now_ms: Callable[[], int], note: Callable[[int, str], None]) -> None:
        """Settles the oldest report; `note(rank, text)` takes why it could not be proven, if so."""
        report = self._waiting[0]
        try:
            proof = await asyncio.to_thread(prove, Path(report.path), cancelled=self._cancelled)
            self._add(report, proof, now_ms=now_ms())
        except Unproven as error:
            if not self._cancelled.is_set():
                note(report.rank, f"the checkpoint of step {report.step} is not proven: {error}")
        if not self._cancelled.is_set():
            self._record.settled[str(report.rank)] = report.end
            old = self._retire()
            write_document(self._file, self._record)
            if old:
                await asyncio.to_thread(_delete_all, [Path(kept.path) for kept in old])
        self._waiting.popleft()

    def cancel(self) -> None:
        """Makes a proof that is under way give up; the agent's next start begins it again."""
        self._cancelled.set()

    def _add(self, report: Report, proof: Proof, *, now_ms: int) -> None:
        # Retries of a job are jobs of their own with attempts from 1; the digest tells them apart.
        name = f"ckpt_{report.step}_{self._attempt}_{proof.digest.partition(':')[2][:8]}"
        checkpoint = ProvenCheckpoint(
            checkpoint_id=name,
            step=report.step,
            uri=Path(report.path).as_uri(),
            size_bytes=proof.size_bytes,
            created_at_ms=now_ms,
            digest=proof.digest,
            attempt=self._attempt,
        )
        others = [
            kept
            for kept in self._record.kept
            if kept.path != report.path
            and kept.id != name
            # one of an earlier attempt that lies within it, or around it, is nobody's to delete
            and not _nested(Path(report.path), Path(kept.path))
        ]
        self._note_retired([x for x in self._record.kept if x.path == report.path])
        kept = Kept(report.path, report.step, checkpoint, rank=report.rank, end=report.end)
        self._record.kept = [*others, kept]

    def _announced_again(self, report: Report) -> None:
        """A checkpoint that is proven already answers an ask as well as a new one of its step."""
        self._record.kept = [
            msgspec.structs.replace(kept, rank=report.rank, end=report.end)
            if self._is_own(kept) and (kept.step, kept.path) == (report.step, report.path)
            else kept
            for kept in self._record.kept
        ]

    def _retire(self) -> list[Kept]:
        """Takes all but the last ones that exist off the record; those were proven before."""
        there = [kept for kept in self._record.kept if os.path.lexists(kept.path)]
        moving = self._uploads.moving if self._uploads else None
        wanted = {moving.path} if moving else set()
        extra = there[: -self._keep]
        old = [kept for kept in extra if kept.path not in wanted and kept.id != self._resumed]
        self._record.kept = [kept for kept in there if kept not in old]
        self._note_retired(old)
        return old

    @property
    def _own(self) -> list[Kept]:
        """Those of this attempt."""
        return [kept for kept in self._record.kept if self._is_own(kept)]

    def _is_own(self, kept: Kept) -> bool:
        return kept.checkpoint.attempt == self._attempt

    def _note_retired(self, gone: Iterable[Kept]) -> None:
        self._record.retired += [kept.id for kept in gone if not self._is_own(kept)]


def _there(earlier: Iterable[ProvenCheckpoint], folder: Path) -> Iterator[Kept]:
    """Those of earlier attempts that lie on this node, in the job's folder."""
    for one in earlier:
        with suppress(ValueError):  # what is no address lies nowhere
            uri = urlsplit(one.uri)
            path = Path(os.path.realpath(unquote(uri.path)))
            inside = path.is_relative_to(folder) and path != folder
            if uri.scheme == "file" and inside and os.path.lexists(path):
                yield Kept(str(path), one.step, one)


def _delete_all(paths: list[Path]) -> None:
    """Deletes retired checkpoints, and what an agent that died while doing so left behind."""
    for path in paths:
        with suppress(OSError):
            manifest_path(path).unlink(missing_ok=True)
            # Renamed first: a folder of which files are missing must not look like a checkpoint.
            path.rename(path.with_name(f"{_RETIRED_PREFIX}{os.urandom(8).hex()}"))
    for folder in {
        path.parent for path in paths if Path(os.path.realpath(path.parent)) == path.parent
    }:
        for grave in folder.glob(f"{_RETIRED_PREFIX}*"):
            if grave.is_symlink() or not grave.is_dir():
                grave.unlink(missing_ok=True)
            else:
                shutil.rmtree(grave, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # nothing was written yet


def _nested(one: Path, other: Path) -> bool:
    return one != other and (one.is_relative_to(other) or other.is_relative_to(one))
