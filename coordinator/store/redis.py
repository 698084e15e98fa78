"""The shared store: one Redis, for several coordinators of which one leads.

Every change is one script (lua/), which checks epoch and version itself: what a deposed leader sends
changes nothing. What Redis promises to keep depends on how it is run; docs/reliability.md says what.

A store has an identity, made when it is founded. A coordinator remembers it in a file beside its other
state, so a Redis that was emptied, or another one, is a fault for a person to look at and not a reason to
start anew.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from coordinator.core.records import Job, Kind, Record
from coordinator.core.times import DAY_MS
from coordinator.redis import Argument, Script, Server
from coordinator.store.codec import CodecError, decode, decode_job, encode
from coordinator.store.lexical import part
from coordinator.store.listing import read_page
from coordinator.store.protocol import (
    LEASE_TTL_S,
    Batch,
    Conflict,
    Fenced,
    JobFilter,
    JobPage,
    Leader,
    Led,
    Snapshot,
    StoredEvent,
    StoreLost,
    StoreUnavailable,
    UsageFilter,
    UsageGroup,
)
from coordinator.store.redis_index import INDEXES, LABELS, LAYOUT, RedisIndex, mark
from coordinator.store.rows import ALL, BEFORE_JOBS, ENTRIES_KEPT, audit, outcome
from coordinator.store.usage import Sums

PREFIX = "mind"
EVENTS_KEPT = 1_000_000
EVENTS_MAX = 10_000  # of one answer
ENTRIES_READ = 1_000  # at a time
LOADS = 3

ACQUIRE, RENEW, COMMIT, REFILE = (
    Script.of("coordinator.store", name) for name in ("acquire", "renew", "commit", "refile")
)
REFILED = 500  # jobs at a time
KEYS = (
    *("state", "batches", "jobs", "live", "records", "documents", "marks", LABELS),
    *INDEXES,
    *("events", "events_of", "entries"),
)

_line_decoder = msgspec.json.Decoder(tuple[int, str, str, str, str, str, int])


class RedisStore:
    """A Store in a Redis.

    Args:
        url: redis://, rediss:// or unix://.
        known: file that remembers which store this is; made when it is founded or first met.
        prefix: tells installations in one database apart.
        events_kept: lines of the audit, about; the oldest go.
        entries_kept: leases in the ledger, likewise.

    Attributes:
        epoch: what `acquire` answered last; 0 before.
    """

    def __init__(
        self,
        url: str,
        known: Path,
        *,
        prefix: str = PREFIX,
        events_kept: int = EVENTS_KEPT,
        entries_kept: int = ENTRIES_KEPT,
    ) -> None:
        self.epoch = 0
        self._server = Server(url, prefix=prefix, trouble=StoreUnavailable)
        self._known = known
        self._events_kept = events_kept
        self._entries_kept = entries_kept
        self._keys = tuple(self._server.key(name) for name in KEYS)
        self._state = self._keys[:1]

    async def open(self) -> None:
        await self._server.open()

    async def close(self) -> None:
        await self._server.close()

    async def acquire(self, holder: str, *, address: str = "", ttl_s: float = LEASE_TTL_S) -> int:
        known = _read(self._known)
        arguments = (holder, address, int(ttl_s * 1000), known, uuid.uuid4().hex, LAYOUT)
        said, *facts = await self._server.run(ACQUIRE, self._state, arguments)
        if said == b"lost":
            raise StoreLost(
                f"{self._server.name} is not the store that this coordinator has led from "
                f"({known}): it was emptied, or it is another one. Restore its backup; "
                f"or remove {self._known.name} to start without what is lost"
            )
        identity, epoch, *others = facts
        if not known:
            _write(self._known, identity.decode())
        if said == b"by":
            leader, at, left_ms = others
            raise Led(
                Leader(epoch=epoch, holder=leader.decode(), address=at.decode()),
                for_s=left_ms / 1000,
            )
        self.epoch = int(epoch)
        await self._bring_up_to_date(*others, ttl_s=ttl_s)
        return self.epoch

    async def _bring_up_to_date(self, layout: int, *, ttl_s: float) -> None:
        """Files jobs anew that an older version has filed; keeps leading meanwhile."""
        if layout > LAYOUT:
            raise StoreUnavailable(
                f"{self._server.name} was written by a newer version (layout {layout}, known here "
                f"is {LAYOUT}); upgrade this program"
            )
        cursor, jobs, scanned = 0, self._server.key("jobs"), layout == LAYOUT
        while not scanned:
            ((cursor, bodies),) = await self._server.each(
                [("HSCAN", jobs, cursor, "COUNT", REFILED)]
            )
            scanned = cursor == 0
            with self._readable():
                marks = [(job_id, mark(decode_job(body))) for job_id, body in bodies.items()]
            await self._refile(marks, layout=LAYOUT if scanned else None)
            await self.renew(self.epoch, ttl_s=ttl_s)

    async def _refile(self, marks: list[tuple[bytes, bytes]], *, layout: int | None) -> None:
        keys = [self._server.key(name) for name in ("state", "marks", LABELS, "labels", "counts")]
        words: list[Argument] = [self.epoch, "" if layout is None else layout]
        words += [word for one in marks for word in one]
        if not await self._server.run(REFILE, keys, words, durably=layout is not None):
            raise Fenced(f"epoch {self.epoch} is over")

    async def secret(self) -> bytes:
        key = self._server.key("secret")
        await self._server.each([("SET", key, os.urandom(32), "NX")])
        (secret,) = await self._server.each([("GET", key)])
        return bytes(secret)

    async def renew(self, epoch: int, *, ttl_s: float = LEASE_TTL_S) -> None:
        arguments = (epoch, int(ttl_s * 1000))
        if not await self._server.run(RENEW, self._state, arguments, durably=False):
            raise Fenced(f"epoch {epoch} is over")

    async def load(self) -> Snapshot:
        for _ in range(LOADS):
            before = await self._version()
            records = await self._records()
            if await self._version() == before:
                return Snapshot(records=tuple(records), version=before)
        raise StoreUnavailable(
            f"{self._server.name}: another coordinator writes while this one reads"
        )

    async def commit(self, batch: Batch, *, epoch: int, expected_version: int) -> int:
        kept = self._events_kept, self._entries_kept
        arguments = (epoch, batch.id, expected_version, *kept, *_arguments(batch))
        said, fact = await self._server.run(COMMIT, self._keys, arguments)
        if said == b"fenced":
            raise Fenced(f"epoch {epoch} is over; the leader's is {int(fact)}")
        if said == b"conflict":
            raise Conflict(
                f"the store is at version {fact}, the batch was made on {expected_version}"
            )
        return int(fact)

    async def job(self, job_id: str) -> Job | None:
        (body,) = await self._server.fields("jobs", [job_id])
        with self._readable():
            return None if body is None else decode_job(body)

    async def document(self, job_id: str) -> bytes | None:
        return (await self.documents((job_id,))).get(job_id)

    async def documents(self, job_ids: Sequence[str]) -> dict[str, bytes]:
        bodies = await self._server.fields("documents", job_ids)
        return {id: body for id, body in zip(job_ids, bodies, strict=True) if body is not None}

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: tuple[str | int, str] | None = None
    ) -> JobPage:
        with self._readable():
            return await read_page(RedisIndex(self._server), where, limit=limit, after=after)

    async def count_jobs(self, tenant_id: str) -> dict[str, int]:
        return (await RedisIndex(self._server).counts(tenant_id, (ALL,)))[0]

    async def events(
        self, *, id: str | None = None, after: int = 0, limit: int = 100
    ) -> tuple[StoredEvent, ...]:
        first, limit = max(0, after) + 1, max(0, min(limit, EVENTS_MAX))
        stream = self._server.key("events")
        if not limit:
            return ()
        questions: list[tuple[Argument, ...]] = [("XRANGE", stream, first, "+", "COUNT", limit)]
        if id is not None:
            run = part(id)
            low, high = b"[%b%016d" % (run, first), b"(%b:" % run
            key = self._server.key("events_of")
            (found,) = await self._server.each([("ZRANGEBYLEX", key, low, high, "LIMIT", 0, limit)])
            questions = [("XRANGE", stream, at, at) for at in (int(one[-16:]) for one in found)]
        answers = await self._server.each(questions)
        return tuple(_stored_event(entry) for entries in answers for entry in entries)

    async def usage(self, where: UsageFilter, *, limit: int) -> tuple[UsageGroup, ...]:
        sums, last = Sums(where), f"{where.until_version}"
        least_ms = (where.from_day - 1) * DAY_MS  # a day more: clocks are set back
        while last:
            stream = self._server.key("entries")
            (found,) = await self._server.each(
                [("XREVRANGE", stream, last, "-", "COUNT", ENTRIES_READ)]
            )
            last = f"({found[-1][0].decode()}" if len(found) == ENTRIES_READ else ""
            with self._readable():
                for _, fields in found:
                    entry = decode(Kind.ENTRY, fields[b"entry"])
                    sums.add(entry)
                    if entry.booked_at_ms < least_ms:
                        last = ""
        return sums.groups(limit)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except CodecError as error:
            raise StoreUnavailable(f"{self._server.name}: {error}") from error

    async def _version(self) -> int:
        (version,) = await self._server.fields("state", ["version"])
        return int(version or 0)

    async def _records(self) -> list[Record]:
        """All live records, in the order of Snapshot."""
        small, live = await self._server.each(
            [("HGETALL", self._server.key("records")), ("SMEMBERS", self._server.key("live"))]
        )
        bodies = await self._server.fields("jobs", sorted(live))
        with self._readable():
            jobs = [decode_job(body or b"") for body in bodies]
            records = _by_kind(small)
        jobs.sort(key=lambda job: (job.sequence, job.job_id))
        before = [record for kind in BEFORE_JOBS for record in records.get(kind, ())]
        return [*before, *jobs, *records.get(Kind.LEASE, ())]


def _by_kind(fields: dict[bytes, bytes]) -> dict[Kind, list[Record]]:
    """Records out of the hash, by kind and sorted by id."""
    found: dict[Kind, list[Record]] = {}
    for field, body in fields.items():
        kind = Kind(field.partition(b"/")[0].decode())
        found.setdefault(kind, []).append(decode(kind, body))
    for records in found.values():
        records.sort(key=lambda record: record.id)
    return found


def _arguments(batch: Batch) -> list[Argument]:
    """A batch as commit.lua reads it: lists, each after its length."""
    what = outcome(batch.events)
    retired = [job_id for job_id in what.jobs_retired if job_id not in what.jobs]
    lists: list[list[tuple[Argument, ...]]] = [
        [
            (job_id, encode(job), int(job_id not in what.jobs_retired), mark(job))
            for job_id, job in what.jobs.items()
        ],
        [(job_id,) for job_id in retired],
        [(_field(kind, id),) for kind, id in what.records_deleted],
        [(_field(kind, id), encode(record)) for (kind, id), record in what.records.items()],
        [(job_id,) for job_id in what.documents_deleted],
        list(what.documents.items()),
        [(part(line.id), _line(line)) for line in audit(batch.events, 0)],
        [(encode(entry),) for entry in what.entries],
    ]
    words: list[Argument] = []
    for entries in lists:
        words.append(len(entries))
        for entry in entries:
            words += entry
    return words


def _field(kind: Kind, id: str) -> str:
    return f"{kind}/{id}"


def _line(line: StoredEvent) -> bytes:
    return msgspec.json.encode(
        (line.at_ms, line.kind, line.id, line.cause, line.actor, line.status, line.attempt)
    )


def _stored_event(entry: tuple[bytes, dict[bytes, bytes]]) -> StoredEvent:
    sequence, fields = entry
    at_ms, kind, id, cause, actor, status, attempt = _line_decoder.decode(fields[b"line"])
    return StoredEvent(
        sequence=int(sequence.partition(b"-")[0]),
        at_ms=at_ms,
        kind=kind,
        id=id,
        cause=cause,
        actor=actor,
        status=status,
        attempt=attempt,
    )


def _read(known: Path) -> str:
    try:
        return known.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnavailable(f"{known} cannot be read: {error}") from error


def _write(known: Path, identity: str) -> None:
    """Whole or not at all."""
    draft = known.with_name(f"{known.name}.{os.getpid()}.new")
    try:
        draft.write_text(identity + "\n", encoding="ascii")
        draft.replace(known)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise StoreUnavailable(f"{known} cannot be written: {error}") from error
