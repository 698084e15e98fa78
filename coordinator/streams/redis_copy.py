"""The shared streams as a database of the embedded ones, and back: for backups.

Theory of operation. Of each job its hash is read first: all of it is of one moment, and says how far the job's
streams reach. They only grow at the end and lose at the beginning, so what is read of them up to there
belongs to that moment; where the oldest went meanwhile, the copy begins later.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from coordinator.redis import Argument, Server
from coordinator.sqlite.database import insert_rows
from coordinator.streams.redis import FIGURES, NUMBERS

PUT_CHUNKS = """INSERT INTO chunks (job, first, last, attempt, rank, channel, node_id, max_level,
    min_level, bytes, compressed, body)"""
CHUNKS_AT_ONCE = 64
POINTS_AT_ONCE = 2_000

_head = msgspec.msgpack.Decoder(tuple[Any, ...])

Hash = dict[bytes, bytes]


async def save(server: Server, database: sqlite3.Connection) -> None:
    """Copies the streams of a Redis into a new database. Raises StreamsUnavailable."""
    (begun,) = await server.each([("ZRANGE", server.key("begun"), 0, -1)])
    for job_id in begun:
        name = job_id.decode()
        (found,) = await server.each([("HGETALL", server.key(f"streams:{name}"))])
        if found:  # or it was dropped meanwhile
            await _save_job(server, database, name=name, found=found)
            database.commit()


async def _save_job(
    server: Server, database: sqlite3.Connection, *, name: str, found: Hash
) -> None:
    numbers = {one: int(found.pop(one.encode())) for one in NUMBERS}
    point, progress, eta = (found.pop(one.encode()).decode() for one in FIGURES)
    found.pop(b"rev")
    job = database.execute("INSERT INTO jobs (job_id) VALUES (?)", (name,)).lastrowid
    first, size = numbers["log_last"] + 1, 0
    async for entries in _entries(server, f"log:{name}", last=numbers["log_last"]):
        rows = []
        for _, fields in entries:
            *head, compressed = _head.decode(fields[b"head"])
            bytes_, body = int(fields[b"size"]), fields[b"body"]
            first, size = min(first, int(head[0])), size + bytes_
            rows.append((job, *head, bytes_, int(compressed), body))
        insert_rows(database, PUT_CHUNKS, rows)
    first_point = numbers["metrics_last"] + 1
    async for entries in _entries(server, f"points:{name}", last=numbers["metrics_last"]):
        placed = [(_position(at), fields[b"point"].decode()) for at, fields in entries]
        placed = [one for one in placed if one[0] >= numbers["metrics_first"]]
        first_point = min([first_point, *(at for at, _ in placed)])
        insert_rows(database, "INSERT INTO points", [(job, *one) for one in placed])
    sources = [(job, *map(int, key.split(b"/")), int(taken)) for key, taken in found.items()]
    insert_rows(database, "INSERT INTO sources", sources)
    database.execute(
        "UPDATE jobs SET log_first = ?, log_last = ?, log_bytes = ?, metrics_first = ?,"
        " metrics_last = ?, point = ?, progress = ?, eta_s = ? WHERE number = ?",
        (
            *(first, numbers["log_last"], size, first_point, numbers["metrics_last"]),
            *(point or None, float(progress), float(eta) if eta else None, job),
        ),
    )


async def put(server: Server, database: sqlite3.Connection) -> None:
    """Writes streams into a Redis that has none. Raises StreamsUnavailable."""
    rows = database.execute(
        f"SELECT number, job_id, {', '.join(NUMBERS)}, point, progress, eta_s"
        " FROM jobs ORDER BY number"
    ).fetchall()
    whole = 0
    for begun_ms, (number, job_id, *bounds, point, progress, eta_s) in enumerate(rows, 1):
        size = bounds[NUMBERS.index("log_bytes")]
        whole += size
        figures = (point or "", repr(progress), "" if eta_s is None else repr(eta_s))
        facts: dict[str, Argument] = {
            **dict(zip((*NUMBERS, *FIGURES), (*bounds, *figures), strict=True)),
            "rev": 1,
        }
        for attempt, rank, channel, taken in database.execute(
            "SELECT attempt, rank, channel, taken FROM sources WHERE job = ?", (number,)
        ):
            facts[f"{attempt}/{rank}/{channel}"] = taken
        await _put_streams(server, database, number=number, job_id=job_id)
        await server.each(
            [
                (
                    "HSET",
                    server.key(f"streams:{job_id}"),
                    *(x for one in facts.items() for x in one),
                ),
                ("HSET", server.key("logs"), job_id, size),
                ("ZADD", server.key("begun"), begun_ms, job_id),
            ]
        )
    await server.each([("HSET", server.key("state"), "log_bytes", whole)])


async def _put_streams(
    server: Server, database: sqlite3.Connection, *, number: int, job_id: str
) -> None:
    log, points = server.key(f"log:{job_id}"), server.key(f"points:{job_id}")
    chunks = database.execute(
        "SELECT first, last, attempt, rank, channel, node_id, max_level, min_level, bytes,"
        " compressed, body FROM chunks WHERE job = ? ORDER BY last",
        (number,),
    )
    while found := chunks.fetchmany(CHUNKS_AT_ONCE):
        commands: list[tuple[Argument, ...]] = []
        for *head, size, compressed, body in found:
            packed = msgspec.msgpack.encode((*head, bool(compressed)))
            where = (log, f"{head[1]}-0")
            commands.append(("XADD", *where, "size", size, "head", packed, "body", body))
        await server.each(commands)
    placed = database.execute(
        "SELECT position, body FROM points WHERE job = ? ORDER BY position", (number,)
    )
    while rows := placed.fetchmany(POINTS_AT_ONCE):
        await server.each([("XADD", points, f"{at}-0", "point", body) for at, body in rows])


async def _entries(server: Server, name: str, *, last: int) -> AsyncIterator[list[Any]]:
    """Of a stream, up to a position."""
    first = "-"
    while first:
        asked = ("XRANGE", server.key(name), first, last, "COUNT", CHUNKS_AT_ONCE)
        (found,) = await server.each([asked])
        yield found
        first = f"({found[-1][0].decode()}" if len(found) == CHUNKS_AT_ONCE else ""


def _position(id: bytes) -> int:
    return int(id.partition(b"-")[0])
