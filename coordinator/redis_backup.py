"""The state of a shared store as the two databases of a backup, and back. See backup.py."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from coordinator.data_dir import SCHEMAS, STORE, STREAMS
from coordinator.redis import Server
from coordinator.sqlite.files import FileTrouble, prepare
from coordinator.store import redis_copy as records
from coordinator.store.codec import CodecError
from coordinator.store.protocol import StoreUnavailable
from coordinator.store.redis import PREFIX
from coordinator.streams import redis_copy as streams


def save(url: str, folder: Path, *, prefix: str = PREFIX) -> str:
    """Makes the two databases; answers the identity of the store. Raises FileTrouble."""
    return asyncio.run(_save(Server(url, prefix=prefix, trouble=FileTrouble), folder))


def load(url: str, folder: Path, *, identity: str, prefix: str = PREFIX) -> None:
    """Writes the two databases into a Redis that has no store. Raises FileTrouble."""
    asyncio.run(_load(Server(url, prefix=prefix, trouble=FileTrouble), folder, identity=identity))


async def _save(server: Server, folder: Path) -> str:
    async with _reached(server):
        with _written(folder / STORE) as database:  # first, as with files
            identity = await records.save(server, database)
        with _written(folder / STREAMS) as database:
            await streams.save(server, database)
    return identity


async def _load(server: Server, folder: Path, *, identity: str) -> None:
    async with _reached(server):
        with contextlib.closing(sqlite3.connect(folder / STORE)) as database:
            epoch = await records.put(server, database, identity=identity)
        with contextlib.closing(sqlite3.connect(folder / STREAMS)) as database:
            await streams.put(server, database)
        await records.done(server, epoch)


@contextlib.asynccontextmanager
async def _reached(server: Server) -> AsyncIterator[None]:
    """With a server, whose failures are told as those of files are."""
    await server.open()
    try:
        yield
    except StoreUnavailable as error:
        raise FileTrouble(str(error)) from error
    except CodecError as error:
        raise FileTrouble(f"{server.name}: {error}; use the version that wrote it") from error
    finally:
        await server.close()


@contextlib.contextmanager
def _written(path: Path) -> Iterator[sqlite3.Connection]:
    """A new database, one file in the end; what is put into it reaches the disk once."""
    prepare(path, SCHEMAS[path.name])
    path.chmod(0o600)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA synchronous = OFF")  # the whole folder is synced before it counts
        yield database
        database.commit()
