"""The shared store as a database of the embedded one, and back: for backups, and to move from one to the other.

Theory of operation. Redis goes on while it is copied. First every job is copied, some at a time. The audit
tells which jobs have changed since that began; a script takes those, all that is small, and the version, of
one moment. So the copy is the store as of that version, however long it took, and the script stays short.

Into an empty Redis everything is written under a leader that nobody can depose before it is done.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import msgspec

from coordinator.core.records import Entry, Kind
from coordinator.core.times import DAY_MS, Day, Spent
from coordinator.redis import Argument, Script, Server
from coordinator.sqlite.database import insert_rows
from coordinator.store.codec import decode, decode_job, encode
from coordinator.store.lexical import part
from coordinator.store.protocol import StoreUnavailable
from coordinator.store.redis import COMMIT, EVENTS_KEPT, KEYS, RENEW
from coordinator.store.redis_index import LAYOUT, mark
from coordinator.store.rows import ENTRIES_KEPT
from coordinator.store.sqlite import put_jobs
from coordinator.store.sqlite_usage import PUT_ENTRIES, entry_rows

T = TypeVar("T")

AT_ONCE = 500
MOMENT = Script.of("coordinator.store", "moment")
MOMENT_KEYS = ("state", "jobs", "live", "records", "documents", "events", "batches")
NEWER_MOST = 2_000  # lines of the audit that the script looks at
NOBODY_ELSE_MS = 9_007_199_254_740_991  # how long the one that restores leads

_line = msgspec.json.Decoder(tuple[int, str, str, str, str, str, int])


async def save(server: Server, database: sqlite3.Connection) -> str:
    """Copies the store of a Redis into a new database; answers its identity. Raises StoreUnavailable."""
    (events,) = await server.fields("state", ["events"])
    if events is None:
        raise StoreUnavailable(f"{server.name} holds no store; there is nothing to back up")
    async for bodies in _scanned(server, "jobs"):
        _take_jobs(database, bodies.values())
    async for documents in _scanned(server, "documents"):
        _take_documents(database, documents)
    known = int(events)
    while True:
        said, *facts = await _moment(server, known)
        if said == b"done":
            break
        known, ids = facts
        await _take_again(server, database, ids=ids)
    epoch, version, last, identity, live, records, batches, changed = facts
    jobs = [changed[at : at + 3] for at in range(0, len(changed), 3)]
    _take_jobs(database, (body for _, body, _ in jobs if body))
    _take_documents(database, {id: document for id, _, document in jobs})
    _take_moment(database, live, records=records, batches=batches)
    await _take_history(server, database, last=last, version=int(version))
    (secret,) = await server.each([("GET", server.key("secret"))])
    if secret is not None:
        database.execute("UPDATE secret SET secret = ?", (secret,))
    database.execute(
        "UPDATE leadership SET epoch = ?, version = ?, holder = 'redis'", (int(epoch), int(version))
    )
    return str(identity, "ascii")


async def put(server: Server, database: sqlite3.Connection, *, identity: str) -> int:
    """Begins to write a store into a Redis that has none; answers the epoch under which it does.

    Until `done` no coordinator leads there. Raises StoreUnavailable.
    """
    epoch, version = database.execute("SELECT epoch, version FROM leadership").fetchone()
    state = server.key("state")
    (is_mine,) = await server.each([("HSETNX", state, "identity", identity)])
    if not is_mine:
        raise StoreUnavailable(
            f"{server.name} holds a store already, or what a restore that broke off has left; "
            "empty it first"
        )
    facts: tuple[Argument, ...] = ("epoch", epoch, "version", 0, "events", 0, "layout", LAYOUT)
    leader = ("holder", "a restore", "address", "", "until", NOBODY_ELSE_MS)
    await server.each([("HSET", state, *facts, *leader)])
    number = await _put_records(server, database, epoch=epoch)
    last = await _put_audit(server, database)
    await _put_ledger(server, database)
    batches = database.execute("SELECT version, id FROM batches ORDER BY version").fetchall()
    commands: list[tuple[Argument, ...]] = [
        ("DEL", server.key("batches")),
        *(("ZADD", server.key("batches"), at, id) for at, id in batches),
        ("HSET", state, "version", max(version, number), "events", last),
    ]
    for (secret,) in database.execute("SELECT secret FROM secret"):
        commands.append(("SET", server.key("secret"), secret))
    await server.each(commands)
    return int(epoch)


async def done(server: Server, epoch: int) -> None:
    """All is written: who comes next may lead. Answers once that is as safe as the server can make it."""
    await server.run(RENEW, [server.key("state")], (epoch, 0))


# out of Redis


async def _moment(server: Server, known: int) -> Any:
    keys = [server.key(name) for name in MOMENT_KEYS]
    answer = await server.run(MOMENT, keys, (known, NEWER_MOST), durably=False)
    if answer[0] == b"lost":
        raise StoreUnavailable(
            f"{server.name}: the audit is too short to tell what changed during the copy; "
            "raise --audit-events"
        )
    return answer


async def _scanned(server: Server, name: str) -> AsyncIterator[dict[bytes, bytes]]:
    cursor: Any = None
    while cursor != 0:
        asked = ("HSCAN", server.key(name), cursor or 0, "COUNT", AT_ONCE)
        ((cursor, found),) = await server.each([asked])
        cursor = int(cursor)
        yield found


async def _take_again(server: Server, database: sqlite3.Connection, *, ids: list[bytes]) -> None:
    """Copies jobs once more."""
    bodies = await server.fields("jobs", ids)
    documents = await server.fields("documents", ids)
    _take_jobs(database, filter(None, bodies))
    _take_documents(database, dict(zip(ids, (one or b"" for one in documents), strict=True)))


def _take_jobs(database: sqlite3.Connection, bodies: Iterable[bytes]) -> None:
    put_jobs(database, [(decode_job(body), False) for body in bodies])


def _take_documents(database: sqlite3.Connection, documents: dict[bytes, bytes]) -> None:
    """Those that are empty are gone."""
    rows = [(id.decode(), body) for id, body in documents.items()]
    database.executemany("DELETE FROM documents WHERE job_id = ?", [(id,) for id, _ in rows])
    kept = [(id, body) for id, body in rows if body]
    insert_rows(database, "INSERT INTO documents (job_id, body)", kept)


def _take_moment(
    database: sqlite3.Connection, live: list[bytes], *, records: list[bytes], batches: list[bytes]
) -> None:
    ids = [(id.decode(),) for id in live]
    database.executemany("UPDATE jobs SET live = 1 WHERE job_id = ?", ids)
    fields = zip(records[::2], records[1::2], strict=True)
    rows = [(*key.decode().split("/", 1), body.decode()) for key, body in fields]
    insert_rows(database, "INSERT INTO records (kind, id, body)", sorted(rows))
    pairs = zip(batches[::2], batches[1::2], strict=True)
    insert_rows(database, "INSERT INTO batches", [(id.decode(), int(at)) for id, at in pairs])


async def _take_history(
    server: Server, database: sqlite3.Connection, *, last: int, version: int
) -> None:
    """The audit and the ledger, up to the moment."""
    async for found in _entries(server, "events", upto=f"{last}"):
        lines = [(int(at.partition(b"-")[0]), _line.decode(one[b"line"])) for at, one in found]
        rows = [(number, 0, *line) for number, line in lines]
        insert_rows(database, "INSERT INTO events", rows)
    async for found in _entries(server, "entries", upto=f"{version}"):
        booked = [(int(at.partition(b"-")[0]), one[b"entry"]) for at, one in found]
        rows = [
            (number, *row)
            for number, body in booked
            for row in entry_rows([decode(Kind.ENTRY, body)])
        ]
        insert_rows(database, PUT_ENTRIES, rows)


async def _entries(server: Server, name: str, *, upto: str) -> AsyncIterator[list[Any]]:
    first = "-"
    while first:
        asked = ("XRANGE", server.key(name), first, upto, "COUNT", AT_ONCE)
        (found,) = await server.each([asked])
        yield found
        first = f"({found[-1][0].decode()}" if len(found) == AT_ONCE else ""


# into Redis


async def _put_records(server: Server, database: sqlite3.Connection, *, epoch: int) -> int:
    """Everything that batches are made of, by the script that makes them durable; how many it took."""
    keys = [server.key(name) for name in KEYS]
    jobs = database.execute("SELECT job_id, body, live FROM jobs ORDER BY sequence, job_id")
    records = database.execute("SELECT kind || '/' || id, body FROM records ORDER BY kind, id")
    documents = database.execute("SELECT job_id, body FROM documents ORDER BY number")
    marked = ((id, body, live, mark(decode_job(body.encode()))) for id, body, live in jobs)
    version = 0
    for place, rows in ((0, marked), (3, records), (5, documents)):
        for batch in _parts(rows):
            lists: list[Sequence[Sequence[Argument]]] = [[]] * 8
            lists[place] = batch
            words: list[Argument] = [
                epoch,
                f"restored {version}",
                version,
                EVENTS_KEPT,
                ENTRIES_KEPT,
            ]
            for entries in lists:
                words.append(len(entries))
                for entry in entries:
                    words += entry
            await server.run(COMMIT, keys, words, durably=False)
            version += 1
    return version


async def _put_audit(server: Server, database: sqlite3.Connection) -> int:
    last = 0
    stream, index = server.key("events"), server.key("events_of")
    rows = database.execute(
        "SELECT sequence, id, at, kind, cause, actor, status, attempt FROM events ORDER BY sequence"
    )
    for lines in _parts(rows):
        commands: list[tuple[Argument, ...]] = []
        for last, id, at, kind, *rest in lines:
            line, of = msgspec.json.encode((at, kind, id, *rest)), part(id)
            commands.append(("XADD", stream, f"{last}-0", "of", of, "line", line))
            commands.append(("ZADD", index, 0, of + b"%016d" % last))
        await server.each(commands)
    return last


async def _put_ledger(server: Server, database: sqlite3.Connection) -> None:
    """Each row as an entry of one day; those of a version in their order."""
    rows = database.execute(
        "SELECT version, day, tenant_id, user_id, queue_name, node_id, job_id, cause, cause_id,"
        " is_foreign, starting, productive, checkpointing, redone, idle, paused"
        " FROM entries ORDER BY version, number"
    )
    version = number = booked_ms = 0
    for found in _parts(rows):
        commands: list[tuple[Argument, ...]] = []
        for at, day, *names, is_foreign, a, b, c, d, e, f in found:
            version, number = (at, number + 1) if at == version else (at, 1)
            booked_ms = max(booked_ms, (day + 1) * DAY_MS)  # readers stop where it falls too low
            spent = Day(day, Spent(a, b, c, d, e, f))
            entry = _entry(names, is_foreign=bool(is_foreign), day=spent, booked_ms=booked_ms)
            key = server.key("entries")
            commands.append(("XADD", key, f"{version}-{number}", "entry", encode(entry)))
        await server.each(commands)


def _entry(names: list[str], *, is_foreign: bool, day: Day, booked_ms: int) -> Entry:
    tenant_id, user_id, queue_name, node_id, job_id, cause, cause_id = names
    return Entry(
        lease_id="",
        job_id=job_id,
        tenant_id=tenant_id,
        user_id=user_id,
        queue_name=queue_name,
        node_id=node_id,
        milli=1,  # the sums of a row are of thousandths
        days=(day,),
        cause=cause,
        cause_id=cause_id,
        is_foreign=is_foreign,
        booked_at_ms=booked_ms,
    )


def _parts(rows: Iterable[T]) -> Iterator[list[T]]:
    left = iter(rows)
    while found := list(islice(left, AT_ONCE)):
        yield found
